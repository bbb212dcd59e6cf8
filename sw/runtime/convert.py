"""Conversions at the ends of a model, as TFLite's QUANTIZE and DEQUANTIZE kernels do them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.fixed import (
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)
from celosia.sw.driver.inputs import quantize_array
from celosia.sw.program.tensors import TensorInfo

__all__ = ["convert"]

Array = npt.NDArray[Any]


def convert(source: TensorInfo, target: TensorInfo, values: Array) -> Array:
    """Return the values of one tensor as another's.

    Parameters
    ----------
    source, target : TensorInfo
        Of one shape; int8 or uint8 with scale and zero point, or float32.
    values : ndarray
        The source's.

    Returns
    -------
    ndarray
        Of the target's element type: floats divided by the scale in float32, rounded with halves
        away from zero; integers rescaled in fixed point; integers to floats in double precision,
        rounded once.

    Raises
    ------
    InputError
        If a float is not a number.
    """
    if source.dtype == "float32":
        return quantize_array(target, values)
    distance = values.astype(np.int64) - source.zero_point
    if target.dtype == "float32":
        return (source.scale * distance.astype(np.float64)).astype(np.float32)
    multiplier, shift = quantize_multiplier(source.scale / target.scale)
    limits = np.iinfo(values.dtype)
    # 256 values at most: worked out once each.
    table = np.array(
        [
            multiply_by_quantized_multiplier(value - source.zero_point, multiplier, shift)
            for value in range(limits.min, limits.max + 1)
        ],
        np.int64,
    )
    bounds = np.iinfo(target.dtype)
    rescaled = table[values.astype(np.int64) - limits.min] + target.zero_point
    return np.clip(rescaled, bounds.min, bounds.max).astype(target.item)
