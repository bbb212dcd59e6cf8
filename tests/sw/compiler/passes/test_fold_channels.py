"""Folding of constant channels: what goes, what has to stay, and that nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import ProgramError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.cli.app import app
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite import convert as frontend
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.passes.channel_ranges import channel_ranges
from celosia.sw.compiler.passes.fold_channels import fold_channels
from celosia.sw.compiler.verify import verify
from celosia.sw.driver.opening import open_device
from celosia.sw.driver.result import SegmentResult
from celosia.sw.program.file import Program
from celosia.sw.program.segments import NpuSegment
from celosia.sw.program.tensors import TensorInfo
from celosia.sw.reference.check import check_model
from celosia.sw.reference.golden import GoldenModel
from celosia.sw.report.samples import random_samples
from typer.testing import CliRunner

from tests.kit.places import benchmark_model

SMALL = preset("nano").with_(act_bytes=1 << 14)
VWW_CYCLES = 85_000
"""The most that vww may take at base when it is folded."""

Int8 = npt.NDArray[np.int8]
Rng = np.random.Generator


# ------------------------------------------------------------------------------ helpers


def folded(model: bytes) -> Graph:
    """Return the lowered and folded graph of a model."""
    graph = fold_channels(lower(frontend.load(model)))
    verify(graph)
    return graph


def kept(graph: Graph, tensor: TensorHandle) -> list[int]:
    """Return the channels that are left of a tensor."""
    channels = graph.tensors[tensor.name].kept_channels
    return list(range(tensor.shape[-1])) if channels is None else list(channels)


def assert_exact(model: bytes, inputs: Sequence[Int8], config: NpuConfig, seed: int = 0) -> Program:
    """Run a folded model and compare all tensors it has; return the program."""
    golden = GoldenModel(model)
    expected = golden.run(inputs)
    sample = {info.name: values for info, values in zip(golden.inputs, inputs, strict=True)}
    instrumented = compile_model(model, config, keep_tensors=True, fold=True)
    plain = compile_model(model, config, fold=True)
    with open_device("emu", config, memory_bytes=1 << 21, order="random", seed=seed) as device:
        for program in (instrumented, plain):
            result = device.run(program, sample)
            tensors = {**result.tensors, **result.outputs}
            for info in (*program.intermediates, *program.outputs):
                wanted = expected[info.name]
                if info.kept_channels is not None:
                    assert info not in program.outputs
                    wanted = wanted[..., list(info.kept_channels)]
                np.testing.assert_array_equal(
                    tensors[info.name].reshape(wanted.shape), wanted, err_msg=info.name
                )
    return instrumented


def random_int8(rng: Rng, *shape: int) -> Int8:
    return rng.integers(-127, 128, shape, dtype=np.int8)


def stem(b: ModelBuilder, values: Sequence[int | None], zero_point: int = 0) -> TensorHandle:
    """Add an input and a 1x1 convolution; `values` are its channels' constants, None for others."""
    rng = np.random.default_rng(1)
    x = b.input((1, 6, 6, 3), scale=0.1)
    weights = random_int8(rng, len(values), 1, 1, 3)
    bias = rng.integers(-50, 50, len(values)).astype(np.int32)
    for channel, value in enumerate(values):
        if value is not None:
            weights[channel] = 0
            bias[channel] = (value - zero_point) * 10  # the scales' ratio is 1/10
    return b.conv2d(x, weights, bias, w_scales=0.1, scale=0.1, zero_point=zero_point)


def dense_conv(
    b: ModelBuilder, x: TensorHandle, cout: int = 4, kernel: int = 1, **options: Any
) -> TensorHandle:
    """Add a convolution without a zero among its weights."""
    rng = np.random.default_rng(len(x.name) + cout)
    weights = rng.integers(1, 100, (cout, kernel, kernel, x.shape[3]), dtype=np.int8)
    bias = rng.integers(-999, 999, cout).astype(np.int32)
    return b.conv2d(x, weights, bias, w_scales=0.01, scale=1.0, **options)


def finish(b: ModelBuilder, *outputs: TensorHandle) -> tuple[bytes, Graph]:
    """Finish a model of `stem`'s input, check that folding is exact; return its folded graph."""
    model = b.finish(list(outputs))
    rng = np.random.default_rng(2)
    assert_exact(model, [rng.integers(-128, 128, (1, 6, 6, 3), dtype=np.int8)], SMALL)
    return model, folded(model)


# ------------------------------------------------------------------------------ what goes


def test_constant_channels_move_into_the_bias() -> None:
    b = ModelBuilder()
    y = stem(b, [None, 7, None, -100, 3], zero_point=3)
    model, graph = finish(b, dense_conv(b, y))
    assert kept(graph, y) == [0, 2]
    first, second = graph.npu_ops
    assert (first.macs, first.folded_macs) == (36 * 3 * 5, 36 * 3 * 3)  # type: ignore[attr-defined]
    assert (second.macs, second.folded_macs) == (36 * 5 * 4, 36 * 3 * 4)  # type: ignore[attr-defined]
    assert folded(model).macs == lower(frontend.load(model)).macs


def test_without_the_option_nothing_is_folded() -> None:
    b = ModelBuilder()
    y = stem(b, [None, 7])
    model = b.finish([dense_conv(b, y)])
    program = compile_model(model, SMALL, keep_tensors=True)
    assert program.folded_macs == 0
    assert [info.shape for info in program.intermediates] == [(1, 6, 6, 2)]


def test_a_graph_without_constant_channels_stays_the_same_object() -> None:
    b = ModelBuilder()
    graph = lower(frontend.load(b.finish([dense_conv(b, stem(b, [None, None]))])))
    assert fold_channels(graph) is graph


def test_padding_keeps_constants_other_than_the_zero_point() -> None:
    b = ModelBuilder()
    y = stem(b, [None, 5, -20, 5], zero_point=5)
    _, graph = finish(b, dense_conv(b, y, kernel=3, padding="SAME"))
    assert kept(graph, y) == [0, 2]
    b = ModelBuilder()
    y = stem(b, [None, 5, -20, 5], zero_point=5)
    _, graph = finish(b, dense_conv(b, y, kernel=3, padding="VALID"))
    assert kept(graph, y) == [0]


def test_padding_that_a_stride_never_reads_does_not_count() -> None:
    """A 2x2 kernel at stride 2 on 6x6 pixels has no padding, whatever the file calls it."""
    b = ModelBuilder()
    y = stem(b, [None, 5], zero_point=0)
    _, graph = finish(b, dense_conv(b, y, kernel=2, padding="SAME", strides=(2, 2)))
    assert kept(graph, y) == [0]


def test_weights_that_see_the_same_everywhere_let_a_constant_go() -> None:
    """Only taps that are never in the padding, or weights that cancel in every border class."""
    weights = np.zeros((2, 3, 3, 3), np.int8)
    weights[..., 0] = 1
    weights[:, 1, 1, 1] = 9  # the centre only
    weights[:, 0, 1, 2] = 9  # leaves the image at the top
    b = ModelBuilder()
    y = stem(b, [None, 40, 40])
    z = b.conv2d(y, weights, w_scales=0.1, scale=1.0)
    _, graph = finish(b, z)
    assert kept(graph, y) == [0, 2]


def test_channels_that_nobody_reads_go_through_all_layers_above() -> None:
    b = ModelBuilder()
    y = stem(b, [None] * 4)
    d = b.depthwise_conv2d(y, np.ones((1, 3, 3, 4), np.int8), w_scales=0.1, scale=0.4)
    weights = np.ones((3, 1, 1, 4), np.int8)
    weights[..., 1:3] = 0
    _, graph = finish(b, b.conv2d(d, weights, w_scales=0.1, scale=1.0))
    assert kept(graph, d) == kept(graph, y) == [0, 3]


def test_a_second_reader_keeps_a_channel() -> None:
    b = ModelBuilder()
    y = stem(b, [None, 50, 0])
    one = dense_conv(b, y, 4)
    padded = dense_conv(b, y, 5, kernel=3)
    _, graph = finish(b, one, padded)
    assert kept(graph, y) == [0, 1]


def test_depthwise_layers_keep_channels_in_step() -> None:
    """A constant other than the zero point is not constant behind a padded depthwise layer."""
    for padding, left in (("SAME", [0, 1]), ("VALID", [0])):
        b = ModelBuilder()
        y = stem(b, [None, 50, 0])
        d = b.depthwise_conv2d(
            y, np.full((1, 3, 3, 3), 20, np.int8), w_scales=0.01, scale=0.4, padding=padding
        )
        _, graph = finish(b, dense_conv(b, d))
        assert kept(graph, y) == kept(graph, d) == left


def test_a_clamp_can_make_the_border_equal_again() -> None:
    """Both the inside and the border of the constant channel come out as the upper clamp."""
    b = ModelBuilder()
    y = stem(b, [None, 50])
    d = b.depthwise_conv2d(y, np.full((1, 3, 3, 2), 100, np.int8), w_scales=1.0, scale=0.01)
    _, graph = finish(b, dense_conv(b, d))
    assert kept(graph, y) == [0]


def test_filters_that_never_leave_the_clamp_are_constant() -> None:
    b = ModelBuilder()
    x = b.input((1, 6, 6, 3), scale=0.1)
    weights = np.ones((3, 1, 1, 3), np.int8)
    # The sum is 381 at most: less 381 it is never positive, less 380 sometimes.
    bias = np.array([0, -381, -380], np.int32)
    y = b.conv2d(x, weights, bias, w_scales=0.1, scale=0.01, zero_point=-128, activation="RELU")
    _, graph = finish(b, dense_conv(b, y))
    assert kept(graph, y) == [0, 2]


def test_addition_needs_both_operands() -> None:
    b = ModelBuilder()
    x = b.input((1, 6, 6, 3), scale=0.1)
    weights = np.ones((2, 4, 1, 1, 3), np.int8)
    weights[0, [1, 3]] = weights[1, [2, 3]] = 0
    left = b.conv2d(x, weights[0], w_scales=0.1, scale=0.2)
    right = b.conv2d(x, weights[1], w_scales=0.1, scale=0.3)
    total = b.add(left, right, scale=0.4, zero_point=9)
    _, graph = finish(b, dense_conv(b, total))
    assert kept(graph, left) == kept(graph, right) == kept(graph, total) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["average", "max", "relu", "tanh", "reshape"])
def test_layers_of_single_channels_pass_constants_on(kind: str) -> None:
    b = ModelBuilder()
    y = stem(b, [None, 50, 0, -7], zero_point=-7)
    if kind == "average":
        z = b.average_pool2d(y, size=(3, 3), strides=(2, 2), padding="SAME")
    elif kind == "max":
        z = b.max_pool2d(y, size=(2, 2), strides=(2, 2))
    elif kind == "relu":
        z = b.relu(y, scale=0.15, zero_point=3)
    elif kind == "tanh":
        z = b.tanh(y)
    else:
        z = b.reshape(y, (1, 4, 9, 4))
    _, graph = finish(b, dense_conv(b, z))
    assert kept(graph, z) == [0]


def test_a_flattened_image_is_read_by_a_fully_connected_layer() -> None:
    b = ModelBuilder()
    y = stem(b, [None, 50, 0])
    flat = b.reshape(y, (1, 108))
    rng = np.random.default_rng(3)
    z = b.fully_connected(flat, random_int8(rng, 5, 108), w_scales=0.01, scale=3.0)
    _, graph = finish(b, z)
    assert kept(graph, y) == [0]


def test_outputs_softmax_and_reshapes_that_move_channels_keep_all() -> None:
    b = ModelBuilder()
    y = stem(b, [None, 50, 0])
    _, graph = finish(b, y, dense_conv(b, y))
    assert kept(graph, y) == [0, 1, 2]
    b = ModelBuilder()
    y = stem(b, [None, 50, 0])
    _, graph = finish(b, dense_conv(b, b.softmax(y)))
    assert kept(graph, y) == [0, 1, 2]
    b = ModelBuilder()
    y = stem(b, [None, 50, 0])
    _, graph = finish(b, dense_conv(b, b.reshape(y, (1, 6, 9, 2))))
    assert kept(graph, y) == [0, 1, 2]


def test_a_network_whose_result_is_constant_keeps_a_channel_of_each_tensor() -> None:
    b = ModelBuilder()
    y = stem(b, [1, 2, 3])
    _, graph = finish(b, dense_conv(b, y))
    assert kept(graph, y) == [0]


def test_biases_wrap_as_accumulators_do() -> None:
    """What folding adds takes the bias over the end of 32 bits, as it took the accumulator."""
    b = ModelBuilder()
    y = stem(b, [None, 127])
    weights = np.full((2, 1, 1, 2), 127, np.int8)
    bias = np.array([(1 << 31) - 127 * 127, -(1 << 31)], np.int32)
    z = b.conv2d(y, weights, bias, w_scales=1e-4, scale=10.0)
    _, graph = finish(b, z)
    assert kept(graph, y) == [0]
    assert graph.npu_ops[1].bias.tolist() == [-(1 << 31), -(1 << 31) + 127 * 127]  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------ ranges


def test_ranges_hold_every_value_and_are_tight_for_one_layer() -> None:
    tight = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        b = ModelBuilder()
        x = b.input((1, 3, 4, 2), scale=0.1, zero_point=int(rng.integers(-128, 128)))
        kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        options: dict[str, Any] = {
            "w_scales": float(rng.choice([1e-4, 1e-3, 0.1])),
            "scale": 0.1,
            "zero_point": int(rng.integers(-128, 128)),
            "padding": str(rng.choice(["SAME", "VALID"])),
            "activation": str(rng.choice(["NONE", "RELU"])),
        }
        if seed % 2:
            weights = random_int8(rng, 1, *kernel, 2)
            y = b.depthwise_conv2d(x, weights, **options)
            filters = [weights[0, :, :, channel, None] for channel in range(2)]
        else:
            weights = random_int8(rng, 3, *kernel, 2)
            y = b.conv2d(x, weights, **options)
            filters = list(weights)
        model = b.finish([y])
        ranges = channel_ranges(lower(frontend.load(model)))[y.name]
        golden = GoldenModel(model)
        samples = [rng.integers(-128, 128, x.shape, dtype=np.int8) for _ in range(20)]
        # Images that agree in sign with a filter laid onto each of their pixels reach the ends.
        for taps in filters:
            for top in range(-2, 3):
                for left in range(-2, 4):
                    image = np.zeros((7, 10, 2), np.int8)
                    image[top + 2 :, left + 2 :][: kernel[0], : kernel[1]] = np.sign(taps)
                    part = image[2:5, 2:6][None]
                    samples += [
                        np.where(part > 0, 127, -128).astype(np.int8),
                        np.where(part > 0, -128, 127).astype(np.int8),
                    ]
        values = np.stack([golden.run([s])[y.name] for s in samples]).astype(np.int64)
        low, high = values.min(axis=(0, 1, 2, 3)), values.max(axis=(0, 1, 2, 3))
        assert (ranges.low <= low).all(), f"seed {seed}"
        assert (high <= ranges.high).all(), f"seed {seed}"
        tight += int((ranges.low == low).all() and (ranges.high == high).all())
    assert tight >= 25


def test_accumulators_that_may_wrap_are_not_called_constant() -> None:
    """At zero weights a bias that wraps is one value; with weights anything may come out."""
    b = ModelBuilder()
    x = b.input((1, 2, 2, 1), scale=1.0)
    weights = np.array([1, 0], np.int8).reshape(2, 1, 1, 1)
    bias = np.full(2, (1 << 31) - 1, np.int32)
    y = b.conv2d(x, weights, bias, w_scales=1e-9, scale=1.0)
    ranges = channel_ranges(lower(frontend.load(b.finish([y]))))[y.name]
    assert ranges.constant.tolist() == [False, True]


# ------------------------------------------------------------------------------ random networks


def sparse_network(rng: Rng) -> tuple[bytes, list[Int8]]:
    """Make a small network with zero filters, unread channels and readers of all kinds."""
    b = ModelBuilder()
    shape = (1, int(rng.integers(3, 8)), int(rng.integers(3, 8)), int(rng.integers(1, 4)))
    zero_point = int(rng.choice([-128, 0, 11]))
    first = b.input(shape, scale=0.05, zero_point=zero_point)
    tensors = [first]
    for _ in range(int(rng.integers(5, 10))):
        back = -1 if rng.random() < 0.8 else int(rng.integers(len(tensors)))
        x = tensors[back]
        tensors.append(_layer(rng, b, x, tensors))
    used = tensors[-1]
    outputs = [used] if rng.random() < 0.7 else [used, tensors[len(tensors) // 2]]
    if outputs[-1] is first:
        outputs.pop()
    if used.shape[1:3] != (1, 1) and rng.random() < 0.5:
        flat = b.reshape(used, (1, -1))
        weights = _sparse(rng, rng.integers(-127, 128, (3, flat.shape[1]), dtype=np.int8), 0)
        y = b.fully_connected(flat, weights, w_scales=0.01, scale=1.0)
        outputs[0] = b.softmax(y)
    inputs = [rng.integers(-128, 128, shape, dtype=np.int8)]
    return b.finish(list(dict.fromkeys(outputs))), inputs


def _sparse(rng: Rng, weights: Int8, axis: int) -> Int8:
    """Set more than half of the slices along an axis to zero."""
    which = rng.random(weights.shape[axis]) < 0.6
    np.moveaxis(weights, axis, 0)[which] = 0
    return weights


def _layer(rng: Rng, b: ModelBuilder, x: TensorHandle, tensors: list[TensorHandle]) -> TensorHandle:
    scale = float(rng.uniform(0.03, 0.2))
    quantisation: dict[str, Any] = {"scale": scale, "zero_point": int(rng.choice([-128, 0, -9]))}
    window: dict[str, Any] = {"padding": str(rng.choice(["SAME", "VALID"]))}
    kernel = tuple(min(n, int(rng.integers(1, 4))) for n in x.shape[1:3])
    if min(x.shape[1:3]) > 2:
        window["strides"] = tuple(int(s) for s in rng.integers(1, 3, 2))
    partners = [t for t in tensors if t.shape == x.shape]
    kind = rng.choice(["conv", "conv", "conv", "depthwise", "pool", "unary", "add", "add"])
    if kind == "conv":
        cout = int(rng.integers(1, 11))
        weights = _sparse(rng, random_int8(rng, cout, *kernel, x.shape[3]), 0)
        if rng.random() < 0.4:
            weights = _sparse(rng, weights, 3)
    if kind == "depthwise":
        cout = x.shape[3]
        weights = random_int8(rng, 1, *kernel, cout)
        if rng.random() < 0.5:
            weights = _sparse(rng, weights, 3)
    if kind in ("conv", "depthwise"):
        bias = rng.integers(-3000, 3000, cout).astype(np.int32)
        bias[rng.random(cout) < 0.4] = 0
        bias[rng.random(cout) < 0.05] = (1 << 31) - 1
        options: dict[str, Any] = {
            **{"w_scales": rng.uniform(0.002, 0.02, cout), "bias": bias},
            **{"activation": str(rng.choice(["NONE", "RELU", "RELU6"]))},
        }
        make = b.conv2d if kind == "conv" else b.depthwise_conv2d
        return make(x, weights, **options, **quantisation, **window)
    if kind == "pool":
        make_pool = b.average_pool2d if rng.random() < 0.5 else b.max_pool2d
        return make_pool(x, size=(kernel[0], kernel[1]), **window)
    if kind == "unary":
        return b.relu(x, **quantisation) if rng.random() < 0.5 else b.logistic(x)
    other = partners[int(rng.integers(len(partners)))]
    if other is x:  # rather two different operands
        weights = _sparse(rng, random_int8(rng, x.shape[3], 1, 1, x.shape[3]), 0)
        other = b.conv2d(x, weights, w_scales=0.01, **quantisation)
    return (
        b.add(x, other, **quantisation) if rng.random() < 0.7 else b.sub(x, other, **quantisation)
    )


def test_random_sparse_networks_are_exact() -> None:
    narrowed = removed = 0
    configs = (SMALL, preset("tiny"), preset("large"))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        model, inputs = sparse_network(rng)
        program = assert_exact(model, inputs, configs[seed % 3], seed)
        narrowed += any(info.kept_channels is not None for info in program.intermediates)
        removed += program.folded_macs > 0
        # What is left cannot be folded further.
        graph = folded(model)
        assert fold_channels(graph) is graph, f"seed {seed}"
    # The seeds are worth something only if most of them fold.
    assert min(narrowed, removed) >= 30, (narrowed, removed)


# ------------------------------------------------------------------------------ programs and tools


def test_kept_channels_survive_the_program_file() -> None:
    b = ModelBuilder()
    y = stem(b, [None, 7, None])
    program = compile_model(b.finish([dense_conv(b, y)]), SMALL, keep_tensors=True, fold=True)
    again = Program.from_bytes(program.to_bytes())
    assert again == program
    assert again.intermediates[0].kept_channels == (0, 2)
    assert again.folded_macs == program.folded_macs == 36 * (3 + 4)


def test_a_list_of_channels_has_to_fit_the_shape() -> None:
    for channels in ((0,), (0, 2, 1), (0, 0, 1), (-1, 0, 1)):
        with pytest.raises(ProgramError, match="kept"):
            TensorInfo(name="t", shape=(1, 1, 3), kept_channels=channels)


def test_a_check_compares_the_channels_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = ModelBuilder()
    y = stem(b, [3, None, 7, None])
    path = tmp_path / "m.tflite"
    path.write_bytes(b.finish([dense_conv(b, y)]))
    with open_device("emu", SMALL) as device:
        program = compile_model(path, SMALL, fold=True)
        inputs = random_samples(program, 1, 0)
        report = check_model(path, SMALL, device, inputs, fold=True, interpreter=False)
        assert report.equal
        assert report.narrowed == {y.name: (1, 3)}
        assert report.program.folded_macs == program.folded_macs > 0

        run = device.run_segment

        def wrong(segment: NpuSegment, taken: Any, **options: Any) -> SegmentResult:
            result = run(segment, taken, **options)
            if y.name in result.tensors:
                result.tensors[y.name][0, 2, 3, 1] ^= 1
            return result

        monkeypatch.setattr(device, "run_segment", wrong)
        difference = check_model(
            path, SMALL, device, inputs, program=program, interpreter=False
        ).difference
    assert difference is not None
    # The second channel that is left is the model's channel 3.
    assert (difference.tensor, difference.index) == (y.name, (0, 2, 3, 3))
    assert difference.origin.command is not None


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    b = ModelBuilder()
    Path("m.tflite").write_bytes(b.finish([dense_conv(b, stem(b, [None, 7, 0]))]))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    assert "folded MACs" in run("compile", "m.tflite", "-o", "m.celosia", "--fold")
    assert "folded MACs" not in run("compile", "m.tflite", "-o", "plain.celosia")
    arguments = ("--check", "--device", "emu")
    for text in (
        run("run", "m.tflite", "--fold", *arguments),
        run("run", "m.celosia", "--against", "m.tflite", *arguments),
    ):
        assert "all 2 tensors equal" in text
        assert "of 1 the channels that are left" in text
        assert f"{36 * 2 * (3 + 4):,} more MACs of the model folded away" in text
    assert "folded" not in run("run", "m.tflite", *arguments)
    refused = CliRunner().invoke(app, ["run", "m.celosia", "--fold"])
    assert refused.exit_code != 0


# ------------------------------------------------------------------------------ benchmarks


def test_vww_is_exact_and_fast() -> None:
    path = benchmark_model("vww_96")
    config = preset("base")
    program = compile_model(path, config, fold=True)
    assert sum(layer.predicted_cycles for layer in program.layers) <= VWW_CYCLES
    assert 2 * program.folded_macs > sum(layer.macs for layer in program.layers)
    with open_device("emu", config) as device:
        inputs = random_samples(program, 2, 4)
        report = check_model(path, config, device, inputs, program=program, interpreter=False)
    assert report.difference is None
    assert len(report.narrowed) >= 15


@pytest.mark.parametrize("name", ["kws", "sww", "ad01", "resnet8"])
def test_networks_that_are_not_pruned_stay_as_they_are(name: str) -> None:
    path = benchmark_model(name)
    config = preset("base")
    assert compile_model(path, config, fold=True) == compile_model(path, config)
