"""Lowers operators that move elements and compute nothing.

Each is told by what it does to an array of element numbers; the map that comes out is cut into
regular parts (`celosia.sw.compiler.arithmetic.boxes`). Where nothing moves, it is a reshape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.boxes import Box, boxes_of
from celosia.sw.compiler.arithmetic.tables import joining_table
from celosia.sw.compiler.ir import (
    Graph,
    MoveOp,
    NpuOp,
    ReshapeOp,
    SourceOp,
    TableOp,
    Tensor,
    hwc,
    made_like,
)
from celosia.sw.compiler.ops.operator import Lowered, Operator, always
from celosia.sw.compiler.passes.rewrite import (
    constant_numbers,
    contradiction,
    same_quantisation,
    unsupported,
)

__all__ = ["OPERATORS", "lower_by_fill", "lower_by_pixels", "moved"]

MAX_MOVED = 1 << 22
"""Elements of the largest tensor whose map is worked out."""
MAX_INPUTS = 1 << 10

IndexArray = npt.NDArray[np.int64]


def lower_reshape(graph: Graph, op: SourceOp) -> ReshapeOp:
    """Lower RESHAPE, SQUEEZE or EXPAND_DIMS."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    if source.elements != result.elements:
        raise contradiction(op, f"input {list(source.shape)}, output {list(result.shape)}")
    # The kernel copies bytes whatever the scales say, and so does this.
    return ReshapeOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=result.name,
    )


class _Elements:
    """The elements that an operator may choose from, by number.

    Attributes
    ----------
    graph, op
        The operator.
    arrays : list of ndarray
        The numbers of the elements of each of its activations, in their shape.
    """

    def __init__(self, graph: Graph, op: SourceOp, names: Sequence[str]) -> None:
        self.graph, self.op = graph, op
        self.arrays: list[IndexArray] = []
        self.sources: list[str] = []
        self.constants = bytearray()
        self._firsts: list[int] = []
        self._constant_first = sum(graph.tensors[name].elements for name in names)
        first = 0
        for name in names:
            tensor = graph.tensors[name]
            if tensor.data is not None:
                start = self._constant_first + len(self.constants)
                self.constants += tensor.data.astype(np.int8).tobytes()
            else:
                if name not in self.sources:
                    self.sources.append(name)
                    self._firsts.append(first)
                    first += tensor.elements
                start = self._firsts[self.sources.index(name)]
            self.arrays.append(np.arange(start, start + tensor.elements).reshape(tensor.shape))

    def value(self, value: int) -> int:
        """Return the number of an element of this value."""
        self.constants.append(value & 0xFF)
        return self._constant_first + len(self.constants) - 1

    def numbers(self, operand: int) -> list[int]:
        """Return the values of an operand that has to be constant whole numbers."""
        numbers = constant_numbers(self.graph, self.op, operand)
        if numbers is None:
            raise unsupported(
                self.op, f"its operand {operand} is not constant", "use constant whole numbers"
            )
        return numbers

    def option(self, name: str) -> int:
        """Return an option that is a whole number."""
        value = self.op.options.get(name)
        if not isinstance(value, int):
            raise contradiction(self.op, f"{name} is {value}")
        return value

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the first."""
        if not -rank <= axis < rank:
            raise contradiction(self.op, f"axis {axis} of a tensor of rank {rank}")
        return axis % rank

    def split(self, elements: IndexArray) -> tuple[IndexArray, IndexArray]:
        """Return the source of each element and its number there; the constants come last."""
        firsts = np.array([*self._firsts, self._constant_first], np.int64)
        source = np.searchsorted(firsts, elements, side="right") - 1
        return source, elements - firsts[source]


_Arrange = Callable[[_Elements], Sequence[IndexArray]]


def _moving(
    arrange: _Arrange, data: tuple[int, ...] | None = (0,)
) -> Callable[[Graph, SourceOp], Lowered]:
    """Return what lowers an operator; `data` are its activations' places, None: all operands."""

    def lower(graph: Graph, op: SourceOp) -> Lowered:
        names = [name for place, name in enumerate(op.operands) if data is None or place in data]
        operands = [name for name in names if name is not None]
        _require(graph, op, operands)
        elements = _Elements(graph, op, operands)
        try:
            arrays = list(arrange(elements))
        except (ValueError, IndexError) as error:
            raise contradiction(op, str(error)) from error
        if len(arrays) != len(op.results):
            raise contradiction(op, f"it has {len(op.results)} outputs, not {len(arrays)}")
        return [
            _move(graph, op, elements, array, graph.tensors[name])
            for array, name in zip(arrays, op.results, strict=True)
        ], []

    return lower


def lower_by_fill(graph: Graph, op: SourceOp) -> Lowered:
    """Lower a PAD of any axis: by elements of the output's zero point."""
    return _moving(_pad)(graph, op)


def lower_by_pixels(
    graph: Graph, op: SourceOp, rows: Sequence[int], columns: Sequence[int]
) -> Lowered:
    """Lower an operator of an image whose result has these rows and columns of it."""
    return _moving(lambda e: [e.arrays[0][:, rows][:, :, columns]])(graph, op)


def lower_concatenation(graph: Graph, op: SourceOp) -> Lowered:
    """Lower CONCATENATION; the kernel of uint8 rescales."""
    result = graph.tensors[op.results[0]]
    names: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    ops: list[NpuOp] = []
    for name in dict.fromkeys(op.inputs) if op.arithmetic.unsigned else ():
        source = graph.tensors[name]
        if same_quantisation(source, result) or source.scale is None or result.scale is None:
            continue
        table = joining_table(source.scale, source.zero_point, result.scale, result.zero_point)
        taken = {*graph.tensors, *tensors}
        part = made_like(result, taken, f"{result.name}/{len(names)}", source.shape)
        if source.data is None:
            ops.append(TableOp(origin=op.origin, input=name, output=part.name, table=table))
        else:
            part = replace(part, data=table[source.data.view(np.uint8)])
        names[name], tensors[part.name] = part.name, part
    joined = replace(graph, tensors=graph.tensors | tensors)
    operands = tuple(None if name is None else names.get(name, name) for name in op.operands)
    moves, _ = _moving(_concatenation, None)(joined, replace(op, operands=operands))
    return [*ops, *moves], [tensor for tensor in tensors.values() if tensor.data is None]


def moved(
    graph: Graph,
    op: SourceOp,
    source: Tensor,
    result: Tensor,
    arrange: Callable[[IndexArray], IndexArray],
) -> NpuOp:
    """Return what makes a tensor of another one's elements, for an operator that needs it.

    Parameters
    ----------
    graph, op
        The operator.
    source : Tensor
        A tensor of the graph; it may be constant.
    result : Tensor
        Quantised as `source` is.
    arrange : callable
        From the numbers of the source's elements, in its shape, those of the result.
    """
    if source.elements > MAX_MOVED:
        raise unsupported(op, f"{source.name!r} is too large to move", "use smaller tensors")
    elements = _Elements(graph, op, [source.name])
    return _move(graph, op, elements, arrange(elements.arrays[0]), result)


def _require(graph: Graph, op: SourceOp, operands: list[str]) -> None:
    for result in (graph.tensors[name] for name in op.results):
        for source in (graph.tensors[name] for name in operands):
            if not same_quantisation(source, result):
                raise unsupported(
                    op, f"{source.name!r} and the output differ in quantisation", "convert again"
                )
        for tensor in (result, *(graph.tensors[name] for name in operands)):
            if tensor.elements > MAX_MOVED:
                raise unsupported(
                    op, f"{tensor.name!r} is too large to move", "use smaller tensors"
                )


def _move(
    graph: Graph, op: SourceOp, elements: _Elements, array: IndexArray, result: Tensor
) -> NpuOp:
    if array.shape != result.shape:
        raise contradiction(op, f"output {list(result.shape)}, it gives {list(array.shape)}")
    sources, numbers = elements.split(array.reshape(hwc(result.shape)))
    first = int(sources.flat[0])
    flat = numbers.reshape(-1)
    alone = first < len(elements.sources) and bool((sources == first).all())
    if alone and np.array_equal(flat, np.arange(flat.size)):
        source = graph.tensors[elements.sources[first]]
        if source.elements == result.elements:
            return ReshapeOp(
                origin=op.origin, fused=op.fused, input=source.name, output=result.name
            )
    boxes = boxes_of(sources, numbers)
    used = sorted({box.source for box in boxes if box.source < len(elements.sources)})
    places = {source: place for place, source in enumerate(used)}
    constants = bytearray()
    final: list[Box] = []
    for box in boxes:
        if box.source in places:
            final.append(replace(box, source=places[box.source]))
        else:
            final.append(_constant_box(box, elements.constants, constants, len(used)))
    return MoveOp(
        origin=op.origin,
        fused=op.fused,
        output=result.name,
        sources=tuple(elements.sources[source] for source in used),
        constants=bytes(constants),
        boxes=tuple(final),
    )


def _constant_box(box: Box, values: bytearray, constants: bytearray, source: int) -> Box:
    """Return a box of constants that are as long as its runs."""
    offset = len(constants)
    if box.step_y == box.step_x == box.step_c == 0:
        constants += bytes([values[box.offset]]) * box.channels
        return replace(box, source=source, offset=offset, step_c=1 if box.channels > 1 else 0)
    low, high = box.span
    constants += values[low : high + 1]
    return replace(box, source=source, offset=offset + box.offset - low)


# What each operator does to element numbers ------------------------------------------------------


def _concatenation(e: _Elements) -> list[IndexArray]:
    activation = e.op.options.get("fused_activation_function", "NONE")
    if activation != "NONE":
        raise unsupported(e.op, f"fused activation {activation}", "use an operator of its own")
    axis = e.axis(e.option("axis"), e.arrays[0].ndim)
    return [np.concatenate(e.arrays, axis)]


def _split(e: _Elements) -> list[IndexArray]:
    (axis,) = e.numbers(0)
    array = e.arrays[0]
    axis = e.axis(axis, array.ndim)
    if array.shape[axis] % len(e.op.results):
        raise contradiction(e.op, f"{array.shape[axis]} into {len(e.op.results)} equal parts")
    return np.split(array, len(e.op.results), axis)


def _split_v(e: _Elements) -> list[IndexArray]:
    sizes, (axis,) = e.numbers(1), e.numbers(2)
    array = e.arrays[0]
    axis = e.axis(axis, array.ndim)
    known = sum(size for size in sizes if size >= 0)
    sizes = [size if size >= 0 else array.shape[axis] - known for size in sizes]
    if sum(sizes) != array.shape[axis] or min(sizes) < 0:
        raise contradiction(e.op, f"parts of {sizes} of {array.shape[axis]}")
    return np.split(array, np.cumsum(sizes)[:-1].tolist(), axis)


def _slice(e: _Elements) -> list[IndexArray]:
    begins, sizes = e.numbers(1), e.numbers(2)
    array = e.arrays[0]
    places = []
    for extent, begin, size in zip(array.shape, begins, sizes, strict=True):
        end = extent if size == -1 else begin + size
        if not 0 <= begin <= end <= extent:
            raise contradiction(e.op, f"begin {begins} and size {sizes} of {list(array.shape)}")
        places.append(slice(begin, end))
    return [array[tuple(places)]]


def _strided_slice(e: _Elements) -> list[IndexArray]:
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


def _pack(e: _Elements) -> list[IndexArray]:
    return [np.stack(e.arrays, e.axis(e.option("axis"), e.arrays[0].ndim + 1))]


def _unpack(e: _Elements) -> list[IndexArray]:
    array = e.arrays[0]
    return list(np.moveaxis(array, e.axis(e.option("axis"), array.ndim), 0))


def _gather(e: _Elements) -> list[IndexArray]:
    if e.option("batch_dims"):
        raise unsupported(e.op, "batch dimensions", "gather without them")
    name = e.op.operands[1]
    shape = e.graph.tensors[name].shape if name is not None else ()
    indices = np.array(e.numbers(1), np.int64).reshape(shape)
    array = e.arrays[0]
    if indices.size and indices.min() < 0:
        raise contradiction(e.op, f"index {indices.min()}")
    return [np.take(array, indices, e.axis(e.option("axis"), array.ndim))]


def _tile(e: _Elements) -> list[IndexArray]:
    result = e.graph.tensors[e.op.results[0]]
    multiples = e.numbers(1)
    shape = [n * m for n, m in zip(e.arrays[0].shape, multiples, strict=True)]
    if tuple(shape) != result.shape:
        raise contradiction(e.op, f"output {list(result.shape)}, it gives {shape}")
    return [np.tile(e.arrays[0], multiples)]


def _broadcast_to(e: _Elements) -> list[IndexArray]:
    return [np.broadcast_to(e.arrays[0], e.graph.tensors[e.op.results[0]].shape)]


def _reverse(e: _Elements) -> list[IndexArray]:
    array = e.arrays[0]
    return [np.flip(array, tuple(e.axis(axis, array.ndim) for axis in e.numbers(1)))]


def _transpose(e: _Elements) -> list[IndexArray]:
    array = e.arrays[0]
    return [array.transpose([e.axis(axis, array.ndim) for axis in e.numbers(1)])]


def _amounts(e: _Elements) -> list[tuple[int, int]]:
    numbers, shape = e.numbers(1), e.arrays[0].shape
    if len(numbers) != 2 * len(shape):
        raise contradiction(e.op, f"{len(numbers)} amounts for rank {len(shape)}")
    amounts = list(zip(numbers[::2], numbers[1::2], strict=True))
    padded = [n + before + after for n, (before, after) in zip(shape, amounts, strict=True)]
    if min(numbers) < 0 or prod(padded) > MAX_MOVED:
        raise contradiction(e.op, f"it pads {list(shape)} by {amounts}")
    return amounts


def _pad(e: _Elements) -> list[IndexArray]:
    value = e.graph.tensors[e.op.results[0]].zero_point
    return [np.pad(e.arrays[0], _amounts(e), constant_values=e.value(value))]


def _pad_by_value(e: _Elements) -> list[IndexArray]:
    (value,) = e.numbers(2)
    return [np.pad(e.arrays[0], _amounts(e), constant_values=e.value(value))]


def _mirror_pad(e: _Elements) -> list[IndexArray]:
    amounts, symmetric = _amounts(e), e.option("mode")
    for extent, pair in zip(e.arrays[0].shape, amounts, strict=True):
        if max(pair) > extent - (0 if symmetric else 1):
            raise contradiction(e.op, f"it mirrors {pair} of {extent} elements")
    if symmetric:
        return [np.pad(e.arrays[0], amounts, mode="symmetric")]
    return [np.pad(e.arrays[0], amounts, mode="reflect")]


def _space_to_depth(e: _Elements) -> list[IndexArray]:
    block, array = e.option("block_size"), e.arrays[0]
    n, height, width, channels = array.shape
    rows, columns = height // block, width // block
    parts = array.reshape(n, rows, block, columns, block, channels)
    return [parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, block * block * channels)]


def _depth_to_space(e: _Elements) -> list[IndexArray]:
    block, array = e.option("block_size"), e.arrays[0]
    n, height, width, channels = array.shape
    parts = array.reshape(n, height, width, block, block, channels // (block * block))
    return [parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, height * block, width * block, -1)]


def _space_to_batch(e: _Elements) -> list[IndexArray]:
    """The blocks' places come first: they become the batch."""
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


def _batch_to_space(e: _Elements) -> list[IndexArray]:
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


def _resize_nearest(e: _Elements) -> list[IndexArray]:
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


def _mover(
    *names: str,
    operands: tuple[int, int],
    arrange: _Arrange,
    data: tuple[int, ...] | None = (0,),
    results: tuple[int, int] = (1, 1),
    limits: str = "",
) -> Operator:
    return Operator(
        names=names,
        operands=operands,
        results=results,
        activations=data,
        where="load engine",
        limits=limits,
        lower=_moving(arrange, data),
        batches=True,
        constants=True,
    )


def _reshape(name: str, operands: tuple[int, int]) -> Operator:
    return Operator(
        names=(name,),
        operands=operands,
        where="nothing to do",
        lower=lower_reshape,
        batches=True,
        apart=always,
    )


OPERATORS = (
    _reshape("RESHAPE", operands=(1, 2)),
    _reshape("SQUEEZE", operands=(1, 1)),
    _reshape("EXPAND_DIMS", operands=(2, 2)),
    _mover(
        "BATCH_TO_SPACE_ND",
        operands=(3, 3),
        arrange=_batch_to_space,
        limits="constant blocks and crops; around a convolution, or tensors without a batch",
    ),
    _mover("BROADCAST_TO", operands=(2, 2), arrange=_broadcast_to),
    Operator(
        names=("CONCATENATION",),
        operands=(1, MAX_INPUTS),
        activations=None,
        where="load engine",
        limits="equal quantisation of all tensors (uint8: any); no fused activation",
        lower=lower_concatenation,
        batches=True,
        constants=True,
    ),
    _mover("DEPTH_TO_SPACE", operands=(1, 1), arrange=_depth_to_space),
    _mover("GATHER", operands=(2, 2), arrange=_gather, limits="constant indices"),
    _mover("MIRROR_PAD", operands=(2, 2), arrange=_mirror_pad, limits="constant amounts"),
    _mover("PACK", operands=(1, MAX_INPUTS), arrange=_pack, data=None),
    _mover("PADV2", operands=(3, 3), arrange=_pad_by_value, limits="constant amounts and value"),
    _mover("RESIZE_NEAREST_NEIGHBOR", operands=(2, 2), arrange=_resize_nearest),
    _mover("REVERSE_V2", operands=(2, 2), arrange=_reverse, limits="constant axes"),
    _mover("SLICE", operands=(3, 3), arrange=_slice, limits="constant places and sizes"),
    _mover(
        "SPACE_TO_BATCH_ND",
        operands=(3, 3),
        arrange=_space_to_batch,
        limits="constant blocks and amounts; around a convolution, or tensors without a batch",
    ),
    _mover("SPACE_TO_DEPTH", operands=(1, 1), arrange=_space_to_depth),
    _mover("SPLIT", operands=(2, 2), arrange=_split, data=(1,), results=(1, MAX_INPUTS)),
    _mover("SPLIT_V", operands=(3, 3), arrange=_split_v, results=(1, MAX_INPUTS)),
    _mover(
        "STRIDED_SLICE",
        operands=(4, 4),
        arrange=_strided_slice,
        limits="constant places",
    ),
    _mover("TILE", operands=(2, 2), arrange=_tile, limits="constant multiples"),
    _mover("TRANSPOSE", operands=(2, 2), arrange=_transpose, limits="a constant permutation"),
    _mover("UNPACK", operands=(1, 1), arrange=_unpack, results=(1, MAX_INPUTS)),
    Operator(
        names=("DEQUANTIZE",),
        operands=(1, 1),
        remedy="at the ends of a model the host does it; inside, quantise the model fully",
    ),
)
