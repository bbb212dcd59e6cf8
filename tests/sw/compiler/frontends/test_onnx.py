"""ONNX models, operator by operator: the emulator's results equal onnxruntime's."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.ir import UNPROVEN
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.runtime.session import Session

from tests.kit.onnx_models import OnnxBuilder, needs_whole_sums, onnxruntime_results

pytestmark = needs_whole_sums

CONFIG = preset("base")
F = np.float32
Array = npt.NDArray[Any]


def program_of(model: bytes, b: OnnxBuilder, *, samples: int = 3) -> Program:
    """Compile a model, and hold its results on the emulator against onnxruntime's.

    A layer that is not proven equal may differ by a step, in an element of fifty.
    """
    program = compile_model(model, CONFIG)
    unproven = any(UNPROVEN in layer.reason for layer in program.layers)
    limits = np.iinfo(b.dtype)
    with open_device("emu", CONFIG) as device, Session(program, device) as session:
        for _ in range(samples):
            inputs = {
                info.name: b.rng.integers(limits.min, limits.max + 1, info.shape).astype(b.dtype)
                for info in program.inputs
            }
            found = session.run(inputs).outputs
            for name, wanted in onnxruntime_results(model, inputs).items():
                if unproven:
                    apart = np.abs(found[name].astype(int) - wanted.astype(int))
                    assert apart.max() <= 1
                    assert np.count_nonzero(apart) <= max(1, apart.size // 50)
                else:
                    np.testing.assert_array_equal(found[name], wanted, err_msg=name)
    return program


def conv(b: OnnxBuilder) -> str:
    cin, group = [(4, 1), (8, 2), (6, 6)][int(b.rng.integers(3))]
    cout = group * int(b.rng.integers(1, 9)) if group != 6 else 6 * int(b.rng.integers(1, 3))
    size, kernel = int(b.rng.integers(5, 12)), int(b.rng.integers(1, 4))
    x = b.input((1, cin, size, size + 1))
    options = {
        "group": group,
        "strides": [int(n) for n in b.rng.integers(1, 3, 2)],
        "dilations": [int(n) for n in b.rng.integers(1, 3, 2)] if kernel > 1 else [1, 1],
        "pads": [int(n) for n in b.rng.integers(0, kernel, 4)],
        "kernel_shape": [kernel, kernel],
    }
    depth = cin // group * kernel * kernel
    shape = (cout, cin // group, kernel, kernel)
    return b.weighted("Conv", x, shape, 0, cout, depth, **options)


def conv_automatic(b: OnnxBuilder) -> str:
    x = b.input((1, 3, 9, 8))
    pad = str(b.rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    options = {"auto_pad": pad, "strides": [2, 2], "kernel_shape": [3, 3]}
    return b.weighted("Conv", x, (5, 3, 3, 3), 0, 5, 27, **options)


def conv_clamped(b: OnnxBuilder) -> str:
    x = b.input((1, 3, 6, 6))
    clamp = (0.0, float(b.rng.uniform(0.5, 6)))
    return b.weighted("Conv", x, (8, 3, 3, 3), 0, 8, 27, clamp, kernel_shape=[3, 3])


def conv_with_float_bias(b: OnnxBuilder) -> str:
    x = b.input((1, 3, 6, 6))
    b.qdq = True
    return b.weighted(
        "Conv", x, (8, 3, 3, 3), 0, 8, 27, (0.0, 50.0), float_bias=True, kernel_shape=[3, 3]
    )


def conv_of_one_axis(b: OnnxBuilder) -> str:
    x = b.input((1, 5, 20))
    y = b.weighted("Conv", x, (7, 5, 3), 0, 7, 15, kernel_shape=[3], pads=[1, 1], strides=[2])
    return b.weighted("Conv", y, (3, 7, 3), 0, 3, 21, kernel_shape=[3], dilations=[2])


def gemm(b: OnnxBuilder) -> str:
    x = b.input((int(b.rng.integers(1, 3)), 20))
    turned = int(b.rng.integers(2))
    shape = (9, 20) if turned else (20, 9)
    return b.weighted("Gemm", x, shape, 0 if turned else 1, 9, 20, transB=turned)


def gemm_of_image(b: OnnxBuilder) -> str:
    x = b.input((1, 3, 6, 6))
    y = b.weighted("Conv", x, (4, 3, 3, 3), 0, 4, 27, kernel_shape=[3, 3])
    flat = b.moved("Flatten", y)
    return b.weighted("Gemm", flat, (10, 64), 0, 10, 64, transB=1)


def reshaped_image(b: OnnxBuilder) -> str:
    x = b.input((1, 3, 6, 6))
    y = b.weighted("Conv", x, (4, 3, 3, 3), 0, 4, 27, kernel_shape=[3, 3])
    return b.moved("Reshape", y, [b.constant(np.array([1, 8, 8]))])


def transposed(b: OnnxBuilder) -> str:
    x = b.input((1, 8, 6, 3))
    y = b.moved("Transpose", x, perm=[0, 3, 1, 2])
    y = b.weighted("Conv", y, (4, 3, 3, 3), 0, 4, 27, kernel_shape=[3, 3])
    return b.moved("Transpose", y, perm=[0, 2, 3, 1])


def matmul(b: OnnxBuilder) -> str:
    x = b.input((1, 7, 12))
    b.per_channel = b.per_channel and b.qdq
    return b.weighted("MatMul", x, (12, 5), 1, 5, 12)


def matmul_of_two(b: OnnxBuilder) -> str:
    x, y = b.input((1, 6, 8)), b.input((1, 8, 5))
    ratio = b.rng.uniform(100, 200)
    out = F(b.known[x][0] * b.known[y][0] * ratio), b.quantisation()[1]
    return b.binary("MatMul", x, y, out, named=False)


def max_pool(b: OnnxBuilder) -> str:
    x = b.input((1, 5, 9, 10))
    options = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    return b.moved("MaxPool", x, ceil_mode=int(b.rng.integers(2)), **options)


def global_average(b: OnnxBuilder) -> str:
    x = b.input((1, 6, 7, 5))
    return b.unary("GlobalAveragePool", x, out=b.quantisation(0.005, 0.05), named=True)


def average(b: OnnxBuilder) -> str:
    x = b.input((1, 4, 9, 9))
    out = b.known[x] if b.rng.integers(2) else b.quantisation(0.005, 0.05)
    options = {"kernel_shape": [3, 3], "strides": [3, 3]}
    return b.unary("AveragePool", x, out=out, named=True, **options)


def mean(b: OnnxBuilder) -> str:
    x = b.input((1, 4, 5, 3))
    return b.unary("ReduceMean", x, out=b.quantisation(0.005, 0.05), axes=[2, 3], keepdims=0)


def mean_of_steps(b: OnnxBuilder) -> str:
    shape, axes = [((1, 7, 12), [1]), ((1, 4, 5, 9), [-2, 1])][int(b.rng.integers(2))]
    x, keep = b.input(shape), int(b.rng.integers(2))
    return b.unary("ReduceMean", x, out=b.quantisation(0.005, 0.05), axes=axes, keepdims=keep)


def function(kind: str, *, named: bool = False, **options: object) -> Callable[[OnnxBuilder], str]:
    def make(b: OnnxBuilder) -> str:
        return b.unary(kind, b.input((1, 4, 5, 5)), named=named, **options)

    return make


def clip(b: OnnxBuilder) -> str:
    ends = [b.constant(F(-0.5)), b.constant(F(1.25))]
    return b.unary("Clip", b.input((1, 3, 4, 4)), ends)


def normalised(b: OnnxBuilder) -> str:
    x = b.input((1, 6, 4, 5))
    values = [b.rng.uniform(0.5, 2, 6), b.rng.normal(0, 1, 6), b.rng.normal(0, 1, 6)]
    values.append(b.rng.uniform(0.5, 2, 6))
    return b.unary("BatchNormalization", x, [b.constant(v.astype(F)) for v in values])


def sloped(b: OnnxBuilder) -> str:
    slopes = b.constant(b.rng.uniform(0, 0.5, (6, 1, 1)).astype(F))
    return b.unary("PRelu", b.input((1, 6, 4, 5)), [slopes])


def rescaled(b: OnnxBuilder) -> str:
    return b.quantised(b.dequantised(b.input((1, 3, 4, 4))))


def pair(kind: str, *, named: bool = True) -> Callable[[OnnxBuilder], str]:
    def make(b: OnnxBuilder) -> str:
        x, y = b.input((1, 4, 5, 5)), b.input((1, 4, 5, 5))
        (scale_a, _), (scale_b, _) = b.known[x], b.known[y]
        scale = F(max(scale_a, scale_b) * b.rng.uniform(0.8, 2))
        if kind == "Mul":
            scale = F(scale_a * scale_b * b.rng.uniform(20, 200))
        return b.binary(kind, x, y, (scale, b.quantisation()[1]), named=named)

    return make


def broadcast(b: OnnxBuilder) -> str:
    x, y = b.input((1, 4, 5, 6)), b.input((1, 4, 1, 1))
    ratio = b.rng.uniform(60, 120)
    out = F(b.known[x][0] * b.known[y][0] * ratio), b.quantisation()[1]
    return b.binary("Mul", x, y, out)


def concat(b: OnnxBuilder) -> str:
    x, y = b.input((1, 4, 5, 6)), b.input((1, 3, 5, 6))
    out = b.quantisation()
    if b.qdq:
        both = [b.dequantised(x), b.dequantised(y)]
        return b.quantised(str(b.node("Concat", both, axis=1)), out)
    head = [b.constant(out[0]), b.constant(np.array(out[1], b.dtype))]
    operands = [*head, x, *b.parameters(x), y, *b.parameters(y)]
    name = str(b.node("QLinearConcat", operands, domain="com.microsoft", axis=1))
    b.known[name] = out
    return name


def sliced(b: OnnxBuilder) -> str:
    ends = [np.array(v) for v in ([1, 6], [4, -9], [1, 3], [1, -2])]
    return b.moved("Slice", b.input((1, 5, 6, 8)), [b.constant(v) for v in ends])


def split(b: OnnxBuilder) -> str:
    x = b.input((1, 5, 6, 8))
    sizes = b.constant(np.array([2, 3]))
    parts = b.node("Split", [x, sizes], 2, axis=1)
    b.output(parts[0])
    return parts[1]


def padded(b: OnnxBuilder) -> str:
    x = b.input((1, 3, 5, 5))
    amounts = b.constant(np.array([0, 1, 1, 2, 0, 0, 1, 1]))
    return b.moved("Pad", x, [amounts, b.constant(np.array(3, b.dtype))])


def resized(b: OnnxBuilder) -> str:
    x = b.input((1, 3, 5, 4))
    scales = b.constant(np.array([1, 1, 2, 3], F))
    mode = str(b.rng.choice(["asymmetric", "half_pixel"]))
    options = {"coordinate_transformation_mode": mode, "nearest_mode": "floor"}
    return b.moved("Resize", x, ["", scales], mode="nearest", **options)


def moved_to_another_scale(kind: str) -> Callable[[OnnxBuilder], str]:
    """Between conversions a move may also change the scale, and have an activation behind it."""

    def make(b: OnnxBuilder) -> str:
        b.qdq = True
        x = b.input((1, 6, 4, 5))
        extra: dict[str, list[Array]] = {
            "Reshape": [np.array([1, 3, 40])],
            "Slice": [np.array([value]) for value in (1, 4, 1)],
            "Concat": [],
        }
        operands = [b.dequantised(x), *(b.constant(v) for v in extra.get(kind, []))]
        options: dict[str, Any] = {
            "Transpose": {"perm": [0, 2, 3, 1]},
            "MaxPool": {"kernel_shape": [2, 2]},
            "Concat": {"axis": 1},
        }.get(kind, {})
        if kind == "Concat":
            y = b.input((1, 2, 4, 5))
            operands.append(b.dequantised(y))
        real = str(b.node(kind, operands, **options))
        ends = [b.constant(F(end)) for end in (0.0, float(b.rng.uniform(0.3, 2)))]
        real = str(b.node("Clip", [real, *ends]))
        return b.quantised(real, b.known[x] if b.rng.integers(2) else None)

    return make


def depth_to_space(b: OnnxBuilder) -> str:
    mode = str(b.rng.choice(["DCR", "CRD"]))
    return b.moved("DepthToSpace", b.input((1, 8, 3, 4)), blocksize=2, mode=mode)


OPERATORS: dict[str, Callable[[OnnxBuilder], str]] = {
    "conv": conv,
    "conv_automatic": conv_automatic,
    "conv_clamped": conv_clamped,
    "conv_with_float_bias": conv_with_float_bias,
    "conv_of_one_axis": conv_of_one_axis,
    "gemm": gemm,
    "gemm_of_image": gemm_of_image,
    "reshaped_image": reshaped_image,
    "transposed": transposed,
    "matmul": matmul,
    "matmul_of_two": matmul_of_two,
    "max_pool": max_pool,
    "global_average": global_average,
    "average": average,
    "mean": mean,
    "mean_of_steps": mean_of_steps,
    "sigmoid": function("Sigmoid", named=True),
    "leaky": function("LeakyRelu", named=True, alpha=0.1),
    "tanh": function("Tanh"),
    "relu": function("Relu"),
    "hard_swish": function("HardSwish"),
    "hard_sigmoid": function("HardSigmoid"),
    "elu": function("Elu"),
    "exp": function("Exp"),
    "clip": clip,
    "normalised": normalised,
    "sloped": sloped,
    "rescaled": rescaled,
    "add": pair("Add"),
    "mul": pair("Mul"),
    "sub": pair("Sub", named=False),
    "max": pair("Max", named=False),
    "min": pair("Min", named=False),
    "broadcast": broadcast,
    "concat": concat,
    "sliced": sliced,
    "split": split,
    "padded": padded,
    "resized": resized,
    "depth_to_space": depth_to_space,
    **{
        f"{kind.lower()}_to_another_scale": moved_to_another_scale(kind)
        for kind in ("Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Transpose")
    },
}
"""Models of one or two operators."""
SOMETIMES_ON_THE_HOST = frozenset(
    {"add", "average", "max_pool", "mean", "mean_of_steps", "mul", "sub"}
)
"""Where sums could be rounded to either side, or a window is beside the image."""


@pytest.mark.parametrize("qdq", [True, False], ids=["qdq", "qoperator"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8], ids=["int8", "uint8"])
@pytest.mark.parametrize("kind", OPERATORS)
def test_an_operator_equals_onnxruntime(kind: str, dtype: type, qdq: bool) -> None:
    """Random shapes, scales, zero points and inputs; everything in the range of the codes."""
    for turn in range(2):
        seed = zlib.crc32(f"{kind} {dtype.__name__} {qdq} {turn}".encode())
        b = OnnxBuilder(np.random.default_rng(seed), dtype, qdq, per_channel=turn > 0)
        b.output(OPERATORS[kind](b))
        program = program_of(b.model(), b)
        if kind not in SOMETIMES_ON_THE_HOST:
            assert not program.host_segments, program.host_segments[0].layers


def gemm_with(b: OnnxBuilder, shape: tuple[int, ...]) -> str:
    """A Gemm of nine rows and columns with a term in floating point."""
    x = b.input((9, 20))
    codes, scales, zeros, values = b.weights((20, 9), 1)
    spread = 74.0 * 74.0 * np.sqrt(20) * float(b.known[x][0]) * float(np.mean(values))
    w = str(b.node("DequantizeLinear", [codes, scales, zeros], axis=1))
    term = b.constant(b.rng.normal(0, 0.2 * spread, shape).astype(F))
    return b.quantised(str(b.node("Gemm", [b.dequantised(x), w, term])), (F(spread / 60), 3))


@pytest.mark.parametrize("shape", [(9,), (1,), (1, 9), (9, 1), (9, 9), (1, 1)], ids=str)
def test_a_term_that_is_no_bias(shape: tuple[int, ...]) -> None:
    """A Gemm adds what broadcasts: only of one axis it is a bias, which onnxruntime rounds."""
    for seed in range(4):
        b = OnnxBuilder(np.random.default_rng(seed), np.uint8)
        b.output(gemm_with(b, shape))
        program = program_of(b.model(), b)
        assert bool(program.host_segments) == (len(shape) > 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_with_scales_of_blocks(axis: int) -> None:
    b = OnnxBuilder(np.random.default_rng(axis), np.uint8)
    x = b.input((4, 8))
    scales = b.rng.uniform(0.002, 0.02, (1, 8) if axis == 0 else (8, 1)).astype(F)
    codes = b.rng.integers(-127, 128, (8, 8)).astype(np.int8)
    zeros = np.zeros(scales.shape, np.int8)
    names = [b.constant(value) for value in (codes, scales, zeros)]
    w = str(b.node("DequantizeLinear", names, axis=axis, block_size=8))
    real = str(b.node("MatMul", [b.dequantised(x), w]))
    b.output(b.quantised(real, (F(0.2), 100)))
    assert program_of(b.model(21), b).host_segments


def test_a_result_whose_type_an_attribute_says() -> None:
    b = OnnxBuilder(np.random.default_rng(3), np.int8)
    real = str(b.node("Tanh", [b.dequantised(b.input((1, 12)))]))
    b.output(str(b.node("QuantizeLinear", [real, b.constant(F(0.01))], output_dtype=3)))
    assert not program_of(b.model(21), b).host_segments


@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "align_corners"])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_the_nearest_pixel_is_onnxruntimes(mode: str, rounding: str) -> None:
    """It rounds places to float32: of 14 pixels to 16 some are others than in double precision."""
    options = {"coordinate_transformation_mode": mode, "nearest_mode": rounding}
    for size, wanted in ((14, 16), (14, 4), (11, 13), (7, 5)):
        b = OnnxBuilder(np.random.default_rng(wanted), np.uint8)
        x = b.input((1, 2, size, size))
        sizes = b.constant(np.array([1, 2, wanted, wanted + 1]))
        b.output(b.moved("Resize", x, ["", "", sizes], mode="nearest", **options))
        assert not program_of(b.model(), b, samples=1).host_segments


@pytest.mark.parametrize("shape", [(1, 4, 5, 4), (1, 256, 256), (6,), (1, 6)], ids=str)
def test_slopes_along_the_last_axis(shape: tuple[int, ...]) -> None:
    """PRelu broadcasts from behind: as many slopes as channels may be those of columns."""
    b = OnnxBuilder(np.random.default_rng(5), np.int8)
    slopes = b.constant(b.rng.uniform(0, 0.5, shape[-1]).astype(F))
    b.output(b.unary("PRelu", b.input(shape), [slopes]))
    assert program_of(b.model(), b, samples=1).host_segments
