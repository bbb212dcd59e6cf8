"""The compiler's back half: its parts one by one, and what it promises about whole programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import celosia
import numpy as np
import pytest
from celosia.errors import CompileError, ProgramError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import (
    COMMAND_BYTES,
    Conv,
    Engine,
    Load,
    Region,
    Space,
    Vector,
    VectorOp,
)
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.place.alloc import Item, pack, place_in_gaps
from celosia.sw.compiler.place.layout import act_layout
from celosia.sw.compiler.place.mapping import Axis
from celosia.sw.compiler.schedule.constants import Ring
from celosia.sw.compiler.schedule.prefetch import prefetch_loads
from celosia.sw.compiler.schedule.tokens import place_tokens
from celosia.sw.compiler.steps import Footprint, Place, Step, conflict
from celosia.sw.program.file import Program
from celosia.sw.program.segments import LayerInfo
from celosia.sw.program.verify import check_program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.places import benchmark_model
from tests.kit.random_models import random_network


def test_last_chunks_become_smaller() -> None:
    builder = ModelBuilder()
    x = builder.input((1, 128), scale=0.1)
    y = builder.fully_connected(x, np.ones((640, 128), np.int8), w_scales=0.01, scale=0.2)
    program = compile_model(builder.finish([y]), preset("base"))
    sizes = [load.row_bytes for load in _weight_loads(program) if load.space == Space.WGT]
    assert sum(sizes) == 640 * 128
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= 2048 < sizes[0]


# ------------------------------------------------------------------------------ placement


def test_pack_keeps_items_that_are_alive_together_apart() -> None:
    rng = np.random.default_rng(0)
    placed = 0
    for _ in range(200):
        items = []
        for _ in range(int(rng.integers(1, 12))):
            first = int(rng.integers(0, 10))
            items.append(Item(int(rng.integers(1, 40)), first, first + int(rng.integers(0, 4))))
        addresses = pack(items, 100)
        if addresses is None:
            continue
        placed += 1
        for i, (one, a) in enumerate(zip(items, addresses, strict=True)):
            assert a >= 0
            assert a + one.size_bytes <= 100
            for other, b in zip(items[:i], addresses[:i], strict=True):
                together = one.first <= other.last and other.first <= one.last
                apart = a + one.size_bytes <= b or b + other.size_bytes <= a
                assert apart or not together
    assert placed > 100


def test_pack_says_when_nothing_fits() -> None:
    assert pack([Item(60, 0, 1), Item(50, 1, 2)], 100) is None
    assert pack([Item(60, 0, 0), Item(50, 1, 2)], 100) == [0, 0]


def test_buffers_go_into_the_smallest_gap_that_takes_them() -> None:
    assert place_in_gaps([8, 32], [(0, 64), (100, 132), (200, 208)]) == [200, 100]
    assert place_in_gaps([40, 40], [(0, 64), (100, 132)]) is None


def test_ring_never_cuts_a_block_in_two() -> None:
    ring = Ring(100)
    assert [ring.take(size) for size in (40, 40, 40, 60, 10)] == [0, 40, 0, 40, 0]
    ring.reserve(95)
    assert [ring.take(50), ring.take(45)] == [0, 50]


@pytest.mark.parametrize("width", range(1, 12))
@pytest.mark.parametrize("channels", [1, 8, 9, 16, 24])
def test_odd_pitches_are_odd(width: int, channels: int) -> None:
    rows = act_layout(width, channels, 8, odd_rows=True)
    assert rows.row_pitch // 8 % 2 == 1
    assert 0 <= rows.row_pitch - width * rows.pixel_pitch <= 8
    pixels = act_layout(width, channels, 8, odd_pixels=True)
    assert pixels.pixel_pitch // 8 % 2 == 1
    assert pixels.row_pitch == width * pixels.pixel_pitch


# ------------------------------------------------------------------------------ mapping


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", [0, 1, 2, 4])
def test_rows_of_a_stream_share_only_padding(kernel: int, stride: int, pad: int) -> None:
    """Every tap of every output meets the right pixel in the rows laid end to end."""
    pad = min(pad, kernel - 1)
    for size in range(1, 10):
        out_size = (size + 2 * pad - kernel) // stride + 1
        if out_size < 1:
            continue
        axis = Axis(kernel, stride, pad, size, out_size)
        for first in range(out_size):
            for count in range(1, out_size - first + 1):
                length, extra = axis.stream(first, count)
                start = first * stride - pad
                row = [start + p for p in range(length)]
                image = [x if 0 <= x < size else None for x in row]
                last = [start + p for p in range(length, length + extra)]
                tail = [x if 0 <= x < size else None for x in last]
                for following in (image, tail):
                    stream = image + following
                    for out in range(count):
                        for tap in range(kernel):
                            x = start + out * stride + tap
                            want = x if 0 <= x < size else None
                            assert stream[out * stride + tap] == want


# ------------------------------------------------------------------------------ order, tokens


def _step(engine: Engine, reads: list[int], writes: list[int]) -> Step:
    command = {
        Engine.LOAD: Load(row_bytes=1),
        Engine.ARRAY: Conv(),
        Engine.VECTOR: Vector(op=int(VectorOp.TABLE)),
    }[engine]

    def footprints(cells: list[int]) -> tuple[Footprint, ...]:
        return tuple(Footprint(Place.ACT, cell, cell + 1) for cell in cells)

    return Step(command=command, reads=footprints(reads), writes=footprints(writes), layer=0)


def _random_steps(rng: np.random.Generator, count: int) -> list[Step]:
    engines = [Engine.LOAD, Engine.ARRAY, Engine.VECTOR]
    steps = []
    for _ in range(count):
        engine = engines[int(rng.integers(3))]
        reads = [int(c) for c in rng.integers(0, 12, 2)] if engine != Engine.LOAD else []
        writes = [int(rng.integers(0, 12))] if engine != Engine.ARRAY else []
        steps.append(_step(engine, reads, writes))
    return steps


def test_tokens_order_every_conflict() -> None:
    """Happens-before, closed over engines and tokens, contains every pair that conflicts."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        steps = _random_steps(rng, 30)
        commands = place_tokens(steps, queue_depth=4)
        before: list[set[int]] = []
        signals: dict[tuple[int, Engine], list[int]] = {}
        taken: dict[tuple[int, Engine], int] = {}
        for index, (step, command) in enumerate(zip(steps, commands, strict=True)):
            earlier: set[int] = set()
            own = [i for i in range(index) if steps[i].engine == step.engine]
            sources = own[-1:]
            for other in Engine:
                if command.wait >> other & 1:
                    key = (int(other), step.engine)
                    sources.append(signals[key][taken.get(key, 0)])
                    taken[key] = taken.get(key, 0) + 1
            for source in sources:
                earlier |= before[source] | {source}
            before.append(earlier)
            for to in Engine:
                if command.signal >> to & 1:
                    signals.setdefault((int(step.engine), to), []).append(index)
            for other_index in range(index):
                if conflict(steps[other_index], step):
                    assert other_index in earlier
        assert all(len(given) == taken[key] for key, given in signals.items())


def test_prefetch_keeps_conflicts_and_the_order_of_loads() -> None:
    rng = np.random.default_rng(2)
    moved = 0
    for _ in range(60):
        steps = _random_steps(rng, 40)
        # A Conv and the Vector behind it stay together; here nothing follows one another so.
        steps = [step for step in steps if step.engine != Engine.ARRAY]
        result = prefetch_loads(steps, most_ahead=3)
        origin = {id(step): index for index, step in enumerate(steps)}
        place = {id(step): index for index, step in enumerate(result)}
        assert sorted(place) == sorted(id(step) for step in steps)
        moved += result != steps
        for later in range(len(steps)):
            for earlier in range(later):
                one, other = steps[earlier], steps[later]
                both_loads = one.engine == other.engine == Engine.LOAD
                if conflict(one, other) or both_loads:
                    assert place[id(one)] < place[id(other)]
        for index, step in enumerate(result):
            if step.engine != Engine.LOAD:
                natural = [s for s in steps[: origin[id(step)]] if s.engine == Engine.LOAD]
                loads = [s for s in result[:index] if s.engine == Engine.LOAD]
                assert len(loads) - len(natural) <= 3
    assert moved > 30


def test_every_token_of_a_program_is_needed_by_the_check() -> None:
    """Dropping any one pair of wait and signal leaves a race or a deadlock."""
    model = random_network(np.random.default_rng(5), depth=5, size=(10, 9))
    config = NpuConfig(rows=8, cols=8, act_bytes=512, wgt_bytes=256, acc_depth=32)
    program = compile_model(model.model, config)
    commands = program.npu.decode()
    refused = total = 0
    for source in Engine:
        for to in Engine:
            waits = [i for i, c in enumerate(commands) if c.engine == to and c.wait >> source & 1]
            signals = [
                i for i, c in enumerate(commands) if c.engine == source and c.signal >> to & 1
            ]
            assert len(waits) == len(signals)
            for wait, signal in zip(waits, signals, strict=True):
                changed = list(commands)
                changed[wait] = replace(changed[wait], wait=changed[wait].wait & ~(1 << source))
                changed[signal] = replace(
                    changed[signal], signal=changed[signal].signal & ~(1 << to)
                )
                code = b"".join(command.encode() for command in changed)
                total += 1
                try:
                    check_program(program.with_npu(commands=code))
                except ProgramError:
                    refused += 1
    assert total > 20
    # Footprints are intervals, so a few tokens are more careful than the check.
    assert refused >= 0.8 * total


# ------------------------------------------------------------------------------ programs


def _weight_loads(program: Program) -> list[Load]:
    return [
        command
        for command in program.npu.decode()
        if isinstance(command, Load) and command.region == Region.CONST
    ]


def test_constants_lie_in_the_order_in_which_they_are_loaded() -> None:
    program = compile_model(benchmark_model("ad01"), preset("base"))
    loads = _weight_loads(program)
    end = 0
    for load in loads:
        assert load.mem_addr == end
        end += load.row_bytes
    assert end == len(program.npu.constants)


@pytest.mark.parametrize("config", ["base", "large"])
@pytest.mark.parametrize("name", ["kws", "sww", "ad01", "resnet8", "vww_96"])
def test_benchmark_models_need_no_scratch_memory(name: str, config: str) -> None:
    program = compile_model(benchmark_model(name), preset(config))
    assert program.npu.region_bytes(Region.SCRATCH) == 0
    macs = sum(layer.macs for layer in program.layers)
    cycles = sum(layer.predicted_cycles for layer in program.layers)
    assert cycles > macs / program.config.macs_per_cycle


def test_few_channel_inputs_are_folded_where_that_pays() -> None:
    """Kernel rows of 4 bytes fill half of 8 array rows: two image rows side by side fill them."""
    program = compile_model(benchmark_model("kws"), preset("base"))
    first = next(command for command in program.npu.decode() if isinstance(command, Conv))
    assert first.n_ky * first.n_kx * first.n_ic == 5
    assert program.npu.inputs[0].pixel_pitch == 1
    # With 4 rows a kernel row fills the array as it is.
    assert all(layer.op != "FOLD_INPUT" for layer in _layers("kws", "nano"))


def _layers(name: str, config: str) -> tuple[LayerInfo, ...]:
    return compile_model(benchmark_model(name), preset(config)).layers


def test_residual_additions_are_fused() -> None:
    path = benchmark_model("resnet8")
    ops = [
        VectorOp(command.op)
        for command in compile_model(path, preset("base")).npu.decode()
        if isinstance(command, Vector)
    ]
    assert VectorOp.REQUANT_ADD in ops
    assert VectorOp.ADD not in ops
    # The addition takes four cycles a vector: it goes with the convolution that has most passes.
    commands = compile_model(path, preset("base")).npu.decode()
    for before, command in zip(commands, commands[1:], strict=False):
        if isinstance(command, Vector) and command.op == VectorOp.REQUANT_ADD:
            assert isinstance(before, Conv)
            assert before.n_ky * before.n_kx == 9
    separate = compile_model(path, preset("base"), fuse=False)
    assert sum(isinstance(c, Vector) and c.op == VectorOp.ADD for c in separate.npu.decode()) == 3


def test_the_same_model_gives_the_same_bytes() -> None:
    model = random_network(np.random.default_rng(7))
    first, second = (compile_model(model.model, preset("tiny")) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


def test_layers_cover_all_commands() -> None:
    program = compile_model(benchmark_model("vww_96"), preset("tiny"))
    commands = program.npu.decode()
    assert len(program.npu.commands) == COMMAND_BYTES * len(commands)
    covered: set[int] = set()
    for layer in program.layers:
        covered.update(range(layer.first_tag, layer.last_tag + 1))
        assert layer.reason
        assert layer.runs_on == "npu"
    assert covered == set(range(len(commands) - 1))
    assert sum(layer.macs for layer in program.layers) == 7_489_664


def _conv_model(size: int, channels: int, cout: int) -> bytes:
    builder = ModelBuilder()
    x = builder.input((1, size, size, channels), scale=0.1)
    y = builder.conv2d(
        x, np.ones((cout, 3, 3, channels), np.int8), w_scales=0.01, scale=0.2, padding="SAME"
    )
    return builder.finish([y])


def test_a_layer_that_cannot_be_cut_is_refused_in_words() -> None:
    config = preset("nano").with_(act_bytes=64)
    with pytest.raises(CompileError) as caught:
        compile_model(_conv_model(32, 16, 16), config, host="refuse")
    text = str(caught.value)
    assert "CONV_2D #0" in text
    assert "64" in text
    assert "act_bytes" in text


@pytest.mark.parametrize("config", ["tiny", "base", "large", "nano"])
@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda b, x: _dense_of(b, b.reshape(x, (1, -1)), 3), id="dense-256-steps"),
        pytest.param(lambda b, x: _conv_of(b, x, (300, 1), (1, 1)), id="kernel-300-rows"),
        pytest.param(lambda b, x: _conv_of(b, x, (3, 1), (17, 1)), id="stride-17"),
        pytest.param(lambda b, x: _depthwise_of(b, x, (5, 1), (17, 1)), id="depthwise-stride-17"),
        pytest.param(lambda b, x: _depthwise_of(b, x, (290, 1), (16, 16)), id="depthwise-290-rows"),
        pytest.param(
            lambda b, x: _depthwise_of(b, b.reshape(x, (1, 1, 301, 8)), (1, 290), (16, 16)),
            id="depthwise-290-columns",
        ),
        pytest.param(
            lambda b, x: _conv_of(b, b.reshape(x, (1, 1, 301, 8)), (1, 300), (16, 1)),
            id="kernel-300-columns",
        ),
    ],
)
def test_what_exceeds_a_command_takes_several(config: str, build: Build) -> None:
    """No kernel and no stride is refused because a field of a command is narrow."""
    builder = ModelBuilder()
    x = builder.input((1, 301, 1, 8), scale=0.1, zero_point=-5)
    model = builder.finish([build(builder, x)])
    assert_equal_to_golden(model, config)


@pytest.mark.parametrize("views", [(12, 5), (5, 12), (60, 1), (1, 60)])
@pytest.mark.parametrize("channels", [8, 16, 7])
def test_rows_of_a_view_are_not_those_of_what_it_views(
    views: tuple[int, int], channels: int
) -> None:
    """A taller or a flatter view of the input, in memories that make its reader cut it."""
    builder = ModelBuilder()
    x = builder.input((1, 12, 5, channels), scale=0.1, zero_point=3)
    y = builder.reshape(x, (1, *views, channels))
    weights = np.random.default_rng(4).integers(-127, 128, (40, 1, 1, channels), np.int8)
    z = builder.conv2d(y, weights, w_scales=0.01, scale=1.0, zero_point=7)
    for outputs in ([z], [z, y]):
        for act_bytes in (4096, 8192) if views[0] == 1 else (2048, 4096):
            model = builder.finish(outputs)
            assert_equal_to_golden(model, preset("tiny").with_(act_bytes=act_bytes))


@pytest.mark.parametrize("made", ["{x}/folded", "{x}/folded'", "{dense}/rows", "{dense}/rows'"])
@pytest.mark.parametrize("name", ["x", "x/folded", "x/rows"])
def test_names_that_the_compiler_makes_meet_none_of_the_file(name: str, made: str) -> None:
    builder = ModelBuilder()
    x = builder.input((1, 32, 32, 1), scale=0.1, name=name)
    y = _conv_of(builder, x, (5, 5), (2, 2))
    view = builder.reshape(y, (1, 6, 2, 64))
    dense = _dense_of(builder, view, 4)
    taken = made.format(x=name, dense=dense.name)
    for index in (y.index, view.index):
        tensors = list(builder._tensors)
        tensors[index] = replace(tensors[index], name=taken)
        renamed = ModelBuilder()
        renamed._inputs, renamed._operators = builder._inputs, builder._operators
        renamed._tensors = tensors
        for config in ("base", "tiny"):
            assert_equal_to_golden(renamed.finish([dense]), config)


Build = Callable[[ModelBuilder, TensorHandle], TensorHandle]


def assert_equal_to_golden(model: bytes, config: NpuConfig | str) -> None:
    """Assert that all outputs of a model on the emulator are the golden model's."""
    rng = np.random.default_rng(5)
    golden = GoldenModel(model)
    values = [rng.integers(-128, 128, info.shape, np.int8) for info in golden.inputs]
    want = golden.run_by_index(values)
    with celosia.open("emu", config) as device:
        result = device.run(celosia.compile(model, config), values)
    for info, got in zip(golden.outputs, result.outputs.values(), strict=True):
        np.testing.assert_array_equal(got.reshape(-1), want[info.index].reshape(-1))


def _dense_of(builder: ModelBuilder, x: TensorHandle, units: int) -> TensorHandle:
    weights = np.random.default_rng(1).integers(-127, 128, (units, x.shape[-1]), np.int8)
    return builder.fully_connected(x, weights, w_scales=0.01, scale=3.0, zero_point=4)


def _conv_of(
    builder: ModelBuilder, x: TensorHandle, kernel: tuple[int, int], strides: tuple[int, int]
) -> TensorHandle:
    weights = np.random.default_rng(2).integers(-127, 128, (3, *kernel, x.shape[3]), np.int8)
    return builder.conv2d(
        x, weights, w_scales=0.01, scale=1.0, zero_point=7, strides=strides, padding="SAME"
    )


def _depthwise_of(
    builder: ModelBuilder, x: TensorHandle, kernel: tuple[int, int], strides: tuple[int, int]
) -> TensorHandle:
    weights = np.random.default_rng(3).integers(-127, 128, (1, *kernel, x.shape[3]), np.int8)
    return builder.depthwise_conv2d(
        x, weights, w_scales=0.01, scale=1.0, zero_point=7, strides=strides, padding="SAME"
    )


def test_a_value_too_large_for_its_field_is_refused_in_words() -> None:
    builder = ModelBuilder()
    x = builder.input((1, 300, 1, 8), scale=0.1)
    # Padded, so not a convolution; and 257 is no product of windows that there are.
    y = builder.average_pool2d(x, size=(257, 1), padding="SAME")
    with pytest.raises(CompileError, match="AVERAGE_POOL_2D #0.*window rows: 257, .*255"):
        compile_model(builder.finish([y]), preset("base"), host="refuse")


def test_weights_larger_than_their_memory_are_loaded_in_pieces() -> None:
    config = preset("base").with_(wgt_bytes=1024)
    program = compile_model(_conv_model(6, 32, 16), config)
    convs = [command for command in program.npu.decode() if isinstance(command, Conv)]
    assert any(conv.hold for conv in convs)
    assert any(conv.accumulate for conv in convs)
    assert all(load.row_bytes <= 512 for load in _weight_loads(program) if load.space == Space.WGT)


def test_the_limits_of_foreign_files_refuse_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They bound what a file may cost; what the compiler makes is as large as its model."""
    monkeypatch.setattr("celosia.sw.program.limits.MAX_WORK_CYCLES", 1)
    program = compile_model(_conv_model(6, 32, 16), preset("base"))
    program.save(tmp_path / "large.celosia")
    with pytest.raises(ProgramError, match="cycles of work so far, at most 1 are taken"):
        Program.load(tmp_path / "large.celosia")
