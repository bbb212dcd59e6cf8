"""Requantisation in single precision, halves to even: what onnxruntime's quantised kernels compute.

::

    out = clamp(rint(float32(acc) * scale) + zero point)          one float32 product
    out = clamp(rint(fma(a, ra, fma(b, rb, zc - fma(ra, za, rb * zb)))))    a sum of two tensors
    out = clamp(rint(float32((a - za) * (b - zb) * scale) + zc))            a product of two

Here ``ra`` and ``rb`` are the operands' scales over the result's. A sum and a product have codes
and zero points as the file has them: of uint8 tensors they are 128 more than here, and float32
rounds them otherwise.

The NPU has integer multipliers. Where both are step functions of an accumulator, they are equal
exactly if the steps are at the same accumulators, which a fitted multiplier can be held to; where
they are functions of two bytes, all 65,536 pairs are tried. What is left is counted.

Sources: onnxruntime `core/mlas/lib/quantize.cpp`, `qladd.cpp`, `qlmul.cpp`; measured on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.exact import (
    first_reaching,
    fitted_multiplier,
    most_agreeing,
)
from celosia.sw.compiler.arithmetic.fixed import (
    AddParameters,
    QuantizationError,
    add_parameters,
    quantize_multiplier,
)

__all__ = [
    "CODES",
    "Pair",
    "PairFit",
    "SingleFit",
    "fit_product",
    "fit_single",
    "fit_sum",
    "in_single",
    "unsure_sums",
]

Int64Array = npt.NDArray[np.int64]
single = np.float32

CODES = np.arange(-128, 128, dtype=np.int64)
"""All values of an int8 operand."""
NUDGES = tuple(sorted(range(-48, 49), key=abs))
"""How far a multiplier is moved, in units of its last place times `NUDGE`."""
NUDGE = 1 << 6
FITS = 1 << 16
"""Results that are kept: a model is lowered more than once where it is divided."""
MANY = 1 << 10
"""Pairs that differ because of ties, which no multiplier helps."""


@dataclass(frozen=True)
class SingleFit:
    """A multiplier and shift for the ``single`` rounding mode.

    Attributes
    ----------
    multiplier, shift : int
    differing : int
        Accumulators, of those that can be, for which the result is another one.
    reachable : int
        How many there are.
    """

    multiplier: int
    shift: int
    differing: int
    reachable: int


@dataclass(frozen=True)
class PairFit:
    """Multipliers of an operator of two tensors, and for how many pairs the result differs."""

    parameters: AddParameters
    differing: int


def in_single(accumulators: Int64Array, scale: np.float32) -> Int64Array:
    """Round ``float32(accumulator) * scale``, halves to even."""
    product = accumulators.astype(single) * single(scale)
    whole: Int64Array = np.rint(product).astype(np.int64)
    return whole


@dataclass(frozen=True)
class Pair:
    """Two operands and a result, as the file has them.

    Attributes
    ----------
    scales : tuple of float
        Of both operands and the result.
    zeros : tuple of int
        Their zero points, as int8.
    offset : int
        What codes of the file are more than int8 ones: 128 if they are uint8.
    clamp : tuple of int
        Least and greatest int8 result.
    """

    scales: tuple[float, float, float]
    zeros: tuple[int, int, int]
    offset: int = 0
    clamp: tuple[int, int] = (-128, 127)

    def sums(self, a: Int64Array, b: Int64Array) -> Int64Array:
        """Add int8 codes; return int8 codes."""
        scale_a, scale_b, scale = (single(value) for value in self.scales)
        ratio_a, ratio_b = scale_a / scale, scale_b / scale
        zero_a, zero_b, zero = (single(value + self.offset) for value in self.zeros)
        fixed = zero - _fma(ratio_a, zero_a, ratio_b * zero_b)
        codes_a, codes_b = ((v + self.offset).astype(single) for v in (a, b))
        return self._clamped(_fma(codes_a, ratio_a, _fma(codes_b, ratio_b, fixed)))

    def differences(self, a: Int64Array, b: Int64Array) -> Int64Array:
        """Subtract int8 codes in floating point; return int8 codes."""
        scale_a, scale_b, scale = (single(value) for value in self.scales)
        left = (a - self.zeros[0]).astype(single) * scale_a
        right = (b - self.zeros[1]).astype(single) * scale_b
        low, high = (end - self.zeros[2] for end in self.clamp)
        whole = np.clip(np.rint((left - right) / scale), low, high).astype(np.int64)
        codes: Int64Array = whole + self.zeros[2]
        return codes

    def products(self, a: Int64Array, b: Int64Array) -> Int64Array:
        """Multiply int8 codes; return int8 codes."""
        values_a, values_b = (
            (v - z).astype(single) for v, z in zip((a, b), self.zeros, strict=False)
        )
        zero = single(self.zeros[2] + self.offset)
        return self._clamped(values_a * values_b * self.product_scale + zero)

    @property
    def product_scale(self) -> np.float32:
        """What the product of two integers is multiplied by."""
        scale_a, scale_b, scale = (single(value) for value in self.scales)
        return np.float32(scale_a * scale_b / scale)

    def _clamped(self, values: npt.NDArray[np.float32]) -> Int64Array:
        low, high = (end + self.offset for end in self.clamp)
        whole: Int64Array = np.clip(np.rint(values), low, high).astype(np.int64) - self.offset
        return whole


def _fma(a: Any, b: Any, c: Any) -> Any:
    """Multiply and add with one rounding: a code times a ratio has few enough bits for that."""
    return (np.asarray(a, np.float64) * np.asarray(b, np.float64) + c).astype(single)


@lru_cache(FITS)
def fit_single(scale: np.float32, low: int, high: int, acc_min: int, acc_max: int) -> SingleFit:
    """Find a multiplier whose single rounding equals `in_single`.

    Parameters
    ----------
    scale : float32
        What the accumulator is multiplied by.
    low, high : int
        Range of results that matter, less the zero point; beyond it everything is clamped.
    acc_min, acc_max : int
        Accumulators that can be.

    Raises
    ------
    QuantizationError
        See `quantize_multiplier`.
    """
    reachable = acc_max - acc_min + 1
    found = fitted_multiplier(
        lambda values: in_single(values, scale), float(scale), low, high, acc_min, acc_max
    )
    if found.exact:
        return SingleFit(found.multiplier, found.shift, 0, reachable)
    reach = low, high, acc_min, acc_max
    there = first_reaching(lambda values: in_single(values, scale), *reach)
    multiplier, shift = most_agreeing(there, float(scale), low, acc_min, acc_max)
    here = first_reaching(lambda values: _rounded_once(values, multiplier, shift), *reach)
    differing = sum(abs(one - other) for one, other in zip(here, there, strict=True))
    return SingleFit(multiplier, shift, differing, reachable)


@lru_cache(FITS)
def unsure_sums(
    scale: np.float32, low: int, high: int, acc_min: int, acc_max: int, terms: int
) -> int:
    """Count the sums of which a reference in single precision could round to either side.

    Parameters
    ----------
    scale, low, high, acc_min, acc_max
        As of `fit_single`.
    terms : int
        How many numbers it sums up, in an order of its own: the error of each addition is at most
        half a unit in the last place of what has been summed up so far.
    """
    sums = np.arange(acc_min, acc_max + 1, dtype=np.int64)
    real = sums * float(scale)
    most = max(abs(acc_min), abs(acc_max)) * float(scale)
    error = (terms + 4) * 2.0**-24 * most
    apart = np.abs(real - np.floor(real) - 0.5)
    return int(np.count_nonzero((apart <= error) & (real > low - 1) & (real < high + 1)))


def _rounded_once(values: Int64Array, multiplier: int, shift: int) -> Int64Array:
    return ((values << max(shift, 0)) * multiplier + (1 << (30 + max(-shift, 0)))) >> (
        31 + max(-shift, 0)
    )


# Two tensors -----------------------------------------------------------------------------------


@lru_cache(FITS)
def fit_sum(pair: Pair, *, subtract: bool = False) -> PairFit:
    """Find the multipliers of an addition that equals `Pair.sums` for the most pairs.

    With `subtract` of a subtraction, and `Pair.differences`.

    Raises
    ------
    QuantizationError
        If the addition has no multipliers for such scales.
    """
    a, b = (values.reshape(-1) for values in np.meshgrid(CODES, CODES))
    wanted = pair.differences(a, b) if subtract else pair.sums(a, b)
    first = add_parameters(*pair.scales, subtract=subtract)
    left = (a - pair.zeros[0]) << first.left_shift
    right = (b - pair.zeros[1]) << first.left_shift

    def differing(parameters: AddParameters) -> int:
        total = _scaled(left, parameters.multiplier_a, parameters.shift_a)
        total = total + _scaled(right, parameters.multiplier_b, parameters.shift_b)
        total = _scaled(total, parameters.multiplier_out, parameters.shift_out)
        return int(np.count_nonzero(np.clip(total + pair.zeros[2], *pair.clamp) != wanted))

    def others() -> Iterator[AddParameters]:
        for name in ("multiplier_out", "multiplier_a", "multiplier_b"):
            for nudge in NUDGES:
                value = getattr(first, name) + nudge * NUDGE
                if 1 << 30 <= abs(value) < 1 << 31:
                    yield replace(first, **{name: value})

    return _best(first, others(), differing)


def _best(
    first: AddParameters,
    others: Iterator[AddParameters],
    differing: Callable[[AddParameters], int],
) -> PairFit:
    best = PairFit(first, differing(first))
    if best.differing > MANY:
        return best  # ties: no multiplier helps
    for parameters in others:
        if best.differing == 0:
            break
        count = differing(parameters)
        if count < best.differing:
            best = PairFit(parameters, count)
    return best


@lru_cache(FITS)
def fit_product(pair: Pair, most_left: int) -> SingleFit:
    """Find the multiplier of a product that equals `Pair.products` for the most pairs.

    The vector engine rounds products twice, as of `Rounding.DOUBLE`; the first time at a bit as low
    as the room for products, `most_left` bits above them, lets it be.
    """
    a, b = (values.reshape(-1) for values in np.meshgrid(CODES, CODES))
    products = (a - pair.zeros[0]) * (b - pair.zeros[1])
    values, first, counts = np.unique(products, return_index=True, return_counts=True)
    wanted = pair.products(a[first], b[first])
    multiplier, shift = quantize_multiplier(float(pair.product_scale))
    if shift > most_left or not np.all(np.isfinite(pair.scales)):
        raise QuantizationError(f"a product is rescaled by {float(pair.product_scale):g}")
    best: tuple[int, int] | None = None
    for nudge in NUDGES:
        nudged = multiplier + nudge * NUDGE
        if nudge and not 1 << 30 <= nudged < 1 << 31:
            continue
        got = _scaled(values << most_left, nudged, shift - most_left) + pair.zeros[2]
        count = int(counts[np.clip(got, *pair.clamp) != wanted].sum())
        if best is None or count < best[0]:
            best = count, nudged
        if count == 0 or count > MANY:
            break
    assert best is not None, "the multiplier itself was tried"
    return SingleFit(best[1], shift, best[0], int(counts.sum()))


def _scaled(values: Int64Array, multiplier: int, shift: int) -> Int64Array:
    """High half of twice the product, rounded, then divided by a power of two, halves away."""
    high = (values * multiplier + (1 << 30)) >> 31
    if shift == 0:
        return high
    assert shift < 0, "it only divides"
    mask = (1 << -shift) - 1
    return (high >> -shift) + ((high & mask) > (mask >> 1) + (high < 0))
