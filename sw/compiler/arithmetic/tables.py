"""Tables of unary int8 operators and of softmax, from the reference kernels' definitions.

Each function evaluates the operator for all 256 inputs, in the reference's own arithmetic.
Sources: TensorFlow Lite `kernels/activations.cc`,
`kernels/elementwise.cc`, `kernels/internal/reference/leaky_relu.h`,
`.../hard_swish.h`, `.../requantize.h`, `.../softmax.h` and gemmlowp `fixedpoint/fixedpoint.h`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, pi, sqrt

import numpy as np
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    INT32_MIN,
    QuantizationError,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
    tflite_round,
)
from celosia.sw.compiler.ir import Float32Array, Int8Array, Int32Array

__all__ = [
    "abs_table",
    "elu_table",
    "exp_table",
    "exponential_table",
    "gelu_table",
    "hard_swish_table",
    "joining_table",
    "leaky_relu_table",
    "log_table",
    "logistic_table",
    "negate_table",
    "relu_table",
    "requantize_table",
    "rsqrt_table",
    "sqrt_table",
    "table_from",
    "tanh_table",
]

SOFTMAX_INTEGER_BITS = 5
"""Integer bits of the scaled difference in softmax: a Q5.26 number."""


def table_from(function: Callable[[int], int]) -> Int8Array:
    """Tabulate an integer function.

    Parameters
    ----------
    function : callable
        From an int8 value to an integer, which is clamped to int8.

    Returns
    -------
    ndarray of int8, shape [256]
        Indexed by ``value & 0xFF``.
    """
    values = [function(i if i < 128 else i - 256) for i in range(256)]
    return np.clip(np.array(values, np.int64), INT8_MIN, INT8_MAX).astype(np.int8)


def requantize_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """QUANTIZE from int8 to int8.

    Raises
    ------
    QuantizationError
        See `quantize_multiplier`; the same holds for the other tables.
    """
    multiplier, shift = quantize_multiplier(float(scale_in) / float(scale_out))
    return table_from(
        lambda x: multiply_by_quantized_multiplier(x - zero_in, multiplier, shift) + zero_out
    )


def joining_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """CONCATENATION of uint8 tensors, here less 128; `ConcatenationWithScaling`, in float32."""
    scale = np.float32(scale_in) * (np.float32(1) / np.float32(scale_out))
    bias = np.float32(-(zero_in + 128)) * scale
    return table_from(lambda x: tflite_round(float(np.float32(x + 128) * scale + bias)) + zero_out)


def abs_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """ABS; between equal scales nothing is rescaled."""
    if np.float32(scale_in) == np.float32(scale_out):
        return table_from(lambda x: abs(x - zero_in) + zero_out)
    multiplier, shift = quantize_multiplier(_float_ratio(scale_in, scale_out))
    return table_from(
        lambda x: multiply_by_quantized_multiplier(abs(x - zero_in), multiplier, shift) + zero_out
    )


def negate_table() -> Int8Array:
    """NEG: the kernel negates bytes, whatever scales and zero points say; -128 stays."""
    return table_from(lambda x: x if x == INT8_MIN else -x)


def exponential_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """EXP in single precision."""
    return _float_table(_expf, scale_in, zero_in, scale_out, zero_out)


def log_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """LOG in single precision; -128 where the logarithm does not exist."""

    def log(x: Float32Array) -> Float32Array:
        lowest = np.float32((INT8_MIN - zero_out) * scale_out)
        positive = np.where(x > 0, x, np.float32(1)).astype(np.float64)
        return np.where(x > 0, np.log(positive).astype(np.float32), lowest)

    return _float_table(log, scale_in, zero_in, scale_out, zero_out)


def sqrt_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """SQRT in single precision, cut off and not rounded; below 0 as at 0."""
    codes = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int32)
    real = np.float32(scale_in) * np.maximum(codes - zero_in, 0).astype(np.float32)
    steps = (np.sqrt(real) / np.float32(scale_out)).astype(np.float32)
    whole = np.minimum(np.floor(steps.astype(np.float64)), 2.0**30).astype(np.int64)
    table: Int8Array = np.clip(whole + zero_out, INT8_MIN, INT8_MAX).astype(np.int8)
    return table


def rsqrt_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """RSQRT in fixed point; the greatest value at 0 and below, where there is none."""
    real = np.float32(np.sqrt(np.float32(scale_in)) * np.float32(scale_out))
    multiplier, shift = quantize_multiplier(1.0 / float(real))

    def rsqrt(x: int) -> int:
        if x <= zero_in:
            return INT8_MAX
        root, root_shift = _inverse_square_root(x - zero_in)
        value = multiply_by_quantized_multiplier(1, root, root_shift + _RSQRT_SHIFT)
        return multiply_by_quantized_multiplier(value, multiplier, shift - _RSQRT_SHIFT) + zero_out

    return table_from(rsqrt)


_RSQRT_SHIFT = 20
"""Bits that RSQRT keeps between its two multiplications."""


def _inverse_square_root(value: int) -> tuple[int, int]:
    """Multiplier and shift of 1 / sqrt(value) for 1 <= value <= 255.

    Newton's iteration in Q3.28, from 1: `GetInvSqrtQuantizedMultiplierExp`.
    """
    if value == 1:
        return INT32_MAX, 0
    pairs = (32 - value.bit_length()) // 2 - 1
    shift = 11 - pairs
    value <<= 2 * pairs
    high = saturating_rounding_doubling_high_mul
    half = rounding_divide_by_pot(value >> 1, 1)
    x = 1 << 28
    for _ in range(5):
        cube = _saturating_shift(high(high(x, x), x), 6)
        x = _saturating_shift(high(3 << 27, x) - high(half, cube), 3)
    x = high(x, 1518500250)  # sqrt(2) / 2 in Q0.31
    return (x << -shift, 0) if shift < 0 else (x, -shift)


def _saturating_shift(value: int, bits: int) -> int:
    return min(max(value << bits, INT32_MIN), INT32_MAX)


def elu_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """ELU in single precision: exp(x) - 1 below 0."""

    def elu(x: Float32Array) -> Float32Array:
        return np.where(x < 0, np.expm1(x.astype(np.float64)).astype(np.float32), x)

    return _float_table(elu, scale_in, zero_in, scale_out, zero_out)


def gelu_table(
    scale_in: float, zero_in: int, scale_out: float, zero_out: int, *, approximate: bool
) -> Int8Array:
    """GELU in single precision, by the error function or by the hyperbolic tangent."""
    one, half = np.float32(1), np.float32(0.5)

    def by_erf(x: Float32Array) -> Float32Array:
        scaled = (x * np.float32(sqrt(0.5))).astype(np.float64)
        error = np.array([erf(v) for v in scaled]).astype(np.float32)
        return (half * x * (one + error)).astype(np.float32)

    def by_tanh(x: Float32Array) -> Float32Array:
        inner = np.float32(sqrt(2 / pi)) * (x + np.float32(0.044715) * x * x * x)
        return (half * x * (one + np.tanh(inner.astype(np.float64)).astype(np.float32))).astype(
            np.float32
        )

    function = by_tanh if approximate else by_erf
    return _float_table(function, scale_in, zero_in, scale_out, zero_out)


_RELU_BOUNDS: dict[str, tuple[float, float | None]] = {
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


def relu_table(
    kind: str, scale_in: float, zero_in: int, scale_out: float, zero_out: int
) -> Int8Array:
    """RELU, RELU6, RELU_N1_TO_1 or RELU_0_TO_1 as an operator of its own."""
    # float / float, then widened: ReluPrepare.
    multiplier, shift = quantize_multiplier(_float_ratio(scale_in, scale_out))
    low_real, high_real = _RELU_BOUNDS[kind]
    low = max(INT8_MIN, zero_out + tflite_round(_float_ratio(low_real, scale_out)))
    high = INT8_MAX
    if high_real is not None:
        high = min(INT8_MAX, zero_out + tflite_round(_float_ratio(high_real, scale_out)))

    def relu(x: int) -> int:
        scaled = multiply_by_quantized_multiplier(x - zero_in, multiplier, shift) + zero_out
        return min(max(scaled, low), high)

    return table_from(relu)


def leaky_relu_table(
    alpha: float, scale_in: float, zero_in: int, scale_out: float, zero_out: int
) -> Int8Array:
    """LEAKY_RELU with slope `alpha` (float32) below zero."""
    product = np.float32(scale_in) * np.float32(alpha)
    slope = float(product / np.float32(scale_out))
    multiplier_alpha, shift_alpha = quantize_multiplier(abs(slope))
    multiplier, shift = quantize_multiplier(_float_ratio(scale_in, scale_out))

    def leaky_relu(x: int) -> int:
        centred = x - zero_in
        if centred >= 0:
            return multiply_by_quantized_multiplier(centred, multiplier, shift) + zero_out
        scaled = multiply_by_quantized_multiplier(centred, multiplier_alpha, shift_alpha)
        # A negative slope negates the rounded product: a negated multiplier would move the halves.
        return zero_out - scaled if slope < 0 else zero_out + scaled

    return table_from(leaky_relu)


def logistic_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """LOGISTIC: 1 / (1 + exp(-x)) in single precision."""

    def logistic(x: Float32Array) -> Float32Array:
        with np.errstate(over="ignore"):  # exp(-x) = inf gives the right limit, 0
            return (np.float32(1) / (np.float32(1) + _expf(-x))).astype(np.float32)

    return _float_table(logistic, scale_in, zero_in, scale_out, zero_out)


def tanh_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """TANH in single precision."""
    return _float_table(
        lambda x: np.tanh(x.astype(np.float64)).astype(np.float32),
        scale_in,
        zero_in,
        scale_out,
        zero_out,
    )


def hard_swish_table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    """HARD_SWISH, x * relu6(x + 3) / 6, in the reference's 16-bit fixed point."""
    hires_scale = np.float32(1 / 128) * np.float32(scale_in)
    multiplier, shift = quantize_multiplier(_float_ratio(float(hires_scale), scale_out))
    if shift > 0:
        raise QuantizationError(
            f"output scale {scale_out:g} is too small for input scale {scale_in:g}"
        )
    reluish_scale = np.float32(3) / np.float32(32768)
    reluish_multiplier, reluish_shift = quantize_multiplier(float(hires_scale / reluish_scale))
    multiplier16 = _to_int16_multiplier(multiplier)
    reluish_multiplier16 = _to_int16_multiplier(reluish_multiplier)

    def hard_swish(x: int) -> int:
        hires = (x - zero_in) << 7
        preshift = _srdhm16(hires, multiplier16)
        reluish = hires
        if reluish_shift > 0:
            reluish = _saturate16(reluish << (reluish_shift - 1))
        reluish = _srdhm16(reluish, reluish_multiplier16)
        if reluish_shift > 0:
            reluish = _saturate16(reluish << 1)
        if reluish_shift < 0:
            reluish = _rounding_divide_by_pot16(reluish, -reluish_shift)
        reluish = (reluish + (1 << 15)) >> 1
        product = reluish * preshift
        truncated = product >> 15 if product >= 0 else -(-product >> 15)
        return _rounding_divide_by_pot16(truncated, -shift) + zero_out

    return table_from(hard_swish)


def exp_table(scale_in: float, beta: float) -> tuple[Int32Array, int]:
    """Exponentials of the int8 softmax.

    Parameters
    ----------
    scale_in : float
        Input scale.
    beta : float
        Softmax's beta, > 0.

    Returns
    -------
    table : ndarray of int32, shape [256]
        exp(-d * scale_in * beta) in Q0.31 for d = 0..255; 0 from `cutoff` on.
    cutoff : int
        The first difference the reference leaves out, 1..256.

    Raises
    ------
    QuantizationError
        If the scaled step is not above 2**-26, where the reference aborts.
    """
    integer_bits = SOFTMAX_INTEGER_BITS
    step = min(float(beta) * float(scale_in) * (1 << (31 - integer_bits)), (1 << 31) - 1.0)
    if not step > 1:
        raise QuantizationError(f"beta {beta:g} times input scale {scale_in:g} is too small")
    multiplier, shift = quantize_multiplier_above_one(step)
    # CalculateInputRadius: differences beyond this would overflow Q5.26.
    radius = ((1 << integer_bits) - 1) * (1 << (31 - integer_bits)) // (1 << shift)
    cutoff = min(radius, 255) + 1
    table = np.zeros(256, np.int32)
    for difference in range(cutoff):
        scaled = saturating_rounding_doubling_high_mul(-difference << shift, multiplier)
        table[difference] = exp_on_negative_values(scaled)
    return table, cutoff


def quantize_multiplier_above_one(real: float) -> tuple[int, int]:
    """As `quantize_multiplier` for 1 < real < 2**31, whose shift may reach 31."""
    half, shift = quantize_multiplier(real / 2)
    return half, shift + 1


def exp_on_negative_values(value: int) -> int:
    """Exponential of a Q5.26 number <= 0 as Q0.31 (gemmlowp `exp_on_negative_values`)."""
    if value == 0:
        return INT32_MAX
    fraction_bits = 31 - SOFTMAX_INTEGER_BITS
    one_quarter = 1 << (fraction_bits - 2)
    # value = -remainder + (a number in [-1/4, 0)): the latter by Taylor, the former by factors.
    residue = (value & (one_quarter - 1)) - one_quarter
    result = _exp_around_minus_one_eighth(residue << SOFTMAX_INTEGER_BITS)
    remainder = residue - value
    for exponent, factor in _EXP_FACTORS:
        if remainder & (1 << (fraction_bits + exponent)):
            result = saturating_rounding_doubling_high_mul(result, factor)
    return result


# exp(-2**exponent) in Q0.31; a Q5.26 number has no bit above 2**4.
_EXP_FACTORS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)


def _exp_around_minus_one_eighth(a: int) -> int:
    """Exponential on [-1/4, 0), Q0.31 to Q0.31: Taylor's series around -1/8."""
    exp_minus_one_eighth, one_third = 1895147668, 715827883
    mul, div = saturating_rounding_doubling_high_mul, rounding_divide_by_pot
    x = a + (1 << 28)
    x2 = mul(x, x)
    x3 = mul(x2, x)
    x4 = mul(x2, x2)
    tail = div(mul(div(x4, 2) + x3, one_third) + x2, 1)
    return exp_minus_one_eighth + mul(exp_minus_one_eighth, x + tail)


def _float_table(
    function: Callable[[Float32Array], Float32Array],
    scale_in: float,
    zero_in: int,
    scale_out: float,
    zero_out: int,
) -> Int8Array:
    """Tabulate a real function as `LUTPopulate` does: everything in single precision."""
    codes = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int32)
    real = np.float32(scale_in) * (codes - zero_in).astype(np.float32)
    inverse = np.float32(1) / np.float32(scale_out)
    with np.errstate(over="ignore"):
        scaled = function(real) * inverse
    if not np.all(np.abs(scaled) < 2.0**30):
        raise QuantizationError(f"output scale {scale_out:g} is too small")
    rounded = np.array([tflite_round(float(v)) for v in scaled], np.int64)
    return np.clip(rounded + zero_out, INT8_MIN, INT8_MAX).astype(np.int8)


def _expf(x: Float32Array) -> Float32Array:
    """Correctly rounded single-precision exponential, which the C library's is in practice."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(x.astype(np.float64)).astype(np.float32)


def _float_ratio(numerator: float, denominator: float) -> float:
    """Quotient in single precision."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(numerator) / np.float32(denominator))


def _saturate16(value: int) -> int:
    return min(max(value, -(1 << 15)), (1 << 15) - 1)


def _srdhm16(a: int, b: int) -> int:
    """`saturating_rounding_doubling_high_mul` for int16."""
    if a == b == -(1 << 15):
        return (1 << 15) - 1
    product = a * b
    nudged = product + ((1 << 14) if product >= 0 else 1 - (1 << 14))
    return nudged >> 15 if nudged >= 0 else -(-nudged >> 15)


def _rounding_divide_by_pot16(value: int, exponent: int) -> int:
    """`rounding_divide_by_pot` for int16, whose mask of the remainder has 16 bits.

    From an exponent of 16 on the mask is -1: the quotient is 1 for 0 and above, -1 below.
    """
    if exponent < 16:
        return rounding_divide_by_pot(value, exponent)
    return 1 if value >= 0 else -1


def _to_int16_multiplier(multiplier: int) -> int:
    """Q0.31 to Q0.15, rounded to nearest and saturated (`DownScaleInt32ToInt16Multiplier`)."""
    assert INT32_MIN <= multiplier <= INT32_MAX
    if multiplier >= INT32_MAX - (1 << 15):
        return (1 << 15) - 1
    return (multiplier + (1 << 15)) >> 16
