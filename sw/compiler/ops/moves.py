"""Lowers operators that move elements and compute nothing.

Each is told by what it does to an array of element numbers
(`celosia.sw.compiler.ops.arrangements`); the map that comes out is cut into regular parts
(`celosia.sw.compiler.arithmetic.boxes`). Where nothing moves, it is a reshape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
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
from celosia.sw.compiler.ops import arrangements
from celosia.sw.compiler.ops.elements import MAX_MOVED, Elements, IndexArray
from celosia.sw.compiler.ops.operator import Lowered, Operator, always
from celosia.sw.compiler.passes.rewrite import contradiction, same_quantisation, unsupported

__all__ = ["OPERATORS", "lower_by_fill", "lower_by_pixels", "moved"]

MAX_INPUTS = 1 << 10


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


_Arrange = Callable[[Elements], Sequence[IndexArray]]


def _moving(
    arrange: _Arrange, data: tuple[int, ...] | None = (0,)
) -> Callable[[Graph, SourceOp], Lowered]:
    """Return what lowers an operator; `data` are its activations' places, None: all operands."""

    def lower(graph: Graph, op: SourceOp) -> Lowered:
        names = [name for place, name in enumerate(op.operands) if data is None or place in data]
        operands = [name for name in names if name is not None]
        _require(graph, op, operands)
        elements = Elements(graph, op, operands)
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
    return _moving(arrangements.padded)(graph, op)


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
    moves, _ = _moving(arrangements.concatenated, None)(joined, replace(op, operands=operands))
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
    _require_movable(op, source)
    elements = Elements(graph, op, [source.name])
    return _move(graph, op, elements, arrange(elements.arrays[0]), result)


def _require(graph: Graph, op: SourceOp, operands: list[str]) -> None:
    for result in (graph.tensors[name] for name in op.results):
        for source in (graph.tensors[name] for name in operands):
            if not same_quantisation(source, result):
                raise unsupported(
                    op, f"{source.name!r} and the output differ in quantisation", "convert again"
                )
        for tensor in (result, *(graph.tensors[name] for name in operands)):
            _require_movable(op, tensor)


def _require_movable(op: SourceOp, tensor: Tensor) -> None:
    if tensor.elements > MAX_MOVED:
        raise unsupported(op, f"{tensor.name!r} is too large to move", "use smaller tensors")


def _move(
    graph: Graph, op: SourceOp, elements: Elements, array: IndexArray, result: Tensor
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
        arrange=arrangements.batch_to_space,
        limits="constant blocks and crops; around a convolution, or tensors without a batch",
    ),
    replace(_mover("ARRANGE", operands=(2, 2), arrange=arrangements.arranged), made=True),
    _mover("BROADCAST_TO", operands=(2, 2), arrange=arrangements.broadcast),
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
    _mover("DEPTH_TO_SPACE", operands=(1, 1), arrange=arrangements.depth_to_space),
    _mover("GATHER", operands=(2, 2), arrange=arrangements.gathered, limits="constant indices"),
    _mover("MIRROR_PAD", operands=(2, 2), arrange=arrangements.mirrored, limits="constant amounts"),
    _mover("PACK", operands=(1, MAX_INPUTS), arrange=arrangements.packed, data=None),
    _mover(
        "PADV2",
        operands=(3, 3),
        arrange=arrangements.padded_by_value,
        limits="constant amounts and value",
    ),
    _mover("RESIZE_NEAREST_NEIGHBOR", operands=(2, 2), arrange=arrangements.resized_to_nearest),
    _mover(
        "REVERSE_V2", operands=(2, 2), arrange=arrangements.reversed_along, limits="constant axes"
    ),
    _mover(
        "SLICE", operands=(3, 3), arrange=arrangements.sliced, limits="constant places and sizes"
    ),
    _mover(
        "SPACE_TO_BATCH_ND",
        operands=(3, 3),
        arrange=arrangements.space_to_batch,
        limits="constant blocks and amounts; around a convolution, or tensors without a batch",
    ),
    _mover("SPACE_TO_DEPTH", operands=(1, 1), arrange=arrangements.space_to_depth),
    _mover(
        "SPLIT",
        operands=(2, 2),
        arrange=arrangements.split_evenly,
        data=(1,),
        results=(1, MAX_INPUTS),
    ),
    _mover(
        "SPLIT_V", operands=(3, 3), arrange=arrangements.split_by_sizes, results=(1, MAX_INPUTS)
    ),
    _mover(
        "STRIDED_SLICE",
        operands=(4, 4),
        arrange=arrangements.strided,
        limits="constant places",
    ),
    _mover("TILE", operands=(2, 2), arrange=arrangements.tiled, limits="constant multiples"),
    _mover(
        "TRANSPOSE",
        operands=(2, 2),
        arrange=arrangements.transposed,
        limits="a constant permutation",
    ),
    _mover("UNPACK", operands=(1, 1), arrange=arrangements.unpacked, results=(1, MAX_INPUTS)),
    Operator(
        names=("DEQUANTIZE",),
        operands=(1, 1),
        remedy="at the ends of a model the host does it; inside, quantise the model fully",
    ),
)
