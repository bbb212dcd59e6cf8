"""Lowered graphs compute what the reference interpreter computes, bit for bit.

`evaluate` below runs a lowered graph by the formulas in the docstrings of `ir`, in numpy; the
expected values come from the TFLite reference kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from celosia.errors import CompileError, UnsupportedError
from celosia.hw.contract.isa import Rounding
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.arithmetic.exact import exact_multiplier, scale_in_double
from celosia.sw.compiler.arithmetic.fixed import (
    QuantizationError,
    activation_range,
    add_parameters,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import (
    AddOp,
    ConvOp,
    Graph,
    MaximumOp,
    MoveOp,
    MulOp,
    PoolOp,
    ReshapeOp,
    Scaling,
    SoftmaxOp,
    SourceOp,
    SquaredDifferenceOp,
    TableOp,
    hwc,
)
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.verify import verify
from celosia.sw.reference.golden import GoldenModel

from tests.kit.places import benchmark_model

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the reference interpreter")

MACS = {"ad01": 264192, "kws": 2656768, "resnet8": 12501632, "vww_96": 7489664, "sww": 826368}


# ---------------------------------------------------------------------- the lowered IR in numpy


def srdhm(a: Any, b: Any) -> Any:
    """Saturating rounding doubling high multiply, int64 arrays of int32 values."""
    a, b = np.broadcast_arrays(np.asarray(a, np.int64), np.asarray(b, np.int64))
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    result = np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31))
    return np.where((a == -(1 << 31)) & (b == -(1 << 31)), (1 << 31) - 1, result)


def rdp(x: Any, exponent: Any) -> Any:
    """Rounding division by a power of two, halves away from zero."""
    mask = (np.int64(1) << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def wrap(x: Any) -> Any:
    return np.asarray(x, np.int64).astype(np.int32).astype(np.int64)


def requantise(acc: Any, op: ConvOp) -> Any:
    multiplier, shift = op.multiplier.astype(np.int64), op.shift.astype(np.int64)
    if op.rounding is Rounding.DOUBLE:
        shifted = wrap(acc << np.maximum(shift, 0))
        return rdp(srdhm(shifted, multiplier), np.maximum(-shift, 0))
    total = 31 - shift
    return (acc * multiplier + (np.int64(1) << (total - 1))) >> total


def padded(image: Any, op: ConvOp | PoolOp, value: int) -> Any:
    pads = ((op.pad_top, op.pad_bottom), (op.pad_left, op.pad_right), (0, 0))
    return np.pad(image, pads, constant_values=value)


def windows(image: Any, op: ConvOp | PoolOp) -> Any:
    """[out_h, out_w, C, kh, kw]."""
    reach_w = op.reach_w if isinstance(op, ConvOp) else op.kernel_w
    view = np.lib.stride_tricks.sliding_window_view(image, (op.reach_h, reach_w), axis=(0, 1))
    view = view[:: op.stride_h, :: op.stride_w]
    return view[..., :: op.dilation_h, :: op.dilation_w] if isinstance(op, ConvOp) else view


def run_conv(op: ConvOp, x: Any) -> Any:
    taps = windows(padded(x.astype(np.int64), op, op.input_zero_point), op)
    weights = op.weights.astype(np.int64)
    spec = "yxcij,ijc->yxc" if op.depthwise else "yxcij,ijcn->yxn"
    acc = wrap(np.einsum(spec, taps, weights, optimize=True) + op.bias)
    return np.clip(requantise(acc, op) + op.output_zero_point, op.act_min, op.act_max)


def run_add(op: AddOp, a: Any, b: Any) -> Any:
    a = (a.astype(np.int64) - op.zero_point_a) << op.left_shift
    b = (b.astype(np.int64) - op.zero_point_b) << op.left_shift
    total = rdp(srdhm(a, op.multiplier_a), -op.shift_a) + rdp(
        srdhm(b, op.multiplier_b), -op.shift_b
    )
    out = rdp(srdhm(total, op.multiplier_out), -op.shift_out) + op.zero_point_out
    return np.clip(out, op.act_min, op.act_max)


def rescaled(x: Any, multiplier: int, shift: int) -> Any:
    return rdp(srdhm(wrap(x << max(shift, 0)), multiplier), max(-shift, 0))


def run_mul(op: MulOp, a: Any, b: Any) -> Any:
    product = (a.astype(np.int64) - op.zero_point_a) * (b.astype(np.int64) - op.zero_point_b)
    out = rescaled(product, op.multiplier, op.shift) + op.zero_point_out
    return np.clip(out, op.act_min, op.act_max)


def run_squared_difference(op: SquaredDifferenceOp, a: Any, b: Any) -> Any:
    a = (a.astype(np.int64) - op.zero_point_a) << 7
    b = (b.astype(np.int64) - op.zero_point_b) << 7
    difference = rescaled(a, op.multiplier_a, op.shift_a) - rescaled(b, op.multiplier_b, op.shift_b)
    out = rescaled(difference**2, op.multiplier_out, op.shift_out) + op.zero_point_out
    return np.clip(out, -128, 127)


def run_pool(op: PoolOp, x: Any) -> Any:
    x = x.astype(np.int64)
    if op.kind == "max":
        out = windows(padded(x, op, -128), op).max(axis=(3, 4))
    else:
        total = windows(padded(x, op, 0), op).sum(axis=(3, 4))
        count = windows(padded(np.ones_like(x), op, 0), op).sum(axis=(3, 4))
        out = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return np.clip(out, op.act_min, op.act_max)


def run_softmax(op: SoftmaxOp, x: Any) -> Any:
    rows = x.reshape(op.rows, op.channels).astype(np.int64)
    difference = rows.max(axis=1, keepdims=True) - rows
    exps = op.exp_table[difference].astype(np.int64)
    out = np.full(rows.shape, -128, np.int64)
    for row in range(op.rows):
        total = int(np.sum(rdp(exps[row], 12)))
        headroom = 32 - total.bit_length()
        scale = _one_over_one_plus_x((total << headroom) - (1 << 31))
        exponent = 12 - headroom + 31 - 8
        value = rdp(srdhm(exps[row], scale), exponent) - 128
        out[row] = np.where(difference[row] < op.cutoff, np.clip(value, -128, 127), -128)
    return out.reshape(x.shape)


def _one_over_one_plus_x(a: int) -> int:
    """gemmlowp `one_over_one_plus_x_for_x_in_0_1` on a Q0.31 raw value (Newton-Raphson)."""
    total = a + (1 << 31) - 1
    half = (total + 1) // 2  # RoundingHalfSum of a and one, both >= 0
    x = (1515870810) + int(srdhm(half, -1010580540))  # 48/17 and -32/17 in Q2.29
    for _ in range(3):
        product = int(srdhm(half, x))
        one_minus = (1 << 29) - product
        step = int(srdhm(x, one_minus))
        x = x + min(max(step << 2, -(1 << 31)), (1 << 31) - 1)
    return min(max(x << 1, -(1 << 31)), (1 << 31) - 1)


def evaluate(graph: Graph, *inputs: Any) -> dict[str, Any]:
    """Run a lowered graph; every tensor by name."""
    values = dict(zip(graph.inputs, inputs, strict=True))
    for op in graph.npu_ops:
        args = [values[name] for name in op.inputs]
        shape = graph.tensors[op.output].shape
        if isinstance(op, MoveOp):
            assert not op.sources
            values[op.output] = np.frombuffer(op.constants, np.int8).reshape(shape)
            continue
        image = args[0].reshape(hwc(args[0].shape))
        if isinstance(op, ConvOp):
            out = run_conv(op, image)
        elif isinstance(op, AddOp):
            out = run_add(op, args[0], args[1])
        elif isinstance(op, MulOp):
            out = run_mul(op, args[0], args[1])
        elif isinstance(op, SquaredDifferenceOp):
            out = run_squared_difference(op, args[0], args[1])
        elif isinstance(op, MaximumOp):
            out = (np.minimum if op.least else np.maximum)(args[0], args[1])
        elif isinstance(op, PoolOp):
            out = run_pool(op, image)
        elif isinstance(op, TableOp) and op.per_channel:
            channels = args[0].shape[-1]
            out = op.table[np.arange(channels), args[0].view(np.uint8)]
        elif isinstance(op, TableOp):
            out = op.table[args[0].view(np.uint8)]
        elif isinstance(op, SoftmaxOp):
            out = run_softmax(op, args[0])
        else:
            assert isinstance(op, ReshapeOp)
            out = args[0]
        values[op.output] = out.astype(np.int8).reshape(shape)
    return values


def reference(model: bytes, *inputs: Any) -> tuple[dict[int, Any], list[int]]:
    """Every tensor of the reference interpreter by index, and the outputs' indices."""
    interpreter = litert.Interpreter(
        model_content=model,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    tensors = {}
    for detail in interpreter.get_tensor_details():
        try:
            tensors[detail["index"]] = interpreter.get_tensor(detail["index"])
        except ValueError:  # scratch tensors have no data
            continue
    return tensors, [d["index"] for d in interpreter.get_output_details()]


def check(model: bytes, *inputs: Any) -> Graph:
    """Compare every tensor the lowered graph keeps with the reference; return the graph."""
    graph = lower(load(model))
    expected, outputs = reference(model, *inputs)
    values = evaluate(graph, *inputs)
    assert [graph.tensors[name].index for name in graph.outputs] == outputs
    for name, value in values.items():
        index = graph.tensors[name].index
        if index >= 0:
            np.testing.assert_array_equal(value, expected[index], err_msg=name)
    return graph


@pytest.fixture(params=range(3))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def int8(rng: np.random.Generator, *shape: int) -> Any:
    return rng.integers(-128, 128, shape).astype(np.int8)


def bias(rng: np.random.Generator, count: int) -> Any:
    return rng.integers(-20000, 20000, count).astype(np.int32)


# ---------------------------------------------------------------------- the given models


@pytest.mark.parametrize("name", MACS)
def test_lowered_benchmark_equals_the_reference_on_every_tensor(name: str) -> None:
    model = benchmark_model(name).read_bytes()
    source = load(model)
    shape = source.tensors[source.inputs[0]].shape
    graph = check(model, int8(np.random.default_rng(7), *shape))
    assert graph.macs == MACS[name]
    assert not any(tensor.is_constant for tensor in graph.tensors.values())


# ---------------------------------------------------------------------- convolutions


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("activation", ["NONE", "RELU6"])
def test_convolution(
    rng: np.random.Generator, padding: str, strides: tuple[int, int], activation: str
) -> None:
    b = ModelBuilder()
    x = b.input((1, 7, 9, 3), scale=0.05, zero_point=-3)
    y = b.conv2d(
        x, int8(rng, 5, 3, 4, 3), bias(rng, 5), w_scales=rng.uniform(1e-3, 2e-2, 5),
        scale=0.13, zero_point=11, strides=strides, padding=padding, activation=activation,
    )  # fmt: skip
    b.depthwise_conv2d(
        y, int8(rng, 1, 2, 3, 5), None, w_scales=rng.uniform(1e-3, 2e-2, 5), scale=0.09,
        zero_point=-128, strides=strides, padding="SAME",
    )  # fmt: skip
    graph = check(b.finish(), int8(rng, 1, 7, 9, 3))
    assert [type(op) for op in graph.ops] == [ConvOp, ConvOp]


@pytest.mark.parametrize(("cin", "multiplier"), [(1, 8), (3, 2)])
def test_depth_multiplier_becomes_a_dense_convolution(
    rng: np.random.Generator, cin: int, multiplier: int
) -> None:
    b = ModelBuilder()
    x = b.input((1, 6, 5, cin), scale=0.05, zero_point=7)
    cout = cin * multiplier
    b.depthwise_conv2d(
        x, int8(rng, 1, 3, 3, cout), bias(rng, cout), w_scales=rng.uniform(1e-3, 1e-2, cout),
        scale=0.04, zero_point=-5,
    )  # fmt: skip
    graph = check(b.finish(), int8(rng, 1, 6, 5, cin))
    op = graph.ops[0]
    assert isinstance(op, ConvOp)
    assert not op.depthwise
    assert op.macs == 6 * 5 * 9 * cout


def test_tiny_and_large_multipliers() -> None:
    """Channels whose multiplier vanishes, barely does not, and shifts left."""
    rng = np.random.default_rng(0)
    scales = np.array([1e-12, 2.2e-10, 2.4e-10, 4.7e-10, 1e-9, 1e-5, 0.9, 1.1, 40.0])
    b = ModelBuilder()
    x = b.input((1, 3, 3, 2), scale=1.0)
    huge = rng.integers(-(2**30), 2**30, 9).astype(np.int32)
    huge[5:] = rng.integers(-3, 4, 4)
    b.conv2d(x, int8(rng, 9, 1, 1, 2), huge, w_scales=scales, scale=1.0)
    graph = check(b.finish(), rng.integers(-2, 3, (1, 3, 3, 2)).astype(np.int8))
    op = graph.ops[0]
    assert isinstance(op, ConvOp)
    assert op.multiplier[0] == 0
    assert op.multiplier[4] != 0
    assert op.shift[-1] == 6


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16, 19])
def test_fully_connected_at_every_rounding_boundary(
    rng: np.random.Generator, per_channel: bool, bits: int
) -> None:
    """Biases put the accumulators next to rounding boundaries, where a wrong mode shows."""
    units = 2048
    in_scale = float(np.float32(rng.uniform(0.01, 0.1)))
    w_scales = rng.uniform(0.001, 0.002, units if per_channel else 1).astype(np.float32)
    out_scale = float(np.float32(in_scale * 0.0015 * 2.0 ** (bits - 7)))
    step = out_scale / (in_scale * np.broadcast_to(w_scales, units).astype(np.float64))
    near = np.round((rng.integers(-120, 120, units) + 0.5) * step).astype(np.int64)
    biases = (near + rng.integers(-1, 2, units)).astype(np.int32)
    b = ModelBuilder()
    x = b.input((2, 3), scale=in_scale, zero_point=4)
    weights = np.zeros((units, 3), np.int8)
    scales: Any = w_scales if per_channel else float(w_scales[0])
    b.fully_connected(x, weights, biases, w_scales=scales, scale=out_scale, zero_point=2)
    graph = check(b.finish(), int8(rng, 2, 3))
    op = graph.ops[0]
    assert isinstance(op, ConvOp)
    assert op.rounding is Rounding.SINGLE


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("exponent", [0, 1, 2, 5])
def test_fully_connected_ties_go_away_from_zero(per_channel: bool, exponent: int) -> None:
    rng = np.random.default_rng(1)
    biases = np.arange(-1000, 1000, dtype=np.int32)
    b = ModelBuilder()
    x = b.input((1, 1), scale=1.0)
    scales: Any = np.ones(2000, np.float32) if per_channel else 1.0
    b.fully_connected(x, np.zeros((2000, 1), np.int8), biases, w_scales=scales, scale=2.0**exponent)
    graph = check(b.finish(), int8(rng, 1, 1))
    op = graph.ops[0]
    assert isinstance(op, ConvOp)
    assert op.rounding is Rounding.SINGLE


def test_a_front_end_sets_rounding_and_scaling() -> None:
    """A convolution whose reference scales in double precision has a multiplier that equals it."""
    rng = np.random.default_rng(5)
    b = ModelBuilder()
    x = b.input((1, 4, 4, 3), scale=0.02, zero_point=-3)
    weights = int8(rng, 5, 2, 2, 3)
    y = b.conv2d(x, weights, w_scales=0.01, scale=0.03)
    graph = load(b.finish([y]))
    (source,) = graph.ops
    assert isinstance(source, SourceOp)
    nearest = lower(graph).ops[0]
    other = replace(source.arithmetic, rounding=Rounding.SINGLE, scaling=Scaling.FITTED)
    fitted = lower(replace(graph, ops=[replace(source, arithmetic=other)])).ops[0]
    assert isinstance(nearest, ConvOp)
    assert isinstance(fitted, ConvOp)
    assert (nearest.rounding, fitted.rounding) == (Rounding.DOUBLE, Rounding.SINGLE)
    scale = np.float32(0.02) * np.float64(np.float32(0.01)) / np.float64(np.float32(0.03))
    accumulators = np.arange(-20_000, 20_000)
    expected = np.clip(scale_in_double(accumulators, float(scale)), -128, 127)
    columns = np.repeat(accumulators[:, None], 5, axis=1)
    assert np.array_equal(np.clip(requantise(columns, fitted), -128, 127)[:, 0], expected)


def test_a_scale_too_fine_for_the_multiplier_is_reported() -> None:
    result = exact_multiplier(2.0**-22 * 1.1, -128, 127, -(1 << 31), (1 << 31) - 1)
    assert not result.exact
    assert (result.multiplier, result.shift) == quantize_multiplier(2.0**-22 * 1.1)
    # 5 * 0.7 is a tie in double precision, 45 * 0.7 falls short of one: no integer does both.
    assert not exact_multiplier(0.7, -128, 127, -200, 200).exact


@pytest.mark.parametrize("real", [0.003, 0.25, 0.5, 1.0, 0.71, 3.3, 1.0 / 3.0])
def test_exact_multiplier_on_every_accumulator(real: float) -> None:
    reach = int(140 / real) + 2
    found = exact_multiplier(real, -100, 127, -reach, reach)
    assert found.exact
    acc = np.arange(-reach, reach + 1, dtype=np.int64)
    single = (acc * found.multiplier + (1 << (30 - found.shift))) >> (31 - found.shift)
    wanted = scale_in_double(acc, real)
    np.testing.assert_array_equal(np.clip(single, -100, 127), np.clip(wanted, -100, 127))


def test_flatten_before_fully_connected_disappears(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x = b.input((1, 4, 3, 2), scale=0.1, zero_point=-7)
    y = b.max_pool2d(x, size=(1, 1))
    z = b.reshape(y, (1, 24))
    b.fully_connected(z, int8(rng, 5, 24), bias(rng, 5), w_scales=0.01, scale=0.3)
    graph = check(b.finish(), int8(rng, 1, 4, 3, 2))
    op = graph.ops[-1]
    assert isinstance(op, ConvOp)
    assert op.weights.shape == (4, 3, 2, 5)
    assert not any(isinstance(other, ReshapeOp) for other in graph.ops)


@pytest.mark.parametrize("shape", [(3, 6), (1, 2, 3, 6), (1, 3, 6), (1, 2, 2, 3), (2, 3)])
def test_fully_connected_on_other_shapes(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    b = ModelBuilder()
    x = b.input(shape, scale=0.1, zero_point=-7)
    b.fully_connected(x, int8(rng, 5, 6), bias(rng, 5), w_scales=0.01, scale=0.3)
    check(b.finish(), int8(rng, *shape))


# ---------------------------------------------------------------------- padding


@pytest.mark.parametrize("pads", [((1, 2), (0, 3)), ((4, 4), (4, 4)), ((0, 1), (0, 1))])
def test_pad_folds_into_convolutions(
    rng: np.random.Generator, pads: tuple[tuple[int, int], ...]
) -> None:
    b = ModelBuilder()
    x = b.input((1, 6, 5, 3), scale=0.05, zero_point=-9)
    p = b.pad(x, [(0, 0), *pads, (0, 0)])
    b.conv2d(
        p, int8(rng, 4, 3, 3, 3), bias(rng, 4), w_scales=0.01, scale=0.2, strides=(2, 2),
        padding="VALID",
    )  # fmt: skip
    b.depthwise_conv2d(p, int8(rng, 1, 2, 2, 3), w_scales=0.01, scale=0.2, padding="VALID")
    graph = check(b.finish(), int8(rng, 1, 6, 5, 3))
    assert [op.origin.name for op in graph.ops] == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    assert all(op.fused == (0,) for op in graph.ops)


def test_pad_before_a_pool_stays(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x = b.input((1, 6, 5, 3), scale=0.05, zero_point=-9)
    p = b.pad(x, [(0, 0), (1, 1), (2, 1), (0, 0)])
    b.average_pool2d(p, size=(3, 3), strides=(2, 2))
    graph = check(b.finish(), int8(rng, 1, 6, 5, 3))
    assert [op.origin.name for op in graph.ops] == ["PAD", "AVERAGE_POOL_2D"]


# ---------------------------------------------------------------------- element-wise


@pytest.mark.parametrize("operator", ["add", "sub"])
@pytest.mark.parametrize("activation", ["NONE", "RELU"])
def test_add_and_sub(rng: np.random.Generator, operator: str, activation: str) -> None:
    b = ModelBuilder()
    scales = np.exp(rng.uniform(np.log(0.005), np.log(0.5), 3))
    x = b.input((1, 16, 16, 16), scale=scales[0], zero_point=int(rng.integers(-128, 128)))
    y = b.input((1, 16, 16, 16), scale=scales[1], zero_point=int(rng.integers(-128, 128)))
    getattr(b, operator)(x, y, scale=scales[2], zero_point=5, activation=activation)
    graph = check(b.finish(), int8(rng, 1, 16, 16, 16), int8(rng, 1, 16, 16, 16))
    assert isinstance(graph.ops[0], AddOp)


@pytest.mark.parametrize("operator", ["add", "sub", "mul"])
@pytest.mark.parametrize("constant_first", [False, True])
def test_constant_of_one_value_becomes_a_table(
    rng: np.random.Generator, operator: str, constant_first: bool
) -> None:
    b = ModelBuilder()
    x = b.input((1, 256), scale=0.07, zero_point=int(rng.integers(-128, 128)))
    c = b.constant(int8(rng, 1), scales=0.03, zero_point=3)
    operands = (c, x) if constant_first else (x, c)
    getattr(b, operator)(*operands, scale=0.11, zero_point=-20)
    every = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)
    graph = check(b.finish(), every)
    assert isinstance(graph.ops[0], TableOp)


BROADCASTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 6, 5, 11), (1, 1, 1, 11)),
    ((1, 6, 5, 11), (1, 1, 5, 11)),
    ((1, 6, 5, 11), (1, 6, 1, 11)),
    ((1, 6, 1, 11), (1, 1, 5, 11)),
    ((1, 6, 5, 11), (11,)),
    ((9, 11), (1, 11)),
    ((1, 6, 5, 11), (1, 6, 5, 1)),
    ((1, 6, 5, 1), (1, 1, 1, 11)),
    ((1, 5, 5, 11), (5, 11)),
    ((1, 5, 5, 11), (5, 1)),
    ((1, 3, 5, 2, 4), (1, 1, 1, 2, 1)),
]


@pytest.mark.parametrize("operator", ["MAXIMUM", "MINIMUM"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("one", "other"), [((1, 6, 5, 11), (1, 6, 5, 11)), *BROADCASTS])
def test_extrema_of_two_tensors(
    rng: np.random.Generator,
    operator: str,
    swapped: bool,
    one: tuple[int, ...],
    other: tuple[int, ...],
) -> None:
    b = ModelBuilder()
    shapes = (other, one) if swapped else (one, other)
    operands = [b.input(shape, scale=0.05, zero_point=7) for shape in shapes]
    options = ("MaximumMinimumOptions", {})
    shape = np.broadcast_shapes(*shapes)
    b.operator(operator, operands, shape, scale=0.05, zero_point=7, options=options)
    graph = check(b.finish(), *(int8(rng, *shape) for shape in shapes))
    assert any(isinstance(op, MaximumOp) for op in graph.ops)


@pytest.mark.parametrize("operator", ["ADD", "SUB", "MUL", "SQUARED_DIFFERENCE"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("one", "other"), BROADCASTS)
def test_broadcast(
    rng: np.random.Generator,
    operator: str,
    swapped: bool,
    one: tuple[int, ...],
    other: tuple[int, ...],
) -> None:
    b = ModelBuilder()
    shapes = (other, one) if swapped else (one, other)
    operands = [
        b.input(shape, scale=scale, zero_point=int(rng.integers(-128, 128)))
        for shape, scale in zip(shapes, (0.05, 0.07), strict=True)
    ]
    shape = np.broadcast_shapes(*shapes)
    options = (dict(CONSTANTS)[operator], {})
    b.operator(operator, operands, shape, scale=0.1, zero_point=5, options=options)
    graph = check(b.finish(), *(int8(rng, *shape) for shape in shapes))
    kinds = (AddOp, MulOp, SquaredDifferenceOp)
    assert [isinstance(op, kinds) for op in graph.ops if not isinstance(op, ReshapeOp)] == [True]


@pytest.mark.parametrize("magnitude", [0.4, 1.0, 3.0, 100.0, 255.0, 400.0, 30000.0])
def test_a_product_that_is_scaled_up(rng: np.random.Generator, magnitude: float) -> None:
    every = np.arange(256, dtype=np.uint8).view(np.int8)
    b = ModelBuilder()
    x = b.input((1, 256, 1, 1), scale=1.0, zero_point=-3)
    y = b.input((1, 1, 256, 1), scale=magnitude, zero_point=5)
    b.mul(x, y, scale=1.0, zero_point=-7)
    graph = check(b.finish(), every.reshape(1, 256, 1, 1), every.reshape(1, 1, 256, 1))
    assert [type(op) for op in graph.ops] == [MulOp]


@pytest.mark.parametrize(
    ("operator", "scales", "words"),
    [
        ("MUL", (40.0, 1000.0, 1.0), "a product is rescaled by 40000"),
        ("SQUARED_DIFFERENCE", (1.0, 0.5, 2.0**-13), "a square is rescaled by 2, which is not"),
    ],
)
def test_what_the_reference_has_no_room_for_is_refused(
    operator: str, scales: tuple[float, float, float], words: str
) -> None:
    b = ModelBuilder()
    operands = [b.input((1, 4), scale=scale) for scale in scales[:2]]
    options = (dict(CONSTANTS)[operator], {})
    b.operator(operator, operands, (1, 4), scale=scales[2], options=options)
    with pytest.raises(UnsupportedError, match=f"{operator} #0 .*: {words}"):
        lower(load(b.finish()))


CONSTANTS: list[tuple[str, str]] = [
    ("ADD", "AddOptions"),
    ("SUB", "SubOptions"),
    ("MUL", "MulOptions"),
    ("MAXIMUM", "MaximumMinimumOptions"),
    ("MINIMUM", "MaximumMinimumOptions"),
    ("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"),
    ("PRELU", ""),
]


@pytest.mark.parametrize("shape", [(1,), (11,), (1, 1, 1, 11)])
@pytest.mark.parametrize("constant_first", [False, True])
@pytest.mark.parametrize(("operator", "options"), CONSTANTS)
def test_a_constant_for_each_channel(
    rng: np.random.Generator,
    operator: str,
    options: str,
    constant_first: bool,
    shape: tuple[int, ...],
) -> None:
    b = ModelBuilder()
    extremum = operator in ("MAXIMUM", "MINIMUM")
    if operator == "PRELU":
        shape = shape[-3:]
    quantisation = [(0.07, int(rng.integers(-128, 128))), (0.03, int(rng.integers(-128, 128)))]
    result = (0.07, quantisation[0][1]) if extremum else (0.11, -20)
    if extremum:
        quantisation[1] = quantisation[0]
    x = b.input((1, 16, 16, 11), scale=quantisation[0][0], zero_point=quantisation[0][1])
    values = int8(rng, *shape)
    c = b.constant(values, scales=quantisation[1][0], zero_point=quantisation[1][1])
    operands = (c, x) if constant_first and operator != "PRELU" else (x, c)
    table = (options, {}) if options else None
    b.operator(
        operator, operands, (1, 16, 16, 11), scale=result[0], zero_point=result[1], options=table
    )
    every = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 16, 16, 1)
    image = np.ascontiguousarray(np.broadcast_to(every, (1, 16, 16, 11)))
    model = b.finish()
    graph = check(model, image)
    assert len(graph.ops) == 1
    golden = GoldenModel(model)
    result_golden = golden.run([image])[golden.outputs[0].name]
    assert np.array_equal(evaluate(graph, image)[graph.outputs[0]], result_golden)


@pytest.mark.parametrize(
    "operator",
    [
        "ABS",
        "logistic",
        "tanh",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "leaky_relu",
        "hard_swish",
        "quantize",
    ],
)
def test_unary_operators_on_all_values(operator: str) -> None:
    rng = np.random.default_rng(11)
    every = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)
    for _ in range(25):
        scale_in, scale_out = np.exp(rng.uniform(np.log(1e-3), np.log(0.5), 2))
        quantisation: dict[str, Any] = {
            "scale": scale_out,
            "zero_point": int(rng.integers(-128, 128)),
        }
        b = ModelBuilder()
        x = b.input((1, 256), scale=scale_in, zero_point=int(rng.integers(-128, 128)))
        if operator in ("logistic", "tanh"):
            getattr(b, operator)(x)
        elif operator == "leaky_relu":
            b.leaky_relu(x, alpha=float(rng.uniform(-1.0, 1.5)), **quantisation)
        elif operator == "hard_swish":
            quantisation["scale"] = max(scale_out, scale_in / 100)
            b.hard_swish(x, **quantisation)
        elif operator == "quantize":
            b.quantize(x, **quantisation)
        elif operator == "ABS":
            if rng.random() < 0.3:
                quantisation["scale"] = scale_in
            b.operator("ABS", [x], (1, 256), **quantisation)
        else:
            b.relu(x, kind=operator, **quantisation)
        graph = check(b.finish(), every)
        assert len(graph.ops) == 1


FUNCTIONS: list[tuple[str, dict[str, Any], bool]] = [
    ("EXP", {}, True),
    ("GELU", {"Approximate": False}, True),
    ("GELU", {"Approximate": True}, True),
    ("LOG", {}, True),
    ("NEG", {}, True),
    ("RSQRT", {}, False),
    ("SQRT", {}, False),
]
"""Operators, their options, and whether the reference computes them for all inputs."""


@pytest.mark.parametrize(("operator", "options", "everywhere"), FUNCTIONS)
def test_functions_of_a_table_on_all_values(
    operator: str, options: dict[str, Any], everywhere: bool
) -> None:
    rng = np.random.default_rng(13)
    for _ in range(25):
        zero_point = int(rng.integers(-128, 128))
        scale_in, scale_out = np.exp(rng.uniform(np.log(1e-3), np.log(0.05), 2))
        every = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)
        if not everywhere:
            every = np.maximum(every, np.int8(zero_point))
        b = ModelBuilder()
        x = b.input((1, 256), scale=scale_in, zero_point=zero_point)
        table = (f"{operator.capitalize()}Options", options) if options else None
        quantisation: dict[str, Any] = {
            "scale": scale_out,
            "zero_point": int(rng.integers(-128, 128)),
        }
        b.operator(operator, [x], (1, 256), options=table, **quantisation)
        model = b.finish()
        graph = check(model, every)
        assert len(graph.ops) == 1
        golden = GoldenModel(model)
        result = golden.run([every])[golden.outputs[0].name]
        assert np.array_equal(evaluate(graph, every)[graph.outputs[0]], result)


def test_elu_equals_the_default_kernels() -> None:
    """The reference kernels have no ELU."""
    rng = np.random.default_rng(17)
    every = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)
    for _ in range(25):
        scale_in, scale_out = np.exp(rng.uniform(np.log(1e-3), np.log(0.2), 2))
        b = ModelBuilder()
        x = b.input((1, 256), scale=scale_in, zero_point=int(rng.integers(-128, 128)))
        b.operator("ELU", [x], (1, 256), scale=scale_out, zero_point=int(rng.integers(-128, 128)))
        model = b.finish()
        interpreter = litert.Interpreter(
            model_content=model,
            experimental_op_resolver_type=(litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES),
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], every)
        interpreter.invoke()
        expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        graph = lower(load(model))
        assert np.array_equal(evaluate(graph, every)[graph.outputs[0]], expected)
        golden = GoldenModel(model)
        assert np.array_equal(golden.run([every])[golden.outputs[0].name], expected)


@pytest.mark.parametrize("alpha", [-0.5, -1.0, -0.25, -3.0, -1e-6, 0.0, 1e-6, 3.0, 200.0])
@pytest.mark.parametrize("ratio", [1.0, 0.5, 3.0, 1 / 3, 2.0**-12])
def test_leaky_relu_with_any_slope(alpha: float, ratio: float) -> None:
    """Halves of a negative slope: the rounded product is negated, not the multiplier."""
    every = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)
    for zero_point in (-128, 0, 127):
        b = ModelBuilder()
        x = b.input((1, 256), scale=0.5, zero_point=zero_point)
        b.leaky_relu(x, alpha=alpha, scale=0.5 / ratio, zero_point=-zero_point - 1)
        check(b.finish(), every)


@pytest.mark.parametrize("out_over_in", [2.0**e for e in (-6, 0, 5, 8, 9, 10, 11, 14, 23)])
@pytest.mark.parametrize("scale_in", [1e-7, 1e-3, 0.0117, 0.5, 40.0])
def test_hard_swish_with_any_scales(out_over_in: float, scale_in: float) -> None:
    """From 1,024 times the input's scale on, the last shift exceeds the kernel's 16 bits."""
    every = np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256)
    for zero_point in (-128, -3, 127):
        b = ModelBuilder()
        x = b.input((1, 256), scale=scale_in, zero_point=zero_point)
        b.hard_swish(x, scale=scale_in * out_over_in, zero_point=5)
        check(b.finish(), every)


def _dense(bias: int, w_scale: float, out_scale: float, depth: int = 4) -> bytes:
    b = ModelBuilder()
    x = b.input((1, depth), scale=1.0)
    weights = np.array([[1, 2, -3, 4] + [0] * (depth - 4), [100] * depth], np.int8)
    b.fully_connected(x, weights, np.array([bias, 3], np.int32), w_scales=w_scale, scale=out_scale)
    return b.finish()


@pytest.mark.parametrize("real", [1.0, 1.5, 2.0, 7.3, 255.0])
def test_fully_connected_scales_of_one_and_more(rng: np.random.Generator, real: float) -> None:
    check(_dense(-200, real, 1.0), int8(rng, 1, 4))


def test_fully_connected_whose_shifted_accumulator_leaves_32_bits_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="FULLY_CONNECTED #0 .*: .*unit 0.*exceed 32 bits"):
        lower(load(_dense(1 << 30, 4.0, 1.0)))


def test_a_unit_gets_its_own_multiplier_where_one_for_all_is_not_exact() -> None:
    """5 * 0.7 is a tie in double precision, 45 * 0.7 falls short of one: two multipliers."""
    b = ModelBuilder()
    x = b.input((1, 1), scale=7.0)
    biases = np.array([5, 45], np.int32)
    b.fully_connected(x, np.zeros((2, 1), np.int8), biases, w_scales=1.0, scale=10.0)
    assert not exact_multiplier(0.7, -128, 127, 5, 45).exact
    op = check(b.finish(), np.zeros((1, 1), np.int8)).ops[0]
    assert isinstance(op, ConvOp)
    assert op.multiplier[0] != op.multiplier[1]


def test_a_unit_that_no_multiplier_suits_is_refused() -> None:
    b = ModelBuilder()
    x = b.input((1, 50), scale=7.0)
    b.fully_connected(x, np.full((1, 50), 1, np.int8), w_scales=1.0, scale=10.0)
    with pytest.raises(UnsupportedError, match="FULLY_CONNECTED #0.*unit 0.*round differently"):
        lower(load(b.finish()))


@pytest.mark.parametrize("kind", ["RELU", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize("producer", ["conv", "add", "pool"])
def test_relu_between_equal_scales_narrows_the_clamp(
    rng: np.random.Generator, kind: str, producer: str
) -> None:
    b = ModelBuilder()
    x = b.input((1, 5, 5, 4), scale=0.05, zero_point=-3)
    if producer == "conv":
        y = b.conv2d(x, int8(rng, 6, 3, 3, 4), w_scales=0.01, scale=0.1, zero_point=-20)
    elif producer == "add":
        y = b.add(x, x, scale=0.1, zero_point=-20)
    else:
        y = b.average_pool2d(x, size=(2, 2))
    b.relu(y, kind=kind)
    graph = check(b.finish(), int8(rng, 1, 5, 5, 4))
    assert len(graph.ops) == 1
    assert graph.ops[0].fused == (1,)


def test_a_relu_whose_input_is_needed_elsewhere_stays(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x = b.input((1, 5, 5, 4), scale=0.05, zero_point=-3)
    y = b.conv2d(x, int8(rng, 4, 1, 1, 4), w_scales=0.01, scale=0.1, zero_point=-20)
    z = b.relu(y)
    b.add(y, z, scale=0.2)
    graph = check(b.finish(), int8(rng, 1, 5, 5, 4))
    assert [type(op) for op in graph.ops] == [ConvOp, TableOp, AddOp]


def test_tables_compose(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x = b.input((1, 256), scale=0.05, zero_point=-3)
    b.tanh(b.quantize(b.leaky_relu(x, alpha=0.2), scale=0.02, zero_point=9))
    graph = check(b.finish(), np.arange(256, dtype=np.uint8).view(np.int8).reshape(1, 256))
    assert [type(op) for op in graph.ops] == [TableOp]


# ---------------------------------------------------------------------- pooling, softmax, reshape


@pytest.mark.parametrize("kind", ["average_pool2d", "max_pool2d"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "strides"), [((2, 2), (2, 2)), ((3, 5), (2, 1)), ((7, 6), (1, 1))]
)
def test_pooling(
    rng: np.random.Generator,
    kind: str,
    padding: str,
    size: tuple[int, int],
    strides: tuple[int, int],
) -> None:
    b = ModelBuilder()
    x = b.input((1, 7, 6, 5), scale=0.05, zero_point=-3)
    getattr(b, kind)(x, size=size, strides=strides, padding=padding, activation="RELU6")
    check(b.finish(), int8(rng, 1, 7, 6, 5))


def test_softmax_table() -> None:
    rng = np.random.default_rng(2)
    for scale in (1e-6, 1e-3, 0.02, 0.1, 0.17, 0.5, 2.0, 40.0):
        for beta in (0.3, 1.0):
            b = ModelBuilder()
            x = b.input((3, 10), scale=scale, zero_point=14)
            b.softmax(x, beta=beta)
            check(b.finish(), int8(rng, 3, 10))


def test_identities_disappear_and_interface_names_stay(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x = b.input((1, 4, 4, 2), scale=0.05, zero_point=-3)
    y = b.reshape(b.reshape(x, (1, 32)), (1, 4, 4, 2))
    z = b.conv2d(y, int8(rng, 3, 3, 3, 2), w_scales=0.01, scale=0.1)
    b.quantize(z, scale=0.1)
    graph = check(b.finish(), int8(rng, 1, 4, 4, 2))
    assert [type(op) for op in graph.ops] == [ConvOp]


def test_two_identities_of_a_tensor_one_of_them_an_output(rng: np.random.Generator) -> None:
    """The first renames what the second reads."""
    b = ModelBuilder()
    x = b.relu(b.input((1, 4, 4, 2), scale=0.05), scale=0.05)
    first, second = b.reshape(x, (1, 4, 4, 2)), b.reshape(x, (1, 4, 4, 2))
    y = b.conv2d(second, int8(rng, 3, 1, 1, 2), w_scales=0.01, scale=0.1)
    graph = check(b.finish([first, y]), int8(rng, 1, 4, 4, 2))
    assert not any(isinstance(op, ReshapeOp) for op in graph.ops)


def test_a_model_of_only_a_reshape(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    b.reshape(b.input((1, 4, 4, 2), scale=0.05, zero_point=-3), (1, 32))
    graph = check(b.finish(), int8(rng, 1, 4, 4, 2))
    assert [type(op) for op in graph.ops] == [ReshapeOp]


def test_dead_operators_are_dropped(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x = b.input((1, 4, 4, 2), scale=0.05)
    wanted = b.relu(x)
    b.mean(x, scale=0.05)  # unsupported, and nobody needs it
    graph = lower(load(b.finish(outputs=[wanted])))
    assert len(graph.ops) == 1


# ---------------------------------------------------------------------- dilation and groups


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("dilations", [(2, 2), (1, 3), (3, 1), (4, 2)])
@pytest.mark.parametrize("depth_multiplier", [None, 1, 2])
def test_dilated_convolutions(
    rng: np.random.Generator, padding: str, dilations: tuple[int, int], depth_multiplier: int | None
) -> None:
    b = ModelBuilder()
    x = b.input((1, 11, 9, 3), scale=0.05, zero_point=int(rng.integers(-128, 128)))
    options: dict[str, Any] = {"scale": 0.2, "padding": padding, "dilations": dilations}
    if depth_multiplier is None:
        b.conv2d(x, int8(rng, 5, 3, 3, 3), bias(rng, 5), w_scales=0.01, **options)
    else:
        channels = 3 * depth_multiplier
        weights = int8(rng, 1, 3, 3, channels)
        b.depthwise_conv2d(x, weights, bias(rng, channels), w_scales=0.01, **options)
    check(b.finish(), int8(rng, 1, 11, 9, 3))


@pytest.mark.parametrize(("groups", "cin", "cout"), [(2, 6, 4), (3, 9, 9), (4, 4, 8), (4, 4, 4)])
def test_grouped_convolutions(rng: np.random.Generator, groups: int, cin: int, cout: int) -> None:
    b = ModelBuilder()
    x = b.input((1, 6, 5, cin), scale=0.05, zero_point=int(rng.integers(-128, 128)))
    weights = int8(rng, cout, 3, 3, cin // groups)
    scales = rng.uniform(0.005, 0.02, cout).astype(np.float32)
    b.conv2d(x, weights, bias(rng, cout), w_scales=scales, scale=0.2, zero_point=-7)
    check(b.finish(), int8(rng, 1, 6, 5, cin))


# ---------------------------------------------------------------------- reductions

REDUCTIONS: list[tuple[tuple[int, ...], list[int]]] = [
    ((1, 7, 6, 8), [1, 2]),
    ((1, 7, 6, 8), [1]),
    ((1, 7, 6, 8), [2]),
    ((1, 7, 6, 8), [-1]),
    ((1, 7, 6, 8), [1, 3]),
    ((1, 7, 6, 8), [1, 2, 3]),
    ((1, 7, 6, 8), [0, 1, 2]),
    ((1, 20, 12), [1]),
    ((1, 20, 12), [2]),
    ((1, 33), [1]),
    ((1, 1, 40, 3), [2]),
]


@pytest.mark.parametrize("keep_dims", [False, True])
@pytest.mark.parametrize(("shape", "axes"), REDUCTIONS)
def test_mean(
    rng: np.random.Generator, shape: tuple[int, ...], axes: list[int], keep_dims: bool
) -> None:
    b = ModelBuilder()
    x = b.input(shape, scale=0.05, zero_point=int(rng.integers(-128, 128)))
    b.mean(x, axes=axes, keep_dims=keep_dims, scale=0.04, zero_point=int(rng.integers(-128, 128)))
    check(b.finish(), int8(rng, *shape))


@pytest.mark.parametrize("keep_dims", [False, True])
@pytest.mark.parametrize(("shape", "axes"), [r for r in REDUCTIONS if not {-1, 3} & {*r[1]}][:5])
def test_reduce_max(
    rng: np.random.Generator, shape: tuple[int, ...], axes: list[int], keep_dims: bool
) -> None:
    b = ModelBuilder()
    x = b.input(shape, scale=0.05, zero_point=3)
    amounts = b.constant(np.array(axes, np.int32))
    reduced = {axis % len(shape) for axis in axes}
    result = [1 if axis in reduced else n for axis, n in enumerate(shape)]
    if not keep_dims:
        result = [n for axis, n in enumerate(shape) if axis not in reduced]
    options = ("ReducerOptions", {"KeepDims": keep_dims})
    b.operator("REDUCE_MAX", [x, amounts], result, scale=0.05, zero_point=3, options=options)
    check(b.finish(), int8(rng, *shape))


# ---------------------------------------------------------------------- refusals


def test_all_unsupported_operators_are_listed_at_once(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x = b.input((1, 8, 8, 2), scale=0.05)
    y = b.operator("DIV", [x, x], x.shape, scale=0.1, options=("DivOptions", {}))
    slopes = b.constant(int8(rng, 8, 8, 2), scales=0.1)
    z = b.operator("PRELU", [y, slopes], x.shape, scale=0.1)
    b.operator("COS", [z], z.shape, scale=0.1)
    with pytest.raises(UnsupportedError) as caught:
        lower(load(b.finish()))
    text = str(caught.value)
    assert "3 operators" in text
    assert f"DIV #0 ({y.name!r}): the NPU does not have this operator" in text
    assert f"PRELU #1 ({z.name!r}): a constant operand" in text
    assert "COS #2" in text
    assert "supported operators" in text.lower()


@pytest.mark.parametrize(("operator", "options"), CONSTANTS)
@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("constant", [(1, 8, 8, 4), (1, 1, 8, 4), (1, 8, 1, 4)])
def test_a_constant_that_is_no_function_of_channels_is_loaded(
    operator: str, options: str, alike: bool, constant: tuple[int, ...]
) -> None:
    for shape in ((1, 1, 1, 4), (1, 8, 8, 4)):
        result = np.broadcast_shapes(shape, constant)
        if alike and shape == result:
            continue  # a constant of one value is a table
        b = ModelBuilder()
        x = b.input(shape, scale=0.1)
        values = np.full(constant, 3) if alike else np.arange(np.prod(constant)).reshape(constant)
        c = b.constant(values.astype(np.int8), scales=0.1)
        table = (options, {}) if options else None
        b.operator(operator, [x, c], result, scale=0.1, options=table)
        if operator == "PRELU":
            with pytest.raises(UnsupportedError, match="PRELU #0 .*: a constant operand of shape"):
                lower(load(b.finish()))
            continue
        graph = check(b.finish(), int8(np.random.default_rng(4), *shape))
        assert isinstance(graph.ops[0], MoveOp)


@pytest.mark.parametrize("operator", ["ADD", "SUB", "MUL", "MAXIMUM", "SQUARED_DIFFERENCE"])
def test_two_constants_are_refused(operator: str) -> None:
    options = dict(CONSTANTS)[operator]
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1)
    c, d = (b.constant(np.full((1, 4), value, np.int8), scales=0.1) for value in (3, 5))
    y = b.operator(operator, [c, d], (1, 4), scale=0.1, options=(options, {}))
    b.add(x, y, scale=0.2)
    with pytest.raises(UnsupportedError, match=f"{operator} #0 .*: both operands are constants"):
        lower(load(b.finish()))


def test_a_constant_is_quantised_as_the_reference_does(rng: np.random.Generator) -> None:
    """Also one that leaves 32 bits, which the reference's conversion makes the least integer."""
    b = ModelBuilder()
    x = b.input((1, 5), scale=0.1)
    constant = b.constant(np.array([1e30, -1e30, 0.25, -3.05, 60], np.float32))
    codes = b.operator("QUANTIZE", [constant], (5,), scale=0.1, zero_point=2)
    b.add(x, codes, scale=0.3)
    (op,) = check(b.finish(), int8(rng, 1, 5)).npu_ops
    assert isinstance(op, TableOp)


def test_the_verifier_finds_a_constant_that_is_read_as_an_activation() -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1)
    b.add(x, b.input((1, 4), scale=0.1), scale=0.2)
    graph = lower(load(b.finish()))
    name = graph.inputs[1]
    fixed = replace(graph.tensors[name], data=np.zeros((1, 4), np.int8))
    wrong = replace(graph, inputs=graph.inputs[:1], tensors={**graph.tensors, name: fixed})
    with pytest.raises(CompileError, match=f"{name!r} is a constant"):
        verify(wrong)


def test_broadcast_over_four_groups_of_axes_is_refused_by_name() -> None:
    b = ModelBuilder()
    x = b.input((1, 2, 1, 2, 1), scale=0.05)
    y = b.input((1, 1, 2, 1, 2), scale=0.05)
    b.add(x, y, scale=0.1)
    with pytest.raises(UnsupportedError, match=r"ADD #0 .*: broadcast of \[1, 2, 1, 2, 1\]"):
        lower(load(b.finish()))


# ---------------------------------------------------------------------- quantisation helpers


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.0, (0, 0)),
        (1.0, (1 << 30, 1)),
        (0.5, (1 << 30, 0)),
        (0.25, (1 << 30, -1)),
        (1 - 2.0**-33, (1 << 30, 1)),  # rounds up to 2**31 and is renormalised
        (2.0**-32, (1 << 30, -31)),
        (2.0**-33, (0, 0)),  # a shift below -31 leaves nothing
        (1e-9, (1152921505, -29)),
    ],
)
def test_quantize_multiplier(real: float, expected: tuple[int, int]) -> None:
    assert quantize_multiplier(real) == expected


@pytest.mark.parametrize("real", [-1.0, float("nan"), float("inf"), 2.0**31])
def test_quantize_multiplier_refuses(real: float) -> None:
    with pytest.raises(QuantizationError):
        quantize_multiplier(real)


def test_activation_range() -> None:
    assert activation_range("NONE", 0.1, 3) == (-128, 127)
    assert activation_range("RELU", 0.1, 3) == (3, 127)
    assert activation_range("RELU6", 0.1, -128) == (-128, -68)
    assert activation_range("RELU_N1_TO_1", 0.1, 3) == (-7, 13)
    with pytest.raises(QuantizationError):
        activation_range("TANH", 0.1, 0)


def test_add_parameters_refuse_a_scale_the_reference_aborts_on() -> None:
    with pytest.raises(QuantizationError):
        add_parameters(1.0, 1.0, 1e-6)


def test_fixed_point_primitives_at_their_edges() -> None:
    low = -(1 << 31)
    assert saturating_rounding_doubling_high_mul(low, low) == (1 << 31) - 1
    assert saturating_rounding_doubling_high_mul(1 << 30, 1) == 1
    assert saturating_rounding_doubling_high_mul(-(1 << 30), 1) == 0
    assert [rounding_divide_by_pot(v, 1) for v in (-3, -1, 1, 3)] == [-2, -1, 1, 2]
