"""Conversions at the ends of a model, as TFLite's QUANTIZE and DEQUANTIZE kernels do them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.tables import requantize_table
from celosia.sw.compiler.ir import Int8Array
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
    # A byte of either type is an int8 value some steps away.
    first, second = np.iinfo(values.dtype).min + 128, np.iinfo(target.dtype).min + 128
    table = _table(
        source.scale, source.zero_point - first, target.scale, target.zero_point - second
    )
    codes = (values.astype(np.int16) - first).astype(np.int8)
    return (table[codes.view(np.uint8)].astype(np.int16) + second).astype(target.item)


@cache
def _table(scale_in: float, zero_in: int, scale_out: float, zero_out: int) -> Int8Array:
    return requantize_table(scale_in, zero_in, scale_out, zero_out)
