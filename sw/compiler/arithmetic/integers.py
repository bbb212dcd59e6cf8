"""QUANTIZE from integers to integers, of any width (TFLite's `reference_ops::Requantize`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.fixed import (
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)

__all__ = ["Quantisation", "requantised"]

Int64Array = npt.NDArray[np.int64]
Quantisation = tuple[float, int]
"""Scale and zero point."""


def requantised(
    codes: Int64Array, source: Quantisation, target: Quantisation, limits: tuple[int, int]
) -> Int64Array:
    """Return the codes of one quantisation in another.

    Parameters
    ----------
    codes : ndarray of int64
        Any shape.
    source, target : (float, int)
        Quantisations.
    limits : (int, int)
        Least and greatest code of the target.

    Raises
    ------
    QuantizationError
        If the scales are too far apart.
    """
    multiplier, shift = quantize_multiplier(float(source[0]) / float(target[0]))
    known, places = np.unique(codes, return_inverse=True)
    scaled = [
        multiply_by_quantized_multiplier(int(code) - source[1], multiplier, shift) + target[1]
        for code in known
    ]
    result: Int64Array = np.clip(np.array(scaled, np.int64)[places].reshape(codes.shape), *limits)
    return result
