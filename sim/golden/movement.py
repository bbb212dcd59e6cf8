"""Operators of the TensorFlow Lite reference kernels that move elements and compute nothing.

Element types and quantisation stay; arrays may have any rank. Negative axes count from the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "batch_to_space",
    "broadcast_to",
    "concatenation",
    "concatenation_of_uint8",
    "depth_to_space",
    "gather",
    "mirror_pad",
    "pack",
    "pad_by",
    "resize_nearest",
    "reverse",
    "slice_of",
    "space_to_batch",
    "space_to_depth",
    "split",
    "strided_slice",
    "tile",
    "transpose",
    "unpack",
]

Array = npt.NDArray[Any]
Pair = tuple[int, int]


def concatenation(parts: Sequence[Array], *, axis: int) -> Array:
    """CONCATENATION along an axis that the parts have."""
    return np.concatenate(parts, axis=axis)


def concatenation_of_uint8(
    parts: Sequence[Array],
    *,
    scales: Sequence[float],
    zero_points: Sequence[int],
    out_scale: float,
    out_zero_point: int,
    axis: int,
) -> Array:
    """CONCATENATION of uint8 tensors, of which each has a quantisation of its own.

    Source: ``ConcatenationWithScaling`` in TensorFlow Lite ``reference/concatenation.h``: all in
    single precision, rounded with halves away from zero.
    """
    single = np.float32
    rescaled: list[Array] = []
    for part, part_scale, zero_point in zip(parts, scales, zero_points, strict=True):
        if (single(part_scale), zero_point) == (single(out_scale), out_zero_point):
            rescaled.append(part)
            continue
        scale = single(part_scale) * (single(1) / single(out_scale))
        steps = (part.astype(single) * scale + single(-zero_point) * scale).astype(np.float64)
        rounded = np.copysign(np.floor(np.abs(steps) + 0.5), steps) + out_zero_point
        rescaled.append(np.clip(rounded, 0, 255).astype(np.uint8))
    return np.concatenate(rescaled, axis=axis)


def split(x: Array, *, sizes: Sequence[int], axis: int) -> list[Array]:
    """SPLIT and SPLIT_V; one size may be -1, for what is left."""
    left = x.shape[axis] - sum(size for size in sizes if size >= 0)
    parts, first = [], 0
    for size in sizes:
        end = first + (left if size < 0 else size)
        parts.append(np.take(x, range(first, end), axis=axis))
        first = end
    return parts


def slice_of(x: Array, *, begin: Sequence[int], size: Sequence[int]) -> Array:
    """SLICE; a size of -1 is all that is left."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        end = x.shape[axis] if count == -1 else first + count
        x = np.take(x, range(first, end), axis=axis)
    return x


def strided_slice(
    x: Array,
    *,
    begin: Sequence[int],
    end: Sequence[int],
    strides: Sequence[int],
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
) -> Array:
    """STRIDED_SLICE. Places are cut to the axis, as in Python; masks have a bit for each place.

    Source: ``BuildStridedSliceParams``. An ellipsis stands for one axis at least, and places behind
    the last axis are ignored.
    """

    def marked(mask: int, place: int) -> bool:
        return bool(mask >> place & 1)

    count = len(begin)
    new = [marked(new_axis_mask, p) and not marked(ellipsis_mask, p) for p in range(count)]
    dimensions = x.ndim + sum(new)
    places: list[Any] = []
    for place in range(count):
        if marked(ellipsis_mask, place):
            end_of_it = min(len(places) + 1 + dimensions - count, dimensions)
            for _ in range(len(places), max(len(places) + 1, end_of_it)):
                places.append(slice(None))
        elif new[place]:
            places.append(np.newaxis)
        elif marked(shrink_axis_mask, place):
            places.append(int(begin[place]))
        else:
            first = None if marked(begin_mask, place) else int(begin[place])
            last = None if marked(end_mask, place) else int(end[place])
            places.append(slice(first, last, int(strides[place])))
    return np.asarray(x[tuple(places[:dimensions])])


def pack(parts: Sequence[Array], *, axis: int) -> Array:
    """PACK: the parts along a new axis."""
    return np.concatenate([np.expand_dims(part, axis) for part in parts], axis=axis)


def unpack(x: Array, *, axis: int) -> list[Array]:
    """UNPACK: the parts along an axis, without it."""
    return [np.take(x, place, axis=axis) for place in range(x.shape[axis])]


def gather(x: Array, *, indices: Array, axis: int) -> Array:
    """GATHER without batch dimensions."""
    return np.take(x, indices, axis=axis)


def tile(x: Array, *, multiples: Sequence[int]) -> Array:
    """TILE: the array again and again along each axis."""
    for axis, count in enumerate(multiples):
        x = np.concatenate([x] * int(count), axis=axis)
    return x


def broadcast_to(x: Array, *, shape: Sequence[int]) -> Array:
    """BROADCAST_TO, as numpy does it."""
    return np.broadcast_to(x, tuple(shape)).copy()


def reverse(x: Array, *, axes: Sequence[int]) -> Array:
    """REVERSE_V2 along axes."""
    for axis in axes:
        x = np.take(x, range(x.shape[axis] - 1, -1, -1), axis=int(axis))
    return x


def transpose(x: Array, *, permutation: Sequence[int]) -> Array:
    """TRANSPOSE: axis k of the result is axis ``permutation[k]``."""
    return np.transpose(x, [int(axis) for axis in permutation])


def pad_by(x: Array, *, paddings: Sequence[Pair], value: int) -> Array:
    """PAD and PADV2: `paddings` is (before, after) for each axis."""
    shape = [n + before + after for n, (before, after) in zip(x.shape, paddings, strict=True)]
    result = np.full(shape, value, x.dtype)
    inside = tuple(
        slice(before, before + n) for n, (before, _) in zip(x.shape, paddings, strict=True)
    )
    result[inside] = x
    return result


def mirror_pad(x: Array, *, paddings: Sequence[Pair], symmetric: bool) -> Array:
    """MIRROR_PAD: mirrored at the outer elements (REFLECT), or behind them (SYMMETRIC)."""
    skip = 0 if symmetric else 1
    for axis, (before, after) in enumerate(paddings):
        n = x.shape[axis]
        places = [
            *range(before - 1 + skip, skip - 1, -1),
            *range(n),
            *range(n - 1 - skip, n - 1 - skip - after, -1),
        ]
        x = np.take(x, places, axis=axis)
    return x


def space_to_depth(x: Array, *, block: int) -> Array:
    """SPACE_TO_DEPTH: the pixels of a block side by side in the channels."""
    parts = [x[:, row::block, column::block] for row in range(block) for column in range(block)]
    return np.concatenate(parts, axis=3)


def depth_to_space(x: Array, *, block: int) -> Array:
    """DEPTH_TO_SPACE: groups of channels as the pixels of a block."""
    n, height, width, channels = x.shape
    depth = channels // block**2
    result = np.empty((n, height * block, width * block, depth), x.dtype)
    for row in range(block):
        for column in range(block):
            first = (row * block + column) * depth
            result[:, row::block, column::block] = x[..., first : first + depth]
    return result


def space_to_batch(
    x: Array, *, block: Sequence[int], paddings: Sequence[Pair], value: int
) -> Array:
    """SPACE_TO_BATCH_ND: every block[i]-th element of axis 1 + i goes to the same batch."""
    around = [(0, 0), *paddings, *((0, 0) for _ in range(x.ndim - 1 - len(block)))]
    padded = pad_by(x, paddings=around, value=value)
    parts = []
    for place in np.ndindex(*block):
        steps = (slice(first, None, step) for first, step in zip(place, block, strict=True))
        parts.append(padded[(slice(None), *steps)])
    return np.concatenate(parts, axis=0)


def batch_to_space(x: Array, *, block: Sequence[int], crops: Sequence[Pair]) -> Array:
    """BATCH_TO_SPACE_ND: the inverse, after which elements at the edges are left out."""
    batch = x.shape[0] // int(np.prod(block))
    whole = [n * step for n, step in zip(x.shape[1:], block, strict=False)]
    result = np.empty((batch, *whole, *x.shape[1 + len(block) :]), x.dtype)
    for number, place in enumerate(np.ndindex(*block)):
        steps = (slice(first, None, step) for first, step in zip(place, block, strict=True))
        part = x[number * batch : (number + 1) * batch]
        result[(slice(None), *steps)] = part
    kept = (slice(before, n - after) for n, (before, after) in zip(whole, crops, strict=True))
    return result[(slice(None), *kept)]


def resize_nearest(x: Array, *, size: Pair, align_corners: bool, half_pixel_centers: bool) -> Array:
    """RESIZE_NEAREST_NEIGHBOR of (N, H, W, C); the place is worked out in float32."""

    def places(before: int, after: int) -> list[int]:
        single = np.float32
        if align_corners and after > 1:
            scale = single(before - 1) / single(after - 1)
        else:
            scale = single(before) / single(after)
        found = []
        for place in range(after):
            value = float(single(single(place) + single(0.5 if half_pixel_centers else 0)) * scale)
            whole = int(np.floor(value + 0.5)) if align_corners else int(np.floor(value))
            found.append(max(0, min(whole, before - 1)))
        return found

    rows, columns = places(x.shape[1], size[0]), places(x.shape[2], size[1])
    return np.take(np.take(x, rows, axis=1), columns, axis=2)
