"""Tensors of a program: what they are, where they lie, and how the host reads and writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError, ProgramError
from celosia.hw.contract.isa import Region
from celosia.sw.program.origin import Origin
from celosia.sw.program.remedies import REBUILD

__all__ = ["PlacedTensor", "TensorInfo", "over_samples"]

DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)
MAX_ELEMENTS = 1 << 31
MAX_AXES = 16
"""numpy has room for 32."""


def over_samples(shape: tuple[int, ...], samples: int) -> tuple[int, ...]:
    """Return the shape of a tensor of several samples, one after the other.

    A first axis of 1 is the batch, and so is the first of more than two axes; other shapes get one
    in front.
    """
    if not shape:
        return (samples, 1)
    if len(shape) > 2 or (len(shape) == 2 and shape[0] == 1):
        return (samples * shape[0], *shape[1:])
    return (samples, *shape)


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor of a program, wherever it lies.

    Parameters
    ----------
    name : str
        As in the model; a program has one tensor of a name.
    shape : tuple of int
        As in the model, NHWC; a batch is its first axis.
    dtype : str
        Type of an element, by numpy's name, for example "int8".
    scale : float
        0 if the tensor is not quantised.
    zero_point : int
        Of the quantisation.
    kept_channels : tuple of int, or None
        The channels of the model's tensor that this one has, in rising order, if the compiler
        removed others; `shape` is then the narrower one. None: all.
    origin : Origin
        The tensor in the model's file.
    persistent : bool
        Whether its contents outlast a run: a model's variable, or the state of a recurrent layer.

    Raises
    ------
    ProgramError
        If the fields contradict each other.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    scale: float = 0.0
    zero_point: int = 0
    kept_channels: tuple[int, ...] | None = None
    origin: Origin = field(default_factory=Origin)
    persistent: bool = False

    def __post_init__(self) -> None:
        what = f"tensor {self.name!r}"
        if self.dtype not in DTYPES:
            raise ProgramError(what, f"unknown dtype {self.dtype!r}", REBUILD)
        if len(self.shape) > MAX_AXES:
            raise ProgramError(what, f"it has {len(self.shape)} axes", REBUILD)
        if any(size < 0 for size in self.shape):
            raise ProgramError(what, "a size is negative", REBUILD)
        # Axes of 0 left out, as numpy does when it looks whether it can count the elements.
        if math.prod(max(size, 1) for size in self.shape) > MAX_ELEMENTS:
            raise ProgramError(what, "it has too many elements", REBUILD)
        channels, kept = self.extents[2], self.kept_channels
        if kept is not None and (
            len(kept) != channels or kept[:1] < (0,) or list(kept) != sorted(set(kept))
        ):
            raise ProgramError(what, f"{channels} channels, kept are {list(kept)}", REBUILD)

    def over(self, samples: int) -> TensorInfo:
        """Return the tensor of several samples, of which this is one; `sample` undoes it."""
        return replace(self, shape=(samples * self.shape[0], *self.shape[1:]))

    def sample(self, samples: int) -> TensorInfo:
        """Return the tensor of one of several samples, which the first axis has one after the
        other.

        Raises
        ------
        ProgramError
            If it has not.
        """
        first = self.shape[0] if self.shape else 0
        if samples < 1 or first < 1 or first % samples:
            raise ProgramError(
                f"tensor {self.name!r}", f"{self.shape} is not of {samples} samples", REBUILD
            )
        return replace(self, shape=(first // samples, *self.shape[1:]))

    @property
    def item(self) -> np.dtype[np.generic]:
        """Type of an element, little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def size_bytes(self) -> int:
        """Bytes of all elements, without gaps."""
        return math.prod(self.shape) * self.item.itemsize

    @property
    def extents(self) -> tuple[int, int, int]:
        """Rows, pixels of a row and channels."""
        padded = (1, 1, *self.shape)
        return math.prod(padded[:-2]), padded[-2], padded[-1]


@dataclass(frozen=True, kw_only=True)
class PlacedTensor:
    """Where a tensor lies in the system memory of a segment.

    The last axis of its shape is the channels and is contiguous; the one before it is the pixels
    of a row; all others together are the rows. Channel c of pixel x of row y is at byte
    ``offset + y * row_pitch + x * pixel_pitch + c * itemsize`` of the region.

    Parameters
    ----------
    info : TensorInfo
        The tensor.
    region : str
        Name of the `Region`.
    offset, row_pitch, pixel_pitch : int
        Bytes.

    Raises
    ------
    ProgramError
        If the fields contradict each other.
    """

    info: TensorInfo
    region: str = "IO"
    offset: int = 0
    row_pitch: int
    pixel_pitch: int

    def __post_init__(self) -> None:
        what = f"tensor {self.name!r}"
        if self.region not in Region.__members__:
            raise ProgramError(what, f"unknown region {self.region!r}", REBUILD)
        rows, pixels, channels = self.info.extents
        if min(self.offset, self.row_pitch, self.pixel_pitch) < 0:
            raise ProgramError(what, "its place is negative", REBUILD)
        if pixels > 1 and self.pixel_pitch < channels * self.info.item.itemsize:
            raise ProgramError(what, "pixels overlap", REBUILD)
        if rows > 1 and self.row_pitch < self._row_bytes:
            raise ProgramError(what, "rows overlap", REBUILD)

    @property
    def name(self) -> str:
        """The tensor's."""
        return self.info.name

    @property
    def _row_bytes(self) -> int:
        _, pixels, channels = self.info.extents
        return max(pixels - 1, 0) * self.pixel_pitch + channels * self.info.item.itemsize

    @property
    def end(self) -> int:
        """Offset in the region of the byte after the tensor's last."""
        rows = self.info.extents[0]
        return self.offset + max(rows - 1, 0) * self.row_pitch + self._row_bytes

    def gather(self, memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
        """Return a copy of the tensor, in its shape.

        Parameters
        ----------
        memory : numpy.ndarray
            uint8, the contents of the region from its start.

        Raises
        ------
        InputError
            If the region is too small.
        """
        rows = np.ascontiguousarray(self._places(memory)).reshape(-1).view(self.info.item)
        return rows.reshape(self.info.shape)

    def scatter(self, memory: npt.NDArray[np.uint8], values: npt.NDArray[np.generic]) -> None:
        """Write `values` to their places; bytes between pixels keep their value.

        Raises
        ------
        InputError
            If shape or dtype is not the tensor's, or the region is too small.
        """
        info = self.info
        if values.shape != info.shape or values.dtype != np.dtype(info.dtype):
            raise InputError(
                f"tensor {self.name!r}",
                f"got {values.dtype} {values.shape}, needs {info.dtype} {info.shape}",
                "convert the array first",
            )
        places = self._places(memory)
        data = np.ascontiguousarray(values.astype(info.item, copy=False))
        places[...] = data.reshape(-1).view(np.uint8).reshape(places.shape)

    def _places(self, memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the tensor's bytes as a view of the memory."""
        if self.end > len(memory):
            raise InputError(
                f"tensor {self.name!r}",
                f"region {self.region} has {len(memory)} bytes, the tensor ends at {self.end}",
                "make the region as large as the program's memory plan says",
            )
        rows, pixels, channels = self.info.extents
        shape = rows, pixels, channels * self.info.item.itemsize
        if 0 in shape:
            return np.zeros(shape, np.uint8)
        # Pixels and rows do not overlap (`__post_init__`), and the last is within the memory.
        return np.lib.stride_tricks.as_strided(
            memory[self.offset :],
            shape,
            tuple(pitch * memory.strides[0] for pitch in (self.row_pitch, self.pixel_pitch, 1)),
        )
