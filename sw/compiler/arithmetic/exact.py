"""A fixed-point multiplier that equals a double-precision scale on every reachable accumulator.

The reference's FULLY_CONNECTED multiplies the accumulator by a *double* and rounds halves away
from zero (measured on `ai-edge-litert` with the reference resolver; its fixed-point parameters
are not used). The NPU has an integer multiplier and rounds halves up. Both are step functions of
the accumulator with at most 255 steps inside the int8 clamp, so they are equal exactly when the
steps are at the same accumulators, which bounds the multiplier from both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.fixed import (
    INT32_MAX,
    INT32_MIN,
    QuantizationError,
    quantize_multiplier,
)

__all__ = [
    "ExactMultiplier",
    "dividing_multiplier",
    "exact_multiplier",
    "first_reaching",
    "fitted_multiplier",
    "most_agreeing",
    "scale_in_double",
]


@dataclass(frozen=True)
class ExactMultiplier:
    """A multiplier and shift for the ``single`` rounding mode, and whether they are exact."""

    multiplier: int
    shift: int
    exact: bool


def dividing_multiplier(count: int) -> tuple[int, int]:
    """Return multiplier and shift whose single rounding divides, halves away from zero.

    Parameters
    ----------
    count : int
        Divisor from 2 to 2**22, of sums of so many int8 values.

    Notes
    -----
    The multiplier is above ``2**(31 - shift) / count`` by at most 1, so that a product is further
    from zero than the quotient, by less than half of what one more in the sum would make: quotients
    of a half are rounded away, and no other result changes.
    """
    shift = 1 - (count - 1).bit_length()
    return (1 << (31 - shift)) // count + 1, shift


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
        ``exact`` is False when no 32-bit multiplier will do, or the accumulator shifted left leaves
        32 bits; then it is the nearest one, and the layer must not run with it.

    Raises
    ------
    QuantizationError
        See `quantize_multiplier`.
    """
    nominal, _ = quantize_multiplier(real)
    if nominal == 0:
        ends = np.array([acc_min, acc_max], np.int64)
        return ExactMultiplier(0, 0, exact=not np.any(scale_in_double(ends, real)))
    return _fit(_first_reaching(real, low, high), real, low, acc_min, acc_max)


def fitted_multiplier(
    result: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]],
    real: float,
    low: int,
    high: int,
    acc_min: int,
    acc_max: int,
) -> ExactMultiplier:
    """Find a multiplier whose single rounding equals a function that rises.

    Parameters
    ----------
    result : callable
        From accumulators to results, before zero point and clamp.
    real : float
        What it multiplies by, about.
    low, high, acc_min, acc_max
        As of `exact_multiplier`.
    """
    if not INT32_MIN <= acc_min <= acc_max <= INT32_MAX:
        return ExactMultiplier(0, 0, exact=False)
    return _fit(first_reaching(result, low, high, acc_min, acc_max), real, low, acc_min, acc_max)


def first_reaching(
    result: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]],
    low: int,
    high: int,
    acc_min: int,
    acc_max: int,
) -> list[int]:
    """Return the least accumulator that reaches each step, by halves; behind the last if none does.

    Parameters
    ----------
    result, low, high, acc_min, acc_max
        As of `fitted_multiplier`; the steps are ``low + 1`` to `high`.
    """
    steps = np.arange(low + 1, high + 1, dtype=np.int64)
    first, end = np.full(steps.size, acc_min), np.full(steps.size, acc_max + 1)
    while np.any(first < end):
        middle = (first + end) // 2
        reached = (result(middle) >= steps) | (first == end)
        first, end = np.where(reached, first, middle + 1), np.where(reached, middle, end)
    return [int(value) for value in first]


def _fit(
    first_reaching: list[int], real: float, low: int, acc_min: int, acc_max: int
) -> ExactMultiplier:
    """Find a multiplier whose steps are at these accumulators."""
    nominal, shift = quantize_multiplier(real)
    # A scale of 1 or a little more needs a left shift, or the largest multiplier without it.
    for near, bits in ((nominal, shift), (min(2 * nominal, INT32_MAX), shift - 1)):
        if not _shift_fits(bits, acc_min, acc_max):
            continue
        at_least, at_most = _bounds(first_reaching, low, bits, acc_min, acc_max)
        if at_least <= at_most:
            return ExactMultiplier(min(max(near, at_least), at_most), bits, exact=True)
    return ExactMultiplier(nominal, shift, exact=False)


def _shift_fits(shift: int, acc_min: int, acc_max: int) -> bool:
    """Whether a left shift, which comes before the multiplication, keeps within 32 bits."""
    bits = max(shift, 0)
    return acc_min << bits >= INT32_MIN and acc_max << bits <= INT32_MAX


def _bounds(
    first_reaching: list[int], low: int, shift: int, acc_min: int, acc_max: int
) -> tuple[int, int]:
    """Least and greatest multiplier whose steps are at the accumulators of the reference's."""
    each = _bounds_of_steps(first_reaching, low, shift, acc_min, acc_max)
    return max((one[0] for one in each), default=1), min(
        (one[1] for one in each), default=INT32_MAX
    )


def _bounds_of_steps(
    first_reaching: list[int], low: int, shift: int, acc_min: int, acc_max: int
) -> list[tuple[int, int]]:
    """Least and greatest multiplier for each step; none fits where the first is greater."""
    half = 1 << (30 - shift)
    found: list[tuple[int, int]] = []
    for step, first in enumerate(first_reaching, low + 1):
        at_least, at_most = 1, INT32_MAX
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
        found.append((at_least, at_most))
    return found


def most_agreeing(
    first_reaching: list[int], real: float, low: int, acc_min: int, acc_max: int
) -> tuple[int, int]:
    """Return the multiplier and shift with the most steps at these accumulators.

    Parameters
    ----------
    first_reaching : list of int
        The least accumulator of each step from ``low + 1``.
    real, low, acc_min, acc_max
        As of `exact_multiplier`.

    Raises
    ------
    QuantizationError
        See `quantize_multiplier`; or the accumulator, shifted left, leaves 32 bits.
    """
    nominal, shift = quantize_multiplier(real)
    if not _shift_fits(shift, acc_min, acc_max):
        raise QuantizationError(
            f"accumulators of {acc_min} to {acc_max} times {real:.6g} exceed 32 bits"
        )
    each = _bounds_of_steps(first_reaching, low, shift, acc_min, acc_max)
    ends = sorted([(least, 0) for least, _ in each] + [(most, 1) for _, most in each])
    best, value, inside = -1, nominal, 0
    for end, closes in ends:
        if closes:
            inside -= 1
        else:
            inside += 1
            nearer = abs(end - nominal) < abs(value - nominal)
            if inside > best or (inside == best and nearer):
                best, value = inside, end
    return min(max(value, 1), INT32_MAX), shift


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
