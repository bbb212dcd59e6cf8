"""Quantisation parameters, computed exactly as the TFLite reference kernels compute them.

The results must equal the reference bit for bit, so the *precision of every intermediate* follows
the C++: where TFLite multiplies two `float`, so does this module.  Sources: TensorFlow Lite
`kernels/internal/quantization_util.cc`, `kernels/kernel_util.cc`, `kernels/add.cc`,
`kernels/fully_connected.cc` and `kernels/internal/common.h`; the fixed-point primitives are
gemmlowp's (`fixedpoint/fixedpoint.h`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from celosia.hw.contract.isa import ADD_LEFT_SHIFT
from celosia.sw.compiler.ir import Float32Array, Int8Array, Int32Array

__all__ = [
    "AddParameters",
    "QuantizationError",
    "activation_range",
    "add_parameters",
    "channel_multipliers",
    "int32_wrap",
    "multiply_by_quantized_multiplier",
    "product_scale",
    "quantize_multiplier",
    "rounding_divide_by_pot",
    "saturating_rounding_doubling_high_mul",
    "tflite_round",
]


class QuantizationError(ValueError):
    """A combination of quantisation parameters that the reference kernels do not define."""


INT8_MIN, INT8_MAX = -128, 127
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
MAX_LEFT_SHIFT = 30
"""The largest left shift the reference defines: more would shift a 32-bit one out."""


def tflite_round(value: float) -> int:
    """Round to the nearest integer, halves away from zero (`std::round`).

    Raises
    ------
    QuantizationError
        If `value` is not finite.
    """
    if not math.isfinite(value):
        raise QuantizationError(f"{value} cannot be rounded to an integer")
    magnitude = math.floor(abs(value))
    # Adding 0.5 first would round 0.49999999999999994 up.
    if abs(value) - magnitude >= 0.5:
        magnitude += 1
    return magnitude if value >= 0 else -magnitude


def int32_wrap(value: int) -> int:
    """Reduce an integer modulo 2**32 to the int32 range."""
    return ((value + (1 << 31)) & 0xFFFF_FFFF) - (1 << 31)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Split a real multiplier into a Q0.31 significand and a power of two.

    Parameters
    ----------
    real : float
        The multiplier, >= 0, in double precision.

    Returns
    -------
    multiplier : int
        In [2**30, 2**31), or 0 when every result would be 0 (`real` is 0 or below about 2**-32).
    shift : int
        ``real ~ multiplier / 2**31 * 2**shift``; >= -31.

    Raises
    ------
    QuantizationError
        If `real` is negative, not finite, or needs a shift above 30, which the reference leaves
        undefined.
    """
    if not math.isfinite(real) or real < 0:
        raise QuantizationError(f"multiplier {real} is not a finite non-negative number")
    if real == 0:
        return 0, 0
    significand, shift = math.frexp(real)
    multiplier = tflite_round(significand * (1 << 31))
    if multiplier == 1 << 31:
        multiplier //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    if shift > MAX_LEFT_SHIFT:
        raise QuantizationError(f"multiplier {real:g} needs a left shift of {shift} bits")
    return multiplier, shift


def product_scale(scale_a: float, scale_b: float, output_scale: float, *, single: bool) -> float:
    """Return what brings a sum of products to the output's steps, in double precision.

    Parameters
    ----------
    scale_a, scale_b, output_scale : float
        The file's float32 values.
    single : bool
        The product of the first two is rounded to single precision
        (`GetQuantizedConvolutionMultipler` without a bias).
    """
    if single:
        return float(np.float32(scale_a) * np.float32(scale_b)) / float(output_scale)
    return float(scale_a) * float(scale_b) / float(output_scale)


def channel_multipliers(
    input_scale: float,
    filter_scales: Float32Array,
    output_scale: float,
    channels: int,
    *,
    single: bool = False,
) -> tuple[Int32Array, Int8Array]:
    """Requantisation of a convolution's output channels.

    Parameters
    ----------
    input_scale, output_scale : float
        The file's float32 values.
    filter_scales : ndarray of float32, shape [1] or [channels]
        One scale is used for every channel.
    channels : int
        Output channels.
    single : bool
        As of `product_scale`.

    Returns
    -------
    multiplier : ndarray of int32, shape [channels]
    shift : ndarray of int8, shape [channels]

    Raises
    ------
    QuantizationError
        See `quantize_multiplier`.
    """
    # Double products of the float32 scales, in this order: PopulateConvolutionQuantizationParams.
    pairs = [
        quantize_multiplier(product_scale(input_scale, scale, output_scale, single=single))
        for scale in filter_scales
    ]
    return _broadcast(pairs, channels)


def _broadcast(pairs: Sequence[tuple[int, int]], channels: int) -> tuple[Int32Array, Int8Array]:
    multiplier = np.array([m for m, _ in pairs], np.int32)
    shift = np.array([s for _, s in pairs], np.int8)
    return (
        np.ascontiguousarray(np.broadcast_to(multiplier, (channels,))),
        np.ascontiguousarray(np.broadcast_to(shift, (channels,))),
    )


def activation_range(activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """Clamp of a fused activation (`CalculateActivationRangeQuantized`).

    Parameters
    ----------
    activation : str
        ``NONE``, ``RELU``, ``RELU6`` or ``RELU_N1_TO_1``.
    scale, zero_point : float, int
        Output quantisation.

    Returns
    -------
    tuple of int
        act_min and act_max, int8 values.

    Raises
    ------
    QuantizationError
        For another activation, or when the range is empty or its bounds overflow.
    """

    def quantize(real: float) -> int:
        with np.errstate(over="ignore"):
            ratio = float(np.float32(real) / np.float32(scale))
        return zero_point + tflite_round(ratio)

    bounds: dict[str, tuple[float | None, float | None]] = {
        "NONE": (None, None),
        "RELU": (0.0, None),
        "RELU6": (0.0, 6.0),
        "RELU_N1_TO_1": (-1.0, 1.0),
    }
    if activation not in bounds:
        raise QuantizationError(f"fused activation {activation} has no int8 clamp")
    low, high = bounds[activation]
    act_min = INT8_MIN if low is None else max(INT8_MIN, quantize(low))
    act_max = INT8_MAX if high is None else min(INT8_MAX, quantize(high))
    if not INT8_MIN <= act_min <= act_max <= INT8_MAX:
        raise QuantizationError(
            f"{activation} leaves no int8 value between {act_min} and {act_max}"
        )
    return act_min, act_max


@dataclass(frozen=True)
class AddParameters:
    """Multipliers and shifts of ADD and SUB; names as in `celosia.sw.compiler.ir.AddOp`."""

    multiplier_a: int
    shift_a: int
    multiplier_b: int
    shift_b: int
    multiplier_out: int
    shift_out: int
    left_shift: int = ADD_LEFT_SHIFT


def add_parameters(
    scale_a: float, scale_b: float, scale_out: float, *, subtract: bool = False
) -> AddParameters:
    """Rescaling of the int8 ADD kernel, and of SUB with a negated second multiplier.

    Parameters
    ----------
    scale_a, scale_b, scale_out : float
        The file's float32 values.
    subtract : bool
        For SUB, which is the same kernel with ``-multiplier_b``.

    Raises
    ------
    QuantizationError
        If a multiplier is not below 1 (the reference aborts on such a model).
    """
    twice_max_scale = 2.0 * max(scale_a, scale_b)
    reals = (
        scale_a / twice_max_scale,
        scale_b / twice_max_scale,
        twice_max_scale / ((1 << ADD_LEFT_SHIFT) * scale_out),
    )
    pairs = [quantize_multiplier(real) for real in reals]
    for real, (_, shift) in zip(reals, pairs, strict=True):
        if not 0 < real < 1 or shift > 0:
            raise QuantizationError(f"rescaling by {real:g} is outside (0, 1)")
    (mult_a, shift_a), (mult_b, shift_b), (mult_out, shift_out) = pairs
    return AddParameters(
        multiplier_a=mult_a,
        shift_a=shift_a,
        multiplier_b=-mult_b if subtract else mult_b,
        shift_b=shift_b,
        multiplier_out=mult_out,
        shift_out=shift_out,
    )


def saturating_rounding_doubling_high_mul(a: int, b: int) -> int:
    """High half of twice the product of two int32, rounded to nearest; gemmlowp's SRDHM."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    # C's division truncates towards zero, so halves go up for both signs.
    if product >= 0:
        return (product + (1 << 30)) >> 31
    return -((-(product + 1 - (1 << 30))) >> 31)


def rounding_divide_by_pot(value: int, exponent: int) -> int:
    """Divide an int32 by 2**exponent, halves away from zero; gemmlowp's RoundingDivideByPOT."""
    mask = (1 << exponent) - 1
    remainder = value & mask
    threshold = (mask >> 1) + (1 if value < 0 else 0)
    return (value >> exponent) + (1 if remainder > threshold else 0)


def multiply_by_quantized_multiplier(value: int, multiplier: int, shift: int) -> int:
    """Scale an int32 with double rounding (TFLite `MultiplyByQuantizedMultiplier`)."""
    shifted = int32_wrap(value << max(shift, 0))
    high = saturating_rounding_doubling_high_mul(shifted, multiplier)
    return rounding_divide_by_pot(high, max(-shift, 0))
