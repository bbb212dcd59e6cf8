"""The int8 softmax of the TensorFlow Lite reference kernel, in fixed point.

Sources: TensorFlow Lite ``reference/softmax.h`` for the operator, gemmlowp
``fixedpoint/fixedpoint.h`` for the exponential and the reciprocal.

For each row::

    diff[i] = x[i] - max(x)                                          -255 .. 0
    e[i]    = exp(diff[i] * scale * beta)  in Q0.31, 0 if diff < diff_min
    sum     = sum of e[i] / 2**12, rounded                           Q12.19
    r, n    = reciprocal(sum)              1 / sum = r * 2**-n       Q0.31
    y[i]    = round(r * e[i] * 2**-(n + 23)) - 128
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from celosia.sim.golden.fixed import (
    INT32_MAX,
    Int64,
    quantize_multiplier,
    rounding_divide_by_pot,
    saturate,
    saturating_rounding_doubling_high_mul,
    to_int8,
    truncating_divide,
    wrap_int32,
)

__all__ = [
    "exp_on_negative_values",
    "softmax",
    "softmax_exp_table",
    "softmax_reciprocal",
    "softmax_scaling",
]

_SCALED_DIFF_INTEGER_BITS = 5  # the exponential takes Q5.26
_ACCUMULATION_INTEGER_BITS = 12  # the sum of exponentials is Q12.19

# Constants in Q0.31 (the first four) and Q2.29: round(real * 2**31) and round(real * 2**29).
_EXP_MINUS_ONE_EIGHTH = 1895147668
_ONE_THIRD = 715827883
_ONE_EIGHTH = 1 << 28
# exp(-2**k) for k = -2 .. 4, the steps of the exponent that the interval does not cover
_EXP_STEPS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)
_Q2_48_OVER_17 = 1515870810
_Q2_MINUS_32_OVER_17 = -1010580540
_Q2_ONE = 1 << 29


def softmax_scaling(scale: float, beta: float = 1.0) -> tuple[int, int, int]:
    """Return how a difference of two inputs becomes the Q5.26 argument of the exponential.

    Parameters
    ----------
    scale
        Scale of the softmax's input.
    beta
        The operator's `beta`.

    Returns
    -------
    mantissa, shift : int
        The multiplier: argument = high_mul(diff << shift, mantissa).
    diff_min : int
        Differences below this one (it is negative or zero) count as an exponential of 0.
    """
    real = min(
        float(np.float32(beta))
        * float(np.float32(scale))
        * (1 << (31 - _SCALED_DIFF_INTEGER_BITS)),
        float((1 << 31) - 1),
    )
    if real <= 1:
        raise ValueError(f"softmax input scale {scale} times beta {beta} is too small")
    mantissa, shift = quantize_multiplier(real)
    radius = ((1 << _SCALED_DIFF_INTEGER_BITS) - 1) * 2.0 ** (31 - _SCALED_DIFF_INTEGER_BITS)
    return mantissa, shift, -math.floor(radius / 2.0**shift)


def _exp_between_minus_one_quarter_and_zero(a: Int64) -> Int64:
    """exp(a) in Q0.31 for a in [-1/4, 0): a Taylor series of degree four around -1/8."""
    mul = saturating_rounding_doubling_high_mul
    x = a + _ONE_EIGHTH
    x2 = mul(x, x)
    x3 = mul(x2, x)
    x4_over_4 = rounding_divide_by_pot(mul(x2, x2), 2)
    tail = rounding_divide_by_pot(mul(x4_over_4 + x3, _ONE_THIRD) + x2, 1)
    return _EXP_MINUS_ONE_EIGHTH + mul(_EXP_MINUS_ONE_EIGHTH, x + tail)


def exp_on_negative_values(a: npt.ArrayLike) -> Int64:
    """Return exp(a) in Q0.31 for arguments a <= 0 in Q5.26.

    The argument is cut into a part in [-1/4, 0), for the polynomial, and a sum of powers of
    two, each of which multiplies the result by a constant.  exp(0) is 2**31 - 1.
    """
    a = np.asarray(a, np.int64)
    fractional_bits = 31 - _SCALED_DIFF_INTEGER_BITS
    quarter = 1 << (fractional_bits - 2)
    part = (a & (quarter - 1)) - quarter
    result = _exp_between_minus_one_quarter_and_zero(part << _SCALED_DIFF_INTEGER_BITS)
    remainder = part - a
    for power, constant in _EXP_STEPS:
        bit = (remainder >> (fractional_bits + power)) & 1
        stepped = saturating_rounding_doubling_high_mul(result, constant)
        result = np.where(bit == 1, stepped, result)
    return np.where(a == 0, INT32_MAX, result)


def softmax_exp_table(scale: float, beta: float = 1.0) -> npt.NDArray[np.int32]:
    """Return the exponential of every possible difference.

    Parameters
    ----------
    scale, beta
        As for :func:`softmax_scaling`.

    Returns
    -------
    numpy.ndarray
        int32[256], Q0.31: entry d is exp(-d * scale * beta), and 0 from where the reference
        leaves an element out of the sum (-d < diff_min).
    """
    mantissa, shift, diff_min = softmax_scaling(scale, beta)
    diff = -np.arange(256, dtype=np.int64)
    counted = diff >= diff_min
    # Differences left out would overflow the shift; they are never computed.
    shifted = np.where(counted, diff, 0) << shift
    argument = saturating_rounding_doubling_high_mul(shifted, mantissa)
    return np.where(counted, exp_on_negative_values(argument), 0).astype(np.int32)


def softmax_reciprocal(sum_of_exps: int) -> tuple[int, int]:
    """Return the reciprocal of a sum of exponentials.

    Parameters
    ----------
    sum_of_exps
        Q12.19, positive.

    Returns
    -------
    scale : int
        Q0.31, in [2**30, 2**31).
    num_bits_over_unit : int
        1 / sum = scale * 2**-(31 + num_bits_over_unit).

    Notes
    -----
    The sum is normalised to 1 + f with f in [0, 1) and three Newton-Raphson steps find
    1 / (1 + f), starting from 48/17 - 32/17 * (1 + f) / 2.
    """
    if not 0 < sum_of_exps < 1 << 32:
        raise ValueError(f"the sum of exponentials must be a positive 32-bit number: {sum_of_exps}")
    mul = saturating_rounding_doubling_high_mul
    leading_zeros = 32 - sum_of_exps.bit_length()
    fraction = (sum_of_exps << leading_zeros) - (1 << 31)
    half_denominator = truncating_divide(fraction + INT32_MAX + 1, 2)  # half of 1 + f, rounded up
    x = wrap_int32(_Q2_48_OVER_17 + mul(half_denominator, _Q2_MINUS_32_OVER_17))
    for _ in range(3):
        one_minus = _Q2_ONE - mul(half_denominator, x)
        # The product of two Q2.29 is Q4.27: shift it back.
        x = wrap_int32(x + saturate(mul(x, one_minus) << 2, 32))
    return int(saturate(x << 1, 32)), _ACCUMULATION_INTEGER_BITS - leading_zeros


def softmax(x: npt.NDArray[np.int8], *, x_scale: float, beta: float = 1.0) -> npt.NDArray[np.int8]:
    """SOFTMAX over the last axis.

    Parameters
    ----------
    x
        int8, any shape.
    x_scale
        Scale of `x`; its zero point does not matter.
    beta
        The operator's `beta`.

    Returns
    -------
    numpy.ndarray
        int8 with scale 1/256 and zero point -128, whatever the output tensor claims.
    """
    table = softmax_exp_table(x_scale, beta).astype(np.int64)
    rows = x.reshape(-1, x.shape[-1]).astype(np.int64)
    diffs = rows.max(axis=1, keepdims=True) - rows
    exps = table[diffs]
    sums = rounding_divide_by_pot(exps, _ACCUMULATION_INTEGER_BITS).sum(axis=1)
    out = np.empty(rows.shape, np.int8)
    for row, (row_exps, row_sum) in enumerate(zip(exps, sums, strict=True)):
        scale, bits_over_unit = softmax_reciprocal(int(row_sum))
        product = saturating_rounding_doubling_high_mul(scale, row_exps)
        out[row] = to_int8(rounding_divide_by_pot(product, bits_over_unit + 31 - 8) - 128)
    return out.reshape(x.shape)
