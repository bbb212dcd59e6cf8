"""A fixed-point multiplier that equals a double-precision scale on every reachable accumulator.

The reference's FULLY_CONNECTED multiplies the accumulator by a *double* and rounds halves away
from zero (measured on `ai-edge-litert` with the reference resolver; its fixed-point parameters
are not used). The NPU has an integer multiplier and rounds halves up. Both are step functions of
the accumulator with at most 255 steps inside the int8 clamp, so they are equal exactly when the
steps are at the same accumulators, which bounds the multiplier from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.quantize import INT32_MAX, quantize_multiplier

__all__ = ["ExactMultiplier", "exact_multiplier", "scale_in_double"]


@dataclass(frozen=True)
class ExactMultiplier:
    """A multiplier and shift for the ``single`` rounding mode, and whether they are exact."""

    multiplier: int
    shift: int
    exact: bool


def scale_in_double(accumulators: npt.NDArray[np.int64], real: float) -> npt.NDArray[np.int64]:
    """Round ``accumulator * real``, halves away from zero: the reference's output stage."""
    product = accumulators.astype(np.float64) * real
    # x +- 0.5 would be inexact just below a half.
    whole = np.trunc(product)
    away = np.abs(product - whole) >= 0.5
    return (whole + np.copysign(away, product)).astype(np.int64)


def exact_multiplier(
    real: float, low: int, high: int, acc_min: int, acc_max: int
) -> ExactMultiplier:
    """Find a multiplier whose single rounding equals `scale_in_double`.

    Parameters
    ----------
    real : float
        The scale, in double precision.
    low, high : int
        Range of results that matter; results beyond may be anything beyond.
    acc_min, acc_max : int
        Reachable accumulators.

    Returns
    -------
    ExactMultiplier
        ``exact`` is False when no 32-bit multiplier will do; then it is the nearest one, whose
        result may be off by one for accumulators within about 1e-7 of a rounding boundary.

    Raises
    ------
    QuantizationError
        See `quantize_multiplier`.
    """
    nominal, shift = quantize_multiplier(real)
    if nominal == 0:
        ends = np.array([acc_min, acc_max], np.int64)
        return ExactMultiplier(0, 0, exact=not np.any(scale_in_double(ends, real)))
    half = 1 << (30 - shift)
    at_least, at_most = 1, INT32_MAX
    for step, first in zip(range(low + 1, high + 1), _first_reaching(real, low, high), strict=True):
        # acc * multiplier >= bound is what makes the rounded result at least `step`.
        bound = (2 * step - 1) * half
        if first <= acc_max:
            acc = max(first, acc_min)
            if acc > 0:
                at_least = max(at_least, -(-bound // acc))
            elif acc < 0:
                at_most = min(at_most, bound // acc)
            elif bound > 0:
                at_most = 0
        if first - 1 >= acc_min:
            acc = min(first - 1, acc_max)
            if acc > 0:
                at_most = min(at_most, (bound - 1) // acc)
            elif acc < 0:
                at_least = max(at_least, -(-(bound - 1) // acc))
            elif bound <= 0:
                at_most = 0
    if at_least > at_most:
        return ExactMultiplier(nominal, shift, exact=False)
    return ExactMultiplier(min(max(nominal, at_least), at_most), shift, exact=True)


def _first_reaching(real: float, low: int, high: int) -> list[int]:
    """Smallest accumulator whose result is at least step, for each step in low + 1 .. high."""
    steps = np.arange(low + 1, high + 1, dtype=np.int64)
    if steps.size == 0:
        return []
    guess = np.ceil((steps - 0.5) / real)
    # Accumulators are 32-bit; a step beyond them is never reached, wherever exactly it is.
    first = np.clip(guess, -(2.0**33), 2.0**33).astype(np.int64)
    for _ in range(3):  # the quotient is off by one at most, at ties and through rounding
        first -= scale_in_double(first - 1, real) >= steps
        first += scale_in_double(first, real) < steps
    return [int(v) for v in first]
