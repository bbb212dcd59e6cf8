"""Fixed-point arithmetic of the TensorFlow Lite integer kernels, on numpy arrays.

Every function takes and returns int64 arrays (or scalars) that hold values of the width named;
int64 is only room to compute in.  Sources: gemmlowp ``fixedpoint/fixedpoint.h`` for the
roundings, TensorFlow Lite ``quantization_util.cc`` and ``common.h`` for the multipliers.

Notation: Qm.n is a signed number with m integer and n fractional bits, so Q0.31 is an int32
that stands for its value divided by 2**31.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "ACTIVATIONS",
    "INT32_MAX",
    "INT8_MAX",
    "INT8_MIN",
    "Int64",
    "Rounding",
    "activation_range",
    "divide_round_half_away",
    "multiply_by_quantized_multiplier",
    "quantize_multiplier",
    "round_half_away",
    "rounding_divide_by_pot",
    "saturate",
    "saturating_rounding_doubling_high_mul",
    "to_int8",
    "truncating_divide",
    "wrap_int32",
]

Int64 = npt.NDArray[np.int64]
Rounding = Literal["double", "single", "single_away"]

INT8_MIN, INT8_MAX = -128, 127
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")


def saturate(x: npt.ArrayLike, bits: int) -> Int64:
    """Clamp to the range of a signed integer of `bits` bits."""
    limit = 1 << (bits - 1)
    return np.clip(np.asarray(x, np.int64), -limit, limit - 1)


def wrap_int32(x: npt.ArrayLike) -> Int64:
    """Keep the low 32 bits as a signed number, which is what an int32 accumulator does."""
    return ((np.asarray(x, np.int64) + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def to_int8(x: npt.ArrayLike, low: int = INT8_MIN, high: int = INT8_MAX) -> npt.NDArray[np.int8]:
    """Clamp to [low, high] and narrow to int8."""
    return np.clip(np.asarray(x, np.int64), low, high).astype(np.int8)


def truncating_divide(x: npt.ArrayLike, divisor: npt.ArrayLike) -> Int64:
    """Divide by a positive integer, rounding towards zero as C does (numpy rounds down)."""
    x = np.asarray(x, np.int64)
    quotient: Int64 = np.sign(x) * (np.abs(x) // np.asarray(divisor, np.int64))
    return quotient


def divide_round_half_away(x: npt.ArrayLike, divisor: npt.ArrayLike) -> Int64:
    """Divide by a positive integer and round to nearest, halves away from zero."""
    x = np.asarray(x, np.int64)
    half = np.asarray(divisor, np.int64) // 2
    return truncating_divide(np.where(x > 0, x + half, x - half), divisor)


def round_half_away(x: float) -> int:
    """Round to the nearest integer, halves away from zero (C's ``round``)."""
    whole = math.floor(abs(x))
    return int(math.copysign(whole + (abs(x) - whole >= 0.5), x))


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Split a real multiplier into a Q0.31 mantissa and a power of two.

    Parameters
    ----------
    real
        The multiplier.

    Returns
    -------
    mantissa : int
        Its magnitude is in [2**30, 2**31), or 0 when that of `real` is below about 2**-32.
    shift : int
        real = mantissa * 2**(shift - 31); positive shifts left.

    Raises
    ------
    ValueError
        If `real` is infinite or not a number.
    """
    if not math.isfinite(real):
        raise ValueError(f"a quantised multiplier must be finite, got {real}")
    fraction, shift = math.frexp(real)
    mantissa = round_half_away(fraction * (1 << 31))
    if abs(mantissa) == 1 << 31:  # rounded up to 1.0: renormalise
        mantissa //= 2
        shift += 1
    if shift < -31:  # every bit would be shifted out
        return 0, 0
    return mantissa, shift


def saturating_rounding_doubling_high_mul(
    a: npt.ArrayLike, b: npt.ArrayLike, bits: int = 32
) -> Int64:
    """Return a * b / 2**(bits - 1), rounded to nearest, in `bits` bits.

    A half rounds towards plus infinity.  The one product that does not fit,
    minimum * minimum, saturates (Arm's SQRDMULH).
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    half = 1 << (bits - 2)
    # C divides towards zero; the smaller nudge below zero makes that a round-half-up.
    nudged = np.where(product >= 0, product + half, product + 1 - half)
    return saturate(truncating_divide(nudged, 1 << (bits - 1)), bits)


def rounding_divide_by_pot(x: npt.ArrayLike, exponent: npt.ArrayLike) -> Int64:
    """Return x / 2**exponent rounded to nearest, halves away from zero."""
    x = np.asarray(x, np.int64)
    exponent = np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    quotient: Int64 = (x >> exponent) + ((x & mask) > threshold)
    return quotient


def multiply_by_quantized_multiplier(
    x: npt.ArrayLike,
    mantissa: npt.ArrayLike,
    shift: npt.ArrayLike,
    rounding: Rounding = "double",
) -> Int64:
    """Return round(x * mantissa * 2**(shift - 31)) as the reference kernels round it.

    Parameters
    ----------
    x
        int32 values.
    mantissa, shift
        From :func:`quantize_multiplier`; scalars, or arrays that broadcast against `x`.
    rounding
        "double": doubling high multiply with rounding, then a rounding right shift with halves
        away from zero; a left shift is applied to `x` first, and wraps at 32 bits.
        "single": one rounding of the whole product, halves up (what the library does when it is
        built with TFLITE_SINGLE_ROUNDING; no operator of the named reference does).
        "single_away": one rounding of the whole product, halves away from zero.

    Returns
    -------
    numpy.ndarray
        int64 array of int32 values.
    """
    x = np.asarray(x, np.int64)
    mantissa = np.asarray(mantissa, np.int64)
    shift = np.asarray(shift, np.int64)
    if rounding != "double":
        product, half = x * mantissa, np.int64(1) << (30 - shift)
        if rounding == "single_away":
            half = half - (product < 0)
        return wrap_int32((product + half) >> (31 - shift))
    shifted = wrap_int32(x << np.maximum(shift, 0))
    high = saturating_rounding_doubling_high_mul(shifted, mantissa)
    return rounding_divide_by_pot(high, np.maximum(-shift, 0))


def activation_range(activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """Return the int8 bounds that a fused activation puts on an output.

    Parameters
    ----------
    activation
        "NONE", "RELU", "RELU_N1_TO_1" or "RELU6"; also "RELU_0_TO_1", which is an operator only.
    scale, zero_point
        Quantisation of the output.
    """
    bounds: dict[str, tuple[float | None, float | None]] = {
        "NONE": (None, None),
        "RELU": (0.0, None),
        "RELU_0_TO_1": (0.0, 1.0),
        "RELU_N1_TO_1": (-1.0, 1.0),
        "RELU6": (0.0, 6.0),
    }
    if activation not in bounds:
        raise ValueError(f"activation {activation!r} is not one of {', '.join(bounds)}")

    def quantised(value: float) -> int:
        return zero_point + round_half_away(float(_f32(value) / _f32(scale)))

    low, high = bounds[activation]
    return (
        INT8_MIN if low is None else max(INT8_MIN, quantised(low)),
        INT8_MAX if high is None else min(INT8_MAX, quantised(high)),
    )


def _f32(value: Any) -> np.float32:
    """Scales are float32 in the file, and some kernels do their preparation in float32."""
    return np.float32(value)
