"""Operators that become several commands: golden against the reference, programs against golden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from celosia.errors import CompileError, ModelError, UnsupportedError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import ConvOp, Graph, MoveOp, NpuOp, ReshapeOp
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.ops.npu.phases import PhasesOp
from celosia.sw.compiler.passes.fold_channels import fold_channels
from celosia.sw.driver.opening import open_device
from celosia.sw.reference.golden import GoldenModel

from tests.kit.random_dilation import random_dilation
from tests.kit.random_models import RandomModel
from tests.kit.random_phases import GROWING, random_growing
from tests.kit.random_reductions import REDUCTIONS, random_reduction

SEEDS = range(10)
SMALL = NpuConfig(
    name="small", rows=8, cols=8, act_bytes=1024, wgt_bytes=256, param_bytes=512, acc_depth=32
)
CONFIGS = [*map(preset, ("nano", "tiny", "base", "large")), SMALL]

Maker = Callable[[np.random.Generator], RandomModel]


def growing(code: str) -> Maker:
    return lambda rng: random_growing(code, rng)


def reduction(code: str) -> Maker:
    return lambda rng: random_reduction(code, rng)


KINDS: dict[str, Maker] = {
    **{code: growing(code) for code in GROWING},
    **{code: reduction(code) for code in REDUCTIONS},
    "dilation": random_dilation,
}


def drawn(kind: str, seed: int) -> RandomModel:
    return KINDS[kind](np.random.default_rng([seed, 99]))


@pytest.mark.parametrize("kind", KINDS)
def test_golden_is_the_reference(kind: str) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    resolvers = litert.OpResolverType
    # The reference kernels scale a SUM by what nobody has set.
    default = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    resolver = default if kind == "SUM" else resolvers.BUILTIN_REF
    for seed in range(40):
        case = drawn(kind, seed)
        interpreter = litert.Interpreter(
            model_content=case.model, experimental_op_resolver_type=resolver
        )
        interpreter.allocate_tensors()
        for details, values in zip(interpreter.get_input_details(), case.inputs, strict=True):
            interpreter.set_tensor(details["index"], values)
        interpreter.invoke()
        got = GoldenModel(case.model).run_by_index(case.inputs)
        for details in interpreter.get_output_details():
            index = details["index"]
            assert np.array_equal(got[index], interpreter.get_tensor(index)), (seed, index)


@pytest.mark.parametrize("kind", KINDS)
def test_programs_equal_golden_on_every_machine(kind: str) -> None:
    compared = 0
    for seed in SEEDS:
        case = drawn(kind, seed)
        want = GoldenModel(case.model).run(case.inputs)
        config = CONFIGS[seed % len(CONFIGS)]
        try:
            program = compile_model(case.model, config, keep_tensors=bool(seed & 1))
        except CompileError:
            if config is not SMALL:
                raise
            continue
        except UnsupportedError:
            continue
        with open_device("emu", config, memory_bytes=1 << 22) as device:
            result = device.run(program, case.inputs)
        for name, values in {**result.tensors, **result.outputs}.items():
            if name in want:
                assert np.array_equal(values, want[name]), (seed, config.name, name)
                compared += 1
    assert compared >= len(SEEDS) * 2 // 3


# Phases -----------------------------------------------------------------------------------------


def transposed(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    *,
    result: tuple[int, int],
    padding: int = 0,
    channels: tuple[int, int] = (8, 8),
) -> bytes:
    b = ModelBuilder()
    x = b.input((1, *size, channels[0]), scale=0.1, zero_point=-5)
    weights = np.ones((channels[1], *kernel, channels[0]), np.int8)
    w = b.constant(weights, scales=np.full(channels[1], 0.01, np.float32))
    shape = b.constant(np.array([1, *result, channels[1]], np.int32))
    bias = b.constant(np.full(channels[1], 1000, np.int32), scales=0.001)
    options = {"StrideH": stride, "StrideW": stride, "Padding": padding}
    b.operator(
        "TRANSPOSE_CONV",
        [shape, w, x, bias],
        (1, *result, channels[1]),
        scale=0.1,
        zero_point=3,
        options=("TransposeConvOptions", options),
    )
    return b.finish()


def phases_of(model: bytes) -> PhasesOp:
    (op,) = lower(load(model)).ops
    assert isinstance(op, PhasesOp)
    return op


def test_no_tap_is_computed_twice_and_no_zero_at_all() -> None:
    op = phases_of(transposed((5, 6), (3, 3), 2, result=(10, 12)))
    kernels = sorted(phase.conv.weights.shape[:2] for phase in op.phases)
    assert kernels == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all((phase.step_y, phase.step_x) == (2, 2) for phase in op.phases)
    assert op.macs == 5 * 6 * 9 * 8 * 8


def test_stride_one_is_one_convolution() -> None:
    (phase,) = phases_of(transposed((5, 6), (3, 3), 1, result=(5, 6))).phases
    assert phase.conv.weights.shape == (3, 3, 8, 8)


def test_outputs_that_no_tap_reaches_are_the_bias() -> None:
    model = transposed((3, 3), (1, 1), 3, result=(9, 9))
    with open_device("emu", preset("base")) as device:
        program = compile_model(model, preset("base"))
        (y,) = device.run(program, [np.full((1, 3, 3, 8), 40, np.int8)]).outputs.values()
    assert np.all(y[:, 1::3] == 3 + 10)  # 1000 * 0.001 / 0.1
    assert not np.any(y[:, ::3, ::3] == 3 + 10)


@pytest.mark.parametrize("config", ["tiny", "base"])
def test_phases_are_cut_into_stripes_and_groups(config: str) -> None:
    rng = np.random.default_rng(7)
    machine = preset(config)
    side = 40
    model = transposed(
        (side, side), (3, 4), 2, result=(2 * side + 1, 2 * side + 2), padding=1, channels=(16, 40)
    )
    program = compile_model(model, machine)
    assert "stripes" in program.layers[0].reason
    x = rng.integers(-128, 128, (1, side, side, 16)).astype(np.int8)
    with open_device("emu", machine, memory_bytes=1 << 23) as device:
        (y,) = device.run(program, [x]).outputs.values()
    (want,) = list(GoldenModel(model).run([x]).values())[-1:]
    assert np.array_equal(y, want)


def resized(
    size: tuple[int, int], result: tuple[int, int], channels: int = 4, **mode: bool
) -> bytes:
    b = ModelBuilder()
    x = b.input((1, *size, channels), scale=0.1, zero_point=7)
    b.operator(
        "RESIZE_BILINEAR",
        [x, b.constant(np.array(result, np.int32))],
        (1, *result, channels),
        scale=0.1,
        zero_point=7,
        options=("ResizeBilinearOptions", mode),
    )
    return b.finish()


def lowered(model: bytes) -> NpuOp:
    (op,) = lower(load(model)).npu_ops
    return op


def test_eight_times_takes_two_convolutions_a_phase_where_weights_leave_int8() -> None:
    model = resized((2, 3), (16, 24), HalfPixelCenters=True)
    op = phases_of(model)
    assert max(int(phase.weights.max()) for phase in op.phases) == 225
    x = np.random.default_rng(3).integers(-128, 128, (1, 2, 3, 4)).astype(np.int8)
    with open_device("emu", preset("base")) as device:
        (y,) = device.run(compile_model(model, preset("base")), [x]).outputs.values()
    assert np.array_equal(y, GoldenModel(model).run([x])[load(model).outputs[0]])


def test_one_pixel_is_copied_and_an_equal_size_moves_nothing() -> None:
    assert isinstance(lowered(resized((1, 1), (32, 48))), MoveOp)
    assert isinstance(lowered(resized((6, 5), (6, 5))), ReshapeOp)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (resized((5, 5), (15, 15), HalfPixelCenters=True), "weights them with"),
        (resized((2, 2), (90, 90)), "lead out of the image|weights them with|parts that are"),
        (transposed((3, 3), (3, 3), 40, result=(120, 120)), r"40 x 40 parts .* more than 1024"),
    ],
)
def test_what_no_convolution_computes_is_refused_in_words(model: bytes, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        lower(load(model))


def test_contradictions_are_told() -> None:
    both = resized((4, 4), (8, 8), AlignCorners=True, HalfPixelCenters=True)
    with pytest.raises(ModelError, match="RESIZE_BILINEAR #0 .*: it has both"):
        lower(load(both))


@pytest.mark.parametrize("told", [[1, 8, 8, 9], [1, 8, 6, 5], [8, 8]])
def test_a_shape_that_is_not_the_outputs_is_a_contradiction(told: list[int]) -> None:
    b = ModelBuilder()
    x = b.input((1, 4, 4, 8), scale=0.1)
    w = b.constant(np.ones((5, 3, 3, 8), np.int8), scales=0.01)
    shape = b.constant(np.array(told, np.int32))
    options = ("TransposeConvOptions", {"StrideH": 2, "StrideW": 2, "Padding": 0})
    b.operator("TRANSPOSE_CONV", [shape, w, x], (1, 8, 8, 5), scale=0.1, options=options)
    with pytest.raises(ModelError, match="TRANSPOSE_CONV #0 .*: its size is"):
        lower(load(b.finish()))


def test_a_shape_that_the_model_computes_is_known() -> None:
    """Keras writes the batch of a transposed convolution's output as SHAPE and STRIDED_SLICE."""
    b = ModelBuilder()

    def whole(value: Any) -> Any:
        return b.constant(np.array(value, np.int32))

    x = b.input((1, 4, 4, 8), scale=0.1)
    shape = b.operator("SHAPE", [x], (4,), dtype=np.int32)
    batch = b.operator(
        "STRIDED_SLICE",
        [shape, whole([0]), whole([1]), whole([1])],
        (),
        dtype=np.int32,
        options=("StridedSliceOptions", {"ShrinkAxisMask": 1}),
    )
    packed = b.operator(
        "PACK",
        [batch, whole(8), whole(8), whole(5)],
        (4,),
        dtype=np.int32,
        options=("PackOptions", {"ValuesCount": 4, "Axis": 0}),
    )
    w = b.constant(np.ones((5, 3, 3, 8), np.int8), scales=0.01)
    options = ("TransposeConvOptions", {"StrideH": 2, "StrideW": 2, "Padding": 0})
    b.operator("TRANSPOSE_CONV", [packed, w, x], (1, 8, 8, 5), scale=0.1, options=options)
    model = b.finish()
    assert len(phases_of(model).phases) == 4
    assert [op.name for op in GoldenModel(model).operators] == ["TRANSPOSE_CONV"]


def test_channels_that_nobody_reads_are_left_out_of_phases() -> None:
    """A slice of the channels behind a depthwise one: `--fold` narrows weights and their rests."""
    b = ModelBuilder()
    x = b.input((1, 4, 4, 6), scale=0.1, zero_point=7)
    x = b.conv2d(x, np.ones((6, 1, 1, 6), np.int8), w_scales=0.01, scale=0.1, zero_point=7)
    size = b.constant(np.array([32, 32], np.int32))
    options = ("ResizeBilinearOptions", {"HalfPixelCenters": True})
    y = b.operator(
        "RESIZE_BILINEAR", [x, size], (1, 32, 32, 6), scale=0.1, zero_point=7, options=options
    )
    weights = np.ones((3, 1, 1, 6), np.int8)
    weights[..., ::2] = 0
    b.conv2d(y, weights, w_scales=0.01, scale=0.1)
    graph: Graph = fold_channels(lower(load(b.finish())))
    op = next(op for op in graph.ops if isinstance(op, PhasesOp))
    assert {phase.conv.cout for phase in op.phases} == {3}
    assert {p.rest.shape[-1] for p in op.phases if p.rest is not None} == {3}


# Dilation ---------------------------------------------------------------------------------------


def batched(crop: int) -> bytes:
    """A 3x3 convolution with dilation 2 and SAME padding, as TensorFlow 1 wrote it."""
    b = ModelBuilder()
    numbers: Any = {
        name: b.constant(np.array(values, np.int32))
        for name, values in (
            ("block", [2, 2]),
            ("pads", [[2, 2], [2, 3]]),
            ("crops", [[0, 0], [0, crop]]),
        )
    }
    x = b.input((1, 8, 7, 4), scale=0.1, zero_point=7)
    operands = [x, numbers["block"], numbers["pads"]]
    y = b.operator("SPACE_TO_BATCH_ND", operands, (4, 6, 6, 4), scale=0.1, zero_point=7)
    weights = np.ones((5, 3, 3, 4), np.int8)
    y = b.conv2d(y, weights, w_scales=0.01, scale=0.1, padding="VALID")
    operands = [y, numbers["block"], numbers["crops"]]
    b.operator("BATCH_TO_SPACE_ND", operands, (1, 8, 8 - crop, 5), scale=0.1)
    return b.finish()


def test_a_convolution_between_batches_is_dilated() -> None:
    op = lowered(batched(1))
    assert isinstance(op, ConvOp)
    assert (op.dilation_h, op.dilation_w) == (2, 2)
    assert (op.pad_top, op.pad_bottom, op.pad_left, op.pad_right) == (2, 2, 2, 2)
    assert op.fused == (0, 2)


def test_a_batch_inside_is_moved_where_it_stays() -> None:
    b = ModelBuilder()
    x = b.input((1, 4, 4, 3), scale=0.1)
    block, pads = b.constant(np.array([2, 2], np.int32)), b.constant(np.zeros((2, 2), np.int32))
    y = b.operator("SPACE_TO_BATCH_ND", [x, block, pads], (4, 2, 2, 3), scale=0.1)
    b.relu(y, scale=0.1)
    values = np.arange(-24, 24, dtype=np.int8).reshape(1, 4, 4, 3)
    (want,) = list(GoldenModel(b.finish()).run([values]).values())[-1:]
    with open_device("emu", preset("tiny"), memory_bytes=1 << 20) as device:
        result = device.run(compile_model(b.finish(), preset("tiny")), [values])
    (got,) = result.outputs.values()
    np.testing.assert_array_equal(got, want)


# Reductions -------------------------------------------------------------------------------------


def test_a_sum_that_no_multiplier_rounds_is_refused() -> None:
    b = ModelBuilder()
    x = b.input((1, 250, 250, 1), scale=3e-5, zero_point=127)
    axes = b.constant(np.array([1, 2], np.int32))
    b.operator("SUM", [x, axes], (1, 1), scale=1.0, zero_point=0)
    with pytest.raises(UnsupportedError, match="SUM #0 .*: sums of 62500 .* single precision"):
        lower(load(b.finish()))
