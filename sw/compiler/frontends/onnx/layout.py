"""Where the elements of a tensor of the file are in a tensor of the graph.

ONNX has channels behind the batch, the NPU has them last. So each tensor of the graph holds one of
the file with its axes in some order: a *permutation*, which lists the file's axes in the graph's
order. Most operators take what is there; what needs another order gets it by an operator that
moves elements, which is nothing where only axes of length one change places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Place", "channels_last", "identity", "inverse", "numbers_in", "permuted"]

Permutation = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """What a tensor of the graph holds.

    Attributes
    ----------
    file : str
        The tensor of the file.
    shape : tuple of int
        The file's.
    permutation : tuple of int
        The file's axes in the graph's order.
    offset : int
        What the file's codes are more than the graph's: 128 if they are uint8.
    view : tuple of int, optional
        The graph's shape, where it is another one of the same elements.
    """

    file: str
    shape: tuple[int, ...]
    permutation: Permutation
    offset: int = 0
    view: tuple[int, ...] | None = None

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The file's shape in the graph's order of axes."""
        return permuted(self.shape, self.permutation)

    @property
    def given_shape(self) -> tuple[int, ...]:
        """The graph's shape."""
        return self.own_shape if self.view is None else self.view

    def of_file(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the file's codes as the graph has them."""
        turned = np.ascontiguousarray(values.reshape(self.shape).transpose(self.permutation))
        turned = turned.reshape(self.given_shape)
        return (turned.astype(np.int16) - self.offset).astype(np.int8)


def identity(rank: int) -> Permutation:
    """Return the file's own order."""
    return tuple(range(rank))


def channels_last(rank: int) -> Permutation:
    """Return the order in which the second axis of the file is the last one."""
    return (0, *range(2, rank), 1) if rank > 2 else identity(rank)


def permuted(shape: tuple[int, ...], permutation: Permutation) -> tuple[int, ...]:
    """Return a shape in another order."""
    return tuple(shape[axis] for axis in permutation)


def inverse(permutation: Permutation) -> Permutation:
    """Return the order that brings axes back."""
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def numbers_in(place: Place) -> npt.NDArray[np.int64]:
    """Return, in the file's shape, where in the graph's tensor each element is."""
    numbers = np.arange(int(np.prod(place.shape, dtype=np.int64))).reshape(place.own_shape)
    return numbers.transpose(inverse(place.permutation))
