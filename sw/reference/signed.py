"""uint8 tensors as int8 ones: values and zero points less 128, which leaves the real numbers alone.

The uint8 kernels of TensorFlow Lite compute what those of int8 compute on such tensors; where they
do not, the golden operator has a parameter ``unsigned``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.reference.graph import TensorInfo

__all__ = ["OFFSET", "signed", "to_signed", "to_unsigned"]

Array = npt.NDArray[Any]

OFFSET = 128
"""A uint8 value less the int8 value that stands for it."""


def signed(info: TensorInfo) -> TensorInfo:
    """Return what the file says about a tensor, with uint8 as int8."""
    if info.dtype != np.uint8:
        return info
    return replace(
        info,
        dtype=np.dtype(np.int8),
        zero_point=info.zero_point - OFFSET,
        data=None if info.data is None else to_signed(info.data),
        unsigned=True,
    )


def to_signed(values: Array) -> Array:
    """Return uint8 values less 128, as int8; others as they are."""
    if values.dtype != np.uint8:
        return values
    return (values.astype(np.int16) - OFFSET).astype(np.int8)


def to_unsigned(values: Array) -> Array:
    """Return int8 values and 128, as uint8."""
    return (values.astype(np.int16) + OFFSET).astype(np.uint8)
