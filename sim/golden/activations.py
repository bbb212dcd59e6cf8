"""Element-wise int8 activation operators of the TensorFlow Lite reference kernels.

Source: TensorFlow Lite ``kernels/{activations,elementwise}.cc`` and ``reference/{requantize,
leaky_relu,hard_swish}.h``.  Several kernels prepare their multipliers in float32; where they do, so
does this module, because the last bit of the multiplier depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sim.golden.fixed import (
    INT8_MAX,
    INT8_MIN,
    activation_range,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturate,
    saturating_rounding_doubling_high_mul,
    to_int8,
    truncating_divide,
)

__all__ = [
    "absolute",
    "elu",
    "exponential",
    "gelu",
    "hard_swish",
    "inverse_square_root",
    "leaky_relu",
    "logarithm",
    "logistic",
    "negative",
    "quantize",
    "relu",
    "square_root",
    "tanh",
]

Int8 = npt.NDArray[np.int8]


def relu(
    x: Int8,
    *,
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
    kind: str = "RELU",
) -> Int8:
    """RELU, RELU6 or RELU_N1_TO_1 as an operator, with a change of quantisation.

    Parameters
    ----------
    x
        int8, any shape.
    x_scale, x_zero_point, out_scale, out_zero_point
        Quantisation of input and output.
    kind
        "RELU", "RELU6" or "RELU_N1_TO_1".
    """
    mantissa, shift = quantize_multiplier(float(np.float32(x_scale) / np.float32(out_scale)))
    low, high = activation_range(kind, out_scale, out_zero_point)
    scaled = multiply_by_quantized_multiplier(x.astype(np.int64) - x_zero_point, mantissa, shift)
    return to_int8(scaled + out_zero_point, low, high)


def absolute(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """ABS. Equal scales are not rescaled, so that 128 steps stay 128."""
    magnitude = np.abs(x.astype(np.int64) - x_zero_point)
    if np.float32(x_scale) != np.float32(out_scale):
        mantissa, shift = quantize_multiplier(float(np.float32(x_scale) / np.float32(out_scale)))
        magnitude = multiply_by_quantized_multiplier(magnitude, mantissa, shift)
    return to_int8(magnitude + out_zero_point)


def leaky_relu(
    x: Int8,
    *,
    alpha: float,
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
) -> Int8:
    """LEAKY_RELU: slope 1 at and above zero, `alpha` (any sign) below; requantised."""
    scale_in, scale_out = np.float32(x_scale), np.float32(out_scale)
    slope, slope_shift = quantize_multiplier(float(scale_in * np.float32(alpha) / scale_out))
    one, one_shift = quantize_multiplier(float(scale_in / scale_out))
    value = x.astype(np.int64) - x_zero_point
    # A negative slope negates the rounded result; negating the multiplier would move the halves.
    below = multiply_by_quantized_multiplier(value, abs(slope), slope_shift)
    scaled = np.where(
        value >= 0,
        multiply_by_quantized_multiplier(value, one, one_shift),
        -below if slope < 0 else below,
    )
    return to_int8(scaled + out_zero_point)


def quantize(
    x: npt.NDArray[Any],
    *,
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
    dtype: npt.DTypeLike = np.int8,
) -> npt.NDArray[Any]:
    """QUANTIZE between int8 and uint8: the same real values under another scale and zero point.

    `dtype` is the result's element type.
    """
    mantissa, shift = quantize_multiplier(float(np.float32(x_scale)) / float(np.float32(out_scale)))
    scaled = multiply_by_quantized_multiplier(x.astype(np.int64) - x_zero_point, mantissa, shift)
    limits = np.iinfo(dtype)
    return np.clip(scaled + out_zero_point, limits.min, limits.max).astype(dtype)


def _by_table(
    x: Int8,
    function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
) -> Int8:
    """Apply `function` through the 256-entry table that the kernel computes in float32."""
    codes = np.arange(INT8_MIN, INT8_MAX + 1)
    real = np.float32(x_scale) * (codes - x_zero_point).astype(np.float32)
    # float64 and one rounding: numpy's own float32 functions are less exact than the C library's.
    value = function(real.astype(np.float64)).astype(np.float32)
    scaled = (value * (np.float32(1) / np.float32(out_scale))).astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    table = to_int8(rounded.astype(np.int64) + out_zero_point)
    return table[x.astype(np.int64) - INT8_MIN]


def logistic(
    x: Int8,
    *,
    x_scale: float,
    x_zero_point: int,
    out_scale: float = 1 / 256,
    out_zero_point: int = -128,
) -> Int8:
    """LOGISTIC: 1 / (1 + exp(-x)).  The reference demands an output scale of 1/256."""

    def sigmoid(real: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # An overflow to infinity (and so a result of 0) is what the float32 kernel does too.
        with np.errstate(over="ignore"):
            exponential = np.exp(-real).astype(np.float32)
        one = np.float32(1)
        return (one / (one + exponential)).astype(np.float64)

    return _by_table(x, sigmoid, x_scale, x_zero_point, out_scale, out_zero_point)


def tanh(
    x: Int8,
    *,
    x_scale: float,
    x_zero_point: int,
    out_scale: float = 1 / 128,
    out_zero_point: int = 0,
) -> Int8:
    """TANH."""
    return _by_table(x, np.tanh, x_scale, x_zero_point, out_scale, out_zero_point)


def hard_swish(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """HARD_SWISH: x * relu6(x + 3) / 6, in 16-bit fixed point.

    Raises
    ------
    ValueError
        If the output scale is below x_scale / 128, which the reference refuses.
    """
    hires_scale = np.float32(1 / 128) * np.float32(x_scale)
    out_mantissa, out_shift = _multiplier_16bit(hires_scale / np.float32(out_scale))
    if out_shift > 0:
        raise ValueError(f"hard swish needs out_scale {out_scale} >= x_scale {x_scale} / 128")
    # 3.0 is 2**15 on the scale of the factor relu6(x + 3) / 6 seen as a number in [-1, 1].
    reluish_scale = np.float32(3) / np.float32(32768)
    mantissa, shift = _multiplier_16bit(hires_scale / reluish_scale)

    hires = (x.astype(np.int64) - x_zero_point) << 7
    on_output_scale = saturating_rounding_doubling_high_mul(hires, out_mantissa, bits=16)
    # All but one bit of a left shift goes before the multiplication, so that saturation there
    # cannot change the result; the last bit saturates for good.
    factor = saturate(hires << max(shift - 1, 0), 16)
    factor = saturating_rounding_doubling_high_mul(factor, mantissa, bits=16)
    if shift > 0:
        factor = saturate(factor << 1, 16)
    factor = _divide_int16_by_pot(factor, max(-shift, 0))
    factor = (factor + (1 << 15)) >> 1  # from [-1, 1] to [0, 1]
    # Truncated, not rounded: the kernel found that this cancels the bias of the roundings above.
    product = saturate(truncating_divide(factor * on_output_scale, 1 << 15), 16)
    return to_int8(_divide_int16_by_pot(product, -out_shift) + out_zero_point)


def _divide_int16_by_pot(value: npt.NDArray[np.int64], exponent: int) -> npt.NDArray[np.int64]:
    """gemmlowp's ``RoundingDivideByPOT`` on int16.

    ``(1 << exponent) - 1`` is cut to 16 bits: with 16 and more it is all ones, that is -1. The
    remainder is then the value itself, and what it is compared with is -1, or 0 below zero.
    """
    if exponent < 16:
        return rounding_divide_by_pot(value, exponent)
    remainder, threshold = value, np.where(value < 0, 0, -1)
    return (value >> 16) + (remainder > threshold)


def _multiplier_16bit(real: np.float32) -> tuple[int, int]:
    """Return a Q0.15 mantissa and a shift, from the Q0.31 mantissa."""
    mantissa, shift = quantize_multiplier(float(real))
    if mantissa >= (1 << 31) - 1 - (1 << 15):
        return (1 << 15) - 1, shift
    return (mantissa + (1 << 15)) >> 16, shift


def negative(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """NEG. The kernel negates the stored bytes modulo 256 and looks at no quantisation."""
    return np.negative(x)


def exponential(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """EXP."""
    with np.errstate(over="ignore"):
        return _by_table(x, np.exp, x_scale, x_zero_point, out_scale, out_zero_point)


def logarithm(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """LOG, natural; numbers without a logarithm give the least output."""
    exists = x.astype(np.int64) > x_zero_point

    def log(real: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.log(np.where(real > 0, real, 1.0))

    value = _by_table(x, log, x_scale, x_zero_point, out_scale, out_zero_point)
    return np.where(exists, value, np.int8(INT8_MIN))


def square_root(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """SQRT. The kernel converts to an integer by truncation; below zero it stops, here 0 counts."""
    steps = np.maximum(x.astype(np.int64) - x_zero_point, 0).astype(np.float32)
    root = np.sqrt(np.float32(x_scale) * steps) / np.float32(out_scale)
    return to_int8(root.astype(np.float32).astype(np.int64) + out_zero_point)


def inverse_square_root(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """RSQRT, in fixed point. At zero the greatest output; below zero, where it stops, the same."""
    product = np.float32(np.sqrt(np.float32(x_scale)) * np.float32(out_scale))
    mantissa, shift = quantize_multiplier(1.0 / float(product))
    one = np.ones(1, np.int64)
    table = np.full(256, INT8_MAX, np.int64)
    for code in range(x_zero_point + 1, INT8_MAX + 1):
        root, root_shift = _newton_inverse_square_root(code - x_zero_point)
        # 20 fractional bits in between.
        between = multiply_by_quantized_multiplier(one, root, root_shift + 20)
        scaled = multiply_by_quantized_multiplier(between, mantissa, shift - 20)
        table[code - INT8_MIN] = scaled[0] + out_zero_point
    return to_int8(table[x.astype(np.int64) - INT8_MIN])


@cache
def _newton_inverse_square_root(value: int) -> tuple[int, int]:
    """Return a Q0.31 mantissa and a shift (left positive) of ``value ** -0.5``, 1 to 255."""
    if value == 1:
        return (1 << 31) - 1, 0

    def times(a: int, b: int) -> int:
        product = saturating_rounding_doubling_high_mul(np.array([a], np.int64), b)
        return int(product[0])

    def shifted(a: int, bits: int) -> int:
        return int(saturate(np.array([a << bits], np.int64), 32)[0])

    # The number as Q3.28 in [1, 4), by an even power of two.
    even = 0
    while value << (even + 2) < 1 << 30:
        even += 2
    scaled = value << even
    guess, half_of_it = 1 << 28, int(rounding_divide_by_pot(np.array([scaled >> 1]), 1)[0])
    for _ in range(5):
        cube = shifted(times(times(guess, guess), guess), 6)
        guess = shifted(times(3 << 27, guess) - times(half_of_it, cube), 3)
    mantissa = times(guess, 1518500250)
    right = 11 - even // 2
    return (mantissa << -right, 0) if right < 0 else (mantissa, -right)


def elu(
    x: Int8, *, x_scale: float, x_zero_point: int, out_scale: float, out_zero_point: int
) -> Int8:
    """ELU with a slope of 1. Only the default kernels have it, not the reference ones."""

    def function(real: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(real < 0, np.expm1(real), real)

    return _by_table(x, function, x_scale, x_zero_point, out_scale, out_zero_point)


def gelu(
    x: Int8,
    *,
    x_scale: float,
    x_zero_point: int,
    out_scale: float,
    out_zero_point: int,
    approximate: bool = False,
) -> Int8:
    """GELU: x times the normal distribution's integral, exact or by tanh, in float32 throughout."""
    single = np.float32

    def function(real: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        value = real.astype(single)
        if approximate:
            cubic = single(0.044715) * value * value * value
            inner = single(math.sqrt(2 / math.pi)) * (value + cubic)
            part = np.tanh(inner.astype(np.float64))
        else:
            part = np.array([math.erf(v) for v in (value * single(math.sqrt(0.5))).tolist()])
        result = single(0.5) * value * (single(1) + part.astype(single))
        return result.astype(np.float64)

    return _by_table(x, function, x_scale, x_zero_point, out_scale, out_zero_point)
