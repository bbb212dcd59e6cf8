"""Intervals of int8 values, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.fixed import INT8_MAX, INT8_MIN

__all__ = ["BoolArray", "Int64Array", "Ranges"]

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranges:
    """The values of a tensor, channel by channel.

    Attributes
    ----------
    low, high : ndarray of int64, shape [channels]
        Least and greatest int8 value that any pixel can have for any input.
    """

    low: Int64Array
    high: Int64Array

    @staticmethod
    def full(channels: int) -> Ranges:
        """Return the ranges of a tensor of which nothing is known."""
        return Ranges(np.full(channels, INT8_MIN, np.int64), np.full(channels, INT8_MAX, np.int64))

    @property
    def constant(self) -> BoolArray:
        """Whether each channel has one value; bool, shape [channels]."""
        same: BoolArray = self.low == self.high
        return same
