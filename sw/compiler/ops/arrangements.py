"""What each operator that moves elements does to the numbers of its elements.

Each function takes the numbers of an operator's activations (`Elements`) and returns those of its
results, as NumPy arrays in their shapes.
"""

from __future__ import annotations

from math import prod

import numpy as np
from celosia.sw.compiler.ops.elements import MAX_MOVED, Elements, IndexArray
from celosia.sw.compiler.passes.rewrite import contradiction, unsupported

__all__ = [
    "arranged",
    "batch_to_space",
    "broadcast",
    "concatenated",
    "depth_to_space",
    "gathered",
    "mirrored",
    "packed",
    "padded",
    "padded_by_value",
    "resized_to_nearest",
    "reversed_along",
    "sliced",
    "space_to_batch",
    "space_to_depth",
    "split_by_sizes",
    "split_evenly",
    "strided",
    "tiled",
    "transposed",
    "unpacked",
]


def arranged(e: Elements) -> list[IndexArray]:
    """Return what ARRANGE, of ONNX models only, makes: the elements that its operand lists.

    An element below 0 is the option ``fill``.
    """
    numbers = e.graph.tensors[e.op.inputs[1]].data
    if numbers is None or numbers.size > MAX_MOVED or numbers.max() >= e.arrays[0].size:
        raise contradiction(e.op, "its elements are no list of its input's")
    fill = e.value(e.option("fill")) if numbers.min() < 0 else 0
    return [np.where(numbers < 0, fill, e.arrays[0].reshape(-1)[numbers])]


def concatenated(e: Elements) -> list[IndexArray]:
    """Return what CONCATENATION joins."""
    activation = e.op.options.get("fused_activation_function", "NONE")
    if activation != "NONE":
        raise unsupported(e.op, f"fused activation {activation}", "use an operator of its own")
    axis = e.axis(e.option("axis"), e.arrays[0].ndim)
    return [np.concatenate(e.arrays, axis)]


def split_evenly(e: Elements) -> list[IndexArray]:
    """Return the equal parts of SPLIT."""
    (axis,) = e.numbers(0)
    array = e.arrays[0]
    axis = e.axis(axis, array.ndim)
    if array.shape[axis] % len(e.op.results):
        raise contradiction(e.op, f"{array.shape[axis]} into {len(e.op.results)} equal parts")
    return np.split(array, len(e.op.results), axis)


def split_by_sizes(e: Elements) -> list[IndexArray]:
    """Return the parts of SPLIT_V."""
    sizes, (axis,) = e.numbers(1), e.numbers(2)
    array = e.arrays[0]
    axis = e.axis(axis, array.ndim)
    known = sum(size for size in sizes if size >= 0)
    sizes = [size if size >= 0 else array.shape[axis] - known for size in sizes]
    if sum(sizes) != array.shape[axis] or min(sizes) < 0:
        raise contradiction(e.op, f"parts of {sizes} of {array.shape[axis]}")
    return np.split(array, np.cumsum(sizes)[:-1].tolist(), axis)


def sliced(e: Elements) -> list[IndexArray]:
    """Return what SLICE takes."""
    begins, sizes = e.numbers(1), e.numbers(2)
    array = e.arrays[0]
    places = []
    for extent, begin, size in zip(array.shape, begins, sizes, strict=True):
        end = extent if size == -1 else begin + size
        if not 0 <= begin <= end <= extent:
            raise contradiction(e.op, f"begin {begins} and size {sizes} of {list(array.shape)}")
        places.append(slice(begin, end))
    return [array[tuple(places)]]


def strided(e: Elements) -> list[IndexArray]:
    """Return what STRIDED_SLICE takes."""
    begins, ends, steps = (e.numbers(operand) for operand in (1, 2, 3))
    masks = {
        name: e.option(f"{name}_mask")
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    if any(step == 0 for step in steps):
        raise contradiction(e.op, "a step is 0")
    array, places = e.arrays[0], list[int | slice | None]()
    marked = [
        {name for name, mask in masks.items() if mask >> number & 1}
        for number in range(len(begins))
    ]
    added = sum("new_axis" in marks and "ellipsis" not in marks for marks in marked)
    dimensions = array.ndim + added
    for marks, begin, end, step in zip(marked, begins, ends, steps, strict=True):
        if "ellipsis" in marks:
            # The kernel lets it cover one axis at least, and ignores what is then too much.
            places += [slice(None)] * max(1, dimensions + 1 - len(begins))
        elif "new_axis" in marks:
            places.append(None)
        elif "shrink_axis" in marks:
            places.append(begin)
        else:
            first = None if "begin" in marks else begin
            last = None if "end" in marks else end
            places.append(slice(first, last, step))
    return [array[tuple(places[:dimensions])]]


def packed(e: Elements) -> list[IndexArray]:
    """Return what PACK stacks along a new axis."""
    return [np.stack(e.arrays, e.axis(e.option("axis"), e.arrays[0].ndim + 1))]


def unpacked(e: Elements) -> list[IndexArray]:
    """Return what UNPACK takes apart along an axis."""
    array = e.arrays[0]
    return list(np.moveaxis(array, e.axis(e.option("axis"), array.ndim), 0))


def gathered(e: Elements) -> list[IndexArray]:
    """Return what GATHER takes by constant indices."""
    if e.option("batch_dims"):
        raise unsupported(e.op, "batch dimensions", "gather without them")
    name = e.op.operands[1]
    shape = e.graph.tensors[name].shape if name is not None else ()
    indices = np.array(e.numbers(1), np.int64).reshape(shape)
    array = e.arrays[0]
    if indices.size and indices.min() < 0:
        raise contradiction(e.op, f"index {indices.min()}")
    return [np.take(array, indices, e.axis(e.option("axis"), array.ndim))]


def tiled(e: Elements) -> list[IndexArray]:
    """Return what TILE repeats."""
    result = e.graph.tensors[e.op.results[0]]
    multiples = e.numbers(1)
    shape = [n * m for n, m in zip(e.arrays[0].shape, multiples, strict=True)]
    if tuple(shape) != result.shape:
        raise contradiction(e.op, f"output {list(result.shape)}, it gives {shape}")
    return [np.tile(e.arrays[0], multiples)]


def broadcast(e: Elements) -> list[IndexArray]:
    """Return what BROADCAST_TO repeats along axes of one."""
    return [np.broadcast_to(e.arrays[0], e.graph.tensors[e.op.results[0]].shape)]


def reversed_along(e: Elements) -> list[IndexArray]:
    """Return what REVERSE_V2 turns round."""
    array = e.arrays[0]
    return [np.flip(array, tuple(e.axis(axis, array.ndim) for axis in e.numbers(1)))]


def transposed(e: Elements) -> list[IndexArray]:
    """Return what TRANSPOSE makes: its axes in another order."""
    array = e.arrays[0]
    return [array.transpose([e.axis(axis, array.ndim) for axis in e.numbers(1)])]


def _amounts(e: Elements) -> list[tuple[int, int]]:
    numbers, shape = e.numbers(1), e.arrays[0].shape
    if len(numbers) != 2 * len(shape):
        raise contradiction(e.op, f"{len(numbers)} amounts for rank {len(shape)}")
    amounts = list(zip(numbers[::2], numbers[1::2], strict=True))
    padded = [n + before + after for n, (before, after) in zip(shape, amounts, strict=True)]
    if min(numbers) < 0 or prod(padded) > MAX_MOVED:
        raise contradiction(e.op, f"it pads {list(shape)} by {amounts}")
    return amounts


def padded(e: Elements) -> list[IndexArray]:
    """Return what PAD surrounds with the zero point."""
    value = e.graph.tensors[e.op.results[0]].zero_point
    return [np.pad(e.arrays[0], _amounts(e), constant_values=e.value(value))]


def padded_by_value(e: Elements) -> list[IndexArray]:
    """Return what PADV2 surrounds with its operand."""
    (value,) = e.numbers(2)
    return [np.pad(e.arrays[0], _amounts(e), constant_values=e.value(value))]


def mirrored(e: Elements) -> list[IndexArray]:
    """Return what MIRROR_PAD surrounds with the elements inside."""
    amounts, symmetric = _amounts(e), e.option("mode")
    for extent, pair in zip(e.arrays[0].shape, amounts, strict=True):
        if max(pair) > extent - (0 if symmetric else 1):
            raise contradiction(e.op, f"it mirrors {pair} of {extent} elements")
    if symmetric:
        return [np.pad(e.arrays[0], amounts, mode="symmetric")]
    return [np.pad(e.arrays[0], amounts, mode="reflect")]


def space_to_depth(e: Elements) -> list[IndexArray]:
    """Return what SPACE_TO_DEPTH makes: blocks of pixels become channels."""
    block, array = e.option("block_size"), e.arrays[0]
    n, height, width, channels = array.shape
    rows, columns = height // block, width // block
    parts = array.reshape(n, rows, block, columns, block, channels)
    return [parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, block * block * channels)]


def depth_to_space(e: Elements) -> list[IndexArray]:
    """Return what DEPTH_TO_SPACE makes: channels become blocks of pixels."""
    block, array = e.option("block_size"), e.arrays[0]
    n, height, width, channels = array.shape
    parts = array.reshape(n, height, width, block, block, channels // (block * block))
    return [parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, height * block, width * block, -1)]


def space_to_batch(e: Elements) -> list[IndexArray]:
    """Return what SPACE_TO_BATCH_ND makes: the blocks' places become the batch, and come first."""
    block, amounts = e.numbers(1), e.numbers(2)
    array, count = e.arrays[0], len(block)
    if len(amounts) != 2 * count or min((*block, 1)) < 1 or min((*amounts, 0)) < 0:
        raise contradiction(e.op, f"blocks of {block}, padded by {amounts}")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    if prod(n + sum(pair) for n, pair in zip(array.shape[1:], pairs, strict=False)) > MAX_MOVED:
        raise contradiction(e.op, f"it pads {list(array.shape)} by {pairs}")
    value = e.value(e.graph.tensors[e.op.results[0]].zero_point)
    rest = array.shape[1 + count :]
    padded = np.pad(array, [(0, 0), *pairs, *((0, 0) for _ in rest)], constant_values=value)
    batch, *sizes = padded.shape[: 1 + count]
    split = [v for n, b in zip(sizes, block, strict=True) for v in (n // b, b)]
    parts = padded.reshape(batch, *split, *rest)
    inner = [2 + 2 * i for i in range(count)]
    outer = [1 + 2 * i for i in range(count)]
    order = [*inner, 0, *outer, *range(1 + 2 * count, parts.ndim)]
    return [parts.transpose(order).reshape(-1, *split[::2], *rest)]


def batch_to_space(e: Elements) -> list[IndexArray]:
    """Return what BATCH_TO_SPACE_ND makes: the batch becomes the blocks' places."""
    block, crops = e.numbers(1), e.numbers(2)
    array, count = e.arrays[0], len(block)
    if len(crops) != 2 * count or min((*block, 1)) < 1 or min((*crops, 0)) < 0:
        raise contradiction(e.op, f"blocks of {block}, cropped by {crops}")
    batch, sizes, rest = array.shape[0], array.shape[1 : 1 + count], array.shape[1 + count :]
    parts = array.reshape(*block, batch // prod(block), *sizes, *rest)
    order = [count, *(axis for i in range(count) for axis in (count + 1 + i, i))]
    order += range(2 * count + 1, parts.ndim)
    whole = [n * b for n, b in zip(sizes, block, strict=True)]
    spread = parts.transpose(order).reshape(-1, *whole, *rest)
    kept = (slice(crops[2 * i], n - crops[2 * i + 1]) for i, n in enumerate(whole))
    return [spread[(slice(None), *kept)]]


def resized_to_nearest(e: Elements) -> list[IndexArray]:
    """Return what RESIZE_NEAREST_NEIGHBOR takes of an image."""
    array, sizes = e.arrays[0], e.numbers(1)
    if len(sizes) != 2 or not all(0 < size <= MAX_MOVED for size in sizes):
        raise contradiction(e.op, f"a size of {sizes}")
    aligned, centred = bool(e.option("align_corners")), bool(e.option("half_pixel_centers"))
    rows, columns = (
        _nearest(before, after, aligned=aligned, centred=centred)
        for before, after in zip(array.shape[1:3], sizes, strict=True)
    )
    return [array[:, rows][:, :, columns]]


def _nearest(before: int, after: int, *, aligned: bool, centred: bool) -> IndexArray:
    """Return which of `before` pixels each of `after` is, in the kernel's single precision."""
    single = np.float32
    scale = single(before) / single(after)
    if aligned and after > 1:
        scale = single(before - 1) / single(after - 1)
    place = (np.arange(after, dtype=single) + single(0.5 if centred else 0)) * scale
    if aligned:
        whole = np.floor(place.astype(np.float64) + 0.5)
    else:
        whole = np.floor(place.astype(np.float64))
    return np.clip(whole.astype(np.int64), 0, before - 1)
