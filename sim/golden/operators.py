"""The int8 TensorFlow Lite operators in numpy: where the expected values of all tests come from.

Written from the operators' definition (the reference kernels of TensorFlow Lite), and checked
against the interpreter ``ai_edge_litert`` with its BUILTIN_REF kernels, tensor by tensor, by
``tests/sim/golden/test_golden.py``.  Nothing here is shared with the compiler, the emulator or the
gateware, so an error there cannot hide behind the same error here.

Conventions: activations are int8 NHWC arrays; ``real = scale * (q - zero_point)``; pairs are
(height, width); scales are the float32 numbers of the file; every function is pure.

Rounding differs by operator and is part of its definition: convolutions, the mean and everything
element-wise round a fixed-point product twice ("double" in :mod:`celosia.sim.golden.fixed`);
fully connected multiplies by the scale in double precision and rounds once, halves away from
zero, so no Q0.31 multiplier is involved at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from celosia.sim.golden.activations import (
    hard_swish,
    leaky_relu,
    logistic,
    quantize,
    relu,
    tanh,
)
from celosia.sim.golden.conv import (
    channel_multipliers,
    channel_scales,
    conv2d,
    conv2d_accumulators,
    depthwise_conv2d,
    depthwise_conv2d_accumulators,
    fully_connected,
    fully_connected_accumulators,
    requantize,
    same_padding,
    transpose_conv,
    window_geometry,
    window_taps,
)
from celosia.sim.golden.fixed import (
    INT8_MIN,
    Rounding,
    activation_range,
    divide_round_half_away,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
    to_int8,
    wrap_int32,
)
from celosia.sim.golden.softmax import (
    exp_on_negative_values,
    softmax,
    softmax_exp_table,
    softmax_reciprocal,
    softmax_scaling,
)

__all__ = [
    "Rounding",
    "activation_range",
    "add",
    "average_pool2d",
    "channel_multipliers",
    "channel_scales",
    "conv2d",
    "conv2d_accumulators",
    "depthwise_conv2d",
    "depthwise_conv2d_accumulators",
    "exp_on_negative_values",
    "fully_connected",
    "fully_connected_accumulators",
    "hard_swish",
    "leaky_relu",
    "logistic",
    "max_pool2d",
    "maximum",
    "mean",
    "minimum",
    "mul",
    "multiply_by_quantized_multiplier",
    "quantize",
    "quantize_multiplier",
    "relu",
    "requantize",
    "reshape",
    "rounding_divide_by_pot",
    "same_padding",
    "saturating_rounding_doubling_high_mul",
    "softmax",
    "softmax_exp_table",
    "softmax_reciprocal",
    "softmax_scaling",
    "squared_difference",
    "sub",
    "tanh",
    "transpose_conv",
    "window_geometry",
    "window_taps",
]

Int8 = npt.NDArray[np.int8]
Pair = tuple[int, int]


# ---------------------------------------------------------------------- element-wise


def add(
    a: Int8,
    b: Int8,
    *,
    a_scale: float,
    a_zero_point: int,
    b_scale: float,
    b_zero_point: int,
    out_scale: float,
    out_zero_point: int,
    activation: str = "NONE",
) -> Int8:
    """ADD: a + b, with numpy broadcasting.

    Both inputs are shifted left by 20 bits, brought to twice the larger of the two scales,
    added, and brought to the output's scale; each step rounds twice.

    Raises
    ------
    ValueError
        If out_scale is so small (below about max(a_scale, b_scale) / 2**19) that the
        reference refuses it.
    """
    return _add_or_sub(
        a,
        b,
        1,
        (a_scale, b_scale, out_scale),
        (a_zero_point, b_zero_point, out_zero_point),
        activation,
    )


def sub(
    a: Int8,
    b: Int8,
    *,
    a_scale: float,
    a_zero_point: int,
    b_scale: float,
    b_zero_point: int,
    out_scale: float,
    out_zero_point: int,
    activation: str = "NONE",
) -> Int8:
    """SUB: a - b, as :func:`add` with the second multiplier negated."""
    return _add_or_sub(
        a,
        b,
        -1,
        (a_scale, b_scale, out_scale),
        (a_zero_point, b_zero_point, out_zero_point),
        activation,
    )


def _add_or_sub(
    a: Int8,
    b: Int8,
    sign: int,
    scales: tuple[float, float, float],
    zero_points: tuple[int, int, int],
    activation: str,
) -> Int8:
    left_shift_bits = 20
    a_scale, b_scale, out_scale = (float(np.float32(s)) for s in scales)
    twice_max = 2 * max(a_scale, b_scale)
    out_real = twice_max / ((1 << left_shift_bits) * out_scale)
    if out_real >= 1:
        raise ValueError(
            f"output scale {out_scale} is too small for inputs of {a_scale}, {b_scale}"
        )
    mantissa_a, shift_a = quantize_multiplier(a_scale / twice_max)
    mantissa_b, shift_b = quantize_multiplier(b_scale / twice_max)
    mantissa_out, shift_out = quantize_multiplier(out_real)
    wide_a = (a.astype(np.int64) - zero_points[0]) << left_shift_bits
    wide_b = (b.astype(np.int64) - zero_points[1]) << left_shift_bits
    total = multiply_by_quantized_multiplier(
        wide_a, mantissa_a, shift_a
    ) + multiply_by_quantized_multiplier(wide_b, sign * mantissa_b, shift_b)
    low, high = activation_range(activation, out_scale, zero_points[2])
    return requantize(
        total, mantissa_out, shift_out, out_zero_point=zero_points[2], low=low, high=high
    )


def mul(
    a: Int8,
    b: Int8,
    *,
    a_scale: float,
    a_zero_point: int,
    b_scale: float,
    b_zero_point: int,
    out_scale: float,
    out_zero_point: int,
    activation: str = "NONE",
) -> Int8:
    """MUL: a * b, with numpy broadcasting; the multiplier is computed in float32."""
    real = np.float32(a_scale) * np.float32(b_scale) / np.float32(out_scale)
    mantissa, shift = quantize_multiplier(float(real))
    product = (a.astype(np.int64) - a_zero_point) * (b.astype(np.int64) - b_zero_point)
    low, high = activation_range(activation, out_scale, out_zero_point)
    return requantize(product, mantissa, shift, out_zero_point=out_zero_point, low=low, high=high)


def maximum(a: Int8, b: Int8) -> Int8:
    """MAXIMUM of stored bytes, with numpy broadcasting; all tensors have one quantisation."""
    return np.maximum(a, b)


def minimum(a: Int8, b: Int8) -> Int8:
    """MINIMUM, as :func:`maximum`."""
    return np.minimum(a, b)


def squared_difference(
    a: Int8,
    b: Int8,
    *,
    a_scale: float,
    a_zero_point: int,
    b_scale: float,
    b_zero_point: int,
    out_scale: float,
    out_zero_point: int,
) -> Int8:
    """SQUARED_DIFFERENCE: (a - b)**2, with numpy broadcasting.

    Both are shifted left by 7 bits and brought to twice the larger of the two scales, in double
    precision; the square of their difference is brought to the output's scale.
    """
    a_scale, b_scale, out_scale = (float(np.float32(s)) for s in (a_scale, b_scale, out_scale))
    common = 2 * max(a_scale, b_scale)

    def side(values: Int8, zero_point: int, scale: float) -> npt.NDArray[np.int64]:
        wide = (values.astype(np.int64) - zero_point) << 7
        return multiply_by_quantized_multiplier(wide, *quantize_multiplier(scale / common))

    difference = side(a, a_zero_point, a_scale) - side(b, b_zero_point, b_scale)
    mantissa, shift = quantize_multiplier(common * common / ((1 << 14) * out_scale))
    square = multiply_by_quantized_multiplier(difference * difference, mantissa, shift)
    return to_int8(square + out_zero_point)


def prelu(
    x: Int8,
    slope: Int8,
    *,
    x_scale: float,
    x_zero_point: int,
    slope_scale: float,
    slope_zero_point: int,
    out_scale: float,
    out_zero_point: int,
) -> Int8:
    """PRELU: x at and above zero, x * slope below; `slope` broadcasts. Scales in float32."""
    scale_in, scale_out = np.float32(x_scale), np.float32(out_scale)
    value = x.astype(np.int64) - x_zero_point
    product = value * (slope.astype(np.int64) - slope_zero_point)
    one = quantize_multiplier(float(scale_in / scale_out))
    sloped = quantize_multiplier(float(scale_in * np.float32(slope_scale) / scale_out))
    scaled = np.where(
        value >= 0,
        multiply_by_quantized_multiplier(value, *one),
        multiply_by_quantized_multiplier(product, *sloped),
    )
    return to_int8(scaled + out_zero_point)


# ---------------------------------------------------------------------- pooling, reduction


def average_pool2d(
    x: Int8,
    *,
    size: Pair,
    strides: Pair,
    padding: str,
    scale: float,
    zero_point: int,
    activation: str = "NONE",
    unsigned: bool = False,
) -> Int8:
    """AVERAGE_POOL_2D: the mean of the elements inside the image, halves away from zero.

    Parameters
    ----------
    x
        int8 (N, H, W, C).
    size, strides
        (height, width) of the window and of its steps.
    padding
        "SAME" or "VALID"; padding is not counted.
    scale, zero_point
        Common to input and output; only a fused activation needs them.
    unsigned
        As the uint8 kernel, whose values are 128 larger: it rounds halves up.
    """
    # Rounding is done on the codes themselves, not on their distance from the zero point.
    wide = x.astype(np.int64)
    inside = np.ones((1, x.shape[1], x.shape[2], 1), np.int64)
    geometry = (size, strides, padding, (1, 1), 0)
    total = sum(view for _, _, view in window_taps(wide, *geometry))
    count = sum(view for _, _, view in window_taps(inside, *geometry))
    low, high = activation_range(activation, scale, zero_point)
    if unsigned:
        return to_int8((total + 128 * count + count // 2) // count - 128, low, high)
    return to_int8(divide_round_half_away(total, count), low, high)


def max_pool2d(
    x: Int8,
    *,
    size: Pair,
    strides: Pair,
    padding: str,
    scale: float,
    zero_point: int,
    activation: str = "NONE",
) -> Int8:
    """MAX_POOL_2D: the largest element inside the image; parameters of :func:`average_pool2d`."""
    views = window_taps(x.astype(np.int64), size, strides, padding, (1, 1), INT8_MIN)
    low, high = activation_range(activation, scale, zero_point)
    return to_int8(np.max(np.stack([view for _, _, view in views]), axis=0), low, high)


def mean(
    x: Int8,
    *,
    axes: Sequence[int],
    keep_dims: bool,
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
) -> Int8:
    """MEAN over `axes`: one multiplication that also divides by the number of elements.

    The quotient (mantissa << s) / count is truncated, with s the largest shift that keeps it
    in 31 bits, so the result can differ from a division by one unit.
    """
    reduced = tuple(sorted({axis % x.ndim for axis in axes}))
    count = int(np.prod([x.shape[axis] for axis in reduced]))
    mantissa, shift = quantize_multiplier(float(np.float32(x_scale)) / float(np.float32(out_scale)))
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    mantissa = (mantissa << extra) // count
    total = x.astype(np.int64).sum(axis=reduced, keepdims=keep_dims) - x_zero_point * count
    scaled = multiply_by_quantized_multiplier(wrap_int32(total), mantissa, shift - extra)
    return to_int8(scaled + out_zero_point)


def total(
    x: Int8,
    *,
    axes: Sequence[int],
    keep_dims: bool,
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
) -> Int8:
    """SUM over `axes`, in single precision, rounded once, halves away from zero.

    Source: ``QuantizedMeanOrSum`` of the default kernels; the reference kernels use a multiplier
    that nobody sets.
    """
    reduced = tuple(sorted({axis % x.ndim for axis in axes}))
    count = int(np.prod([x.shape[axis] for axis in reduced]))
    single = np.float32
    scale = single(x_scale) / single(out_scale)
    bias = single(-x_zero_point) * scale * single(count)
    sums = x.astype(np.int64).sum(axis=reduced, keepdims=keep_dims)
    values = np.asarray(sums).astype(single) * scale + bias
    rounded = np.copysign(np.floor(np.abs(values.astype(np.float64)) + 0.5), values)
    return to_int8(rounded.astype(np.int64) + out_zero_point)


def reduce_min(x: Int8, *, axes: Sequence[int], keep_dims: bool) -> Int8:
    """REDUCE_MIN over `axes`; input and output have one quantisation."""
    reduced = tuple({axis % x.ndim for axis in axes})
    return np.asarray(np.min(x, axis=reduced, keepdims=keep_dims), np.int8)


def reduce_max(x: Int8, *, axes: Sequence[int], keep_dims: bool) -> Int8:
    """REDUCE_MAX over `axes`; input and output have one quantisation."""
    reduced = tuple({axis % x.ndim for axis in axes})
    return np.asarray(np.max(x, axis=reduced, keepdims=keep_dims), np.int8)


# ---------------------------------------------------------------------- data movement


def reshape(x: Int8, *, shape: Sequence[int]) -> Int8:
    """RESHAPE; one dimension may be -1."""
    return x.reshape(tuple(shape)).copy()
