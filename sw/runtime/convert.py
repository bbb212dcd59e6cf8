"""Conversions at the ends of a model, as TFLite's QUANTIZE, DEQUANTIZE and CAST kernels do them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.compiler.arithmetic import floats, integers
from celosia.sw.program.tensors import TensorInfo

__all__ = ["convert"]

Array = npt.NDArray[Any]


def convert(
    source: TensorInfo,
    target: TensorInfo,
    values: Array,
    *,
    cast: bool = False,
    even: bool = False,
    layout: tuple[int, ...] | None = None,
) -> Array:
    """Return the values of one tensor as another's.

    Parameters
    ----------
    source, target : TensorInfo
        Of one shape, and of types that `celosia.sw.program.conversion` has.
    values : ndarray
        The source's.
    cast : bool
        Whether as CAST, which knows no scales.
    even : bool
        Whether floats are quantised as ONNX does: halves to even.
    layout : tuple of int, optional
        The source's axes in the target's order. Several samples of a run are one after the other
        along the first axis, which stays the first then.

    Returns
    -------
    ndarray
        Of the target's element type: floats divided by the scale in float32, rounded with halves
        away from zero; integers rescaled in fixed point; integers to floats in double precision,
        rounded once.

    Raises
    ------
    InputError
        If a float to be quantised is not a number.
    """
    if layout is not None:
        values = np.ascontiguousarray(values.transpose(layout))
    if cast:
        return floats.cast(values, target.item)
    if source.dtype == "float16":
        return values.astype(target.item)
    if target.dtype == "float32":
        return floats.dequantised(values.astype(np.int64), source.scale, source.zero_point)
    limits = np.iinfo(target.dtype)
    span = int(limits.min), int(limits.max)
    if source.dtype == "float32":
        if np.isnan(values).any():
            raise InputError(
                f"input {source.name!r}",
                "a value is not a number (NaN)",
                "look at the preprocessing",
            )
        quantised = floats.quantised_to_even if even else floats.quantised
        codes = quantised(values, target.scale, target.zero_point, span)
        return codes.astype(target.item)
    ends = (source.scale, source.zero_point), (target.scale, target.zero_point)
    if values.itemsize > 1:
        return integers.requantised(values.astype(np.int64), *ends, span).astype(target.item)
    table = _table(source.dtype, *ends, span)
    return table[values.view(np.uint8)].astype(target.item)


@cache
def _table(
    dtype: str,
    source: integers.Quantisation,
    target: integers.Quantisation,
    limits: tuple[int, int],
) -> Array:
    """Return what each byte of a type becomes."""
    codes = np.arange(256, dtype=np.uint8).view(dtype).astype(np.int64)
    return integers.requantised(codes, source, target, limits)
