"""Ways around system memory for what moves in a model with variables.

What a window over time leaves for the next inference is a part of the window, which is on chip: it
is stored from there (`PartOp`). And what is moved twice is moved once: a movement of what another
one made reads the other one's sources, so that nothing between the two has to be in memory.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.boxes import Box, boxes_of
from celosia.sw.compiler.ir import Graph, MoveOp, NpuOp, PartOp
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.passes.dead_code import eliminate_dead_code
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["shorten_moves"]

IndexArray = npt.NDArray[np.int64]


def shorten_moves(graph: Graph) -> Graph:
    """Return the graph with fewer movements through memory; the same graph if there are none.

    Parameters
    ----------
    graph : Graph
        Lowered.
    """
    if not graph.state:
        return graph
    ops: list[NpuOp] = []
    moves: dict[str, MoveOp] = {}
    views: dict[str, str] = {}
    for op in graph.npu_ops:
        if kind_of(op).placement is Placement.VIEW:
            (source,) = op.inputs
            views[op.output] = views.get(source, source)
        if not isinstance(op, MoveOp):
            ops.append(op)
        elif part := _part(graph, op):
            ops.append(part)
        else:
            moves[op.output] = _through(graph, op, moves, views)
            ops.append(moves[op.output])
    if all(new is old for new, old in zip(ops, graph.npu_ops, strict=True)):
        return graph
    return eliminate_dead_code(with_ops(graph, ops))


def _part(graph: Graph, op: MoveOp) -> PartOp | None:
    """Return the movement as rows and columns of a tensor on chip, if it is that."""
    if op.output not in graph.outputs or graph.consumers(op.output) or len(op.sources) != 1:
        return None
    (source,) = op.sources
    height, width, channels = graph.hwc(source)
    rows, columns, depth = graph.hwc(op.output)
    if source in graph.inputs or depth != channels or op.constants:
        return None
    y, x = divmod(op.boxes[0].offset // channels, width)
    if y + rows > height or x + columns > width:
        return None
    numbers = np.arange(height * width * channels).reshape(height, width, channels)
    wanted = numbers[y : y + rows, x : x + columns]
    _, elements = _map(graph, op)
    if not np.array_equal(elements, wanted):
        return None
    return PartOp(
        origin=op.origin, fused=op.fused, input=source, output=op.output, y=y, x=x, macs=op.macs
    )


def _through(graph: Graph, op: MoveOp, moves: dict[str, MoveOp], views: dict[str, str]) -> MoveOp:
    """Return a movement of what the movements in front of it have moved, if that is as short."""
    inner = [moves.get(views.get(name, name)) for name in op.sources]
    if not any(inner):
        return op
    sources, elements = _map(graph, op)
    names: list[str] = []
    constants = bytearray(op.constants)
    new_sources = np.full(sources.shape, -1)
    new_elements = elements.copy()
    count = len(op.boxes)

    def number(name: str) -> int:
        if name not in names:
            names.append(name)
        return names.index(name)

    for place, (name, move) in enumerate(zip(op.sources, inner, strict=True)):
        here = sources == place
        if move is None:
            new_sources[here] = number(name)
            continue
        count += len(move.boxes)
        first, second = (array.reshape(-1)[elements[here]] for array in _map(graph, move))
        numbers = np.array([*(number(source) for source in move.sources), -1])
        new_sources[here] = numbers[first]
        # The constants of both, one after the other; they are number -1 until all are known.
        new_elements[here] = np.where(first == len(move.sources), second + len(constants), second)
        constants += move.constants
    new_sources[new_sources == -1] = len(names)
    boxes = boxes_of(new_sources, new_elements)
    if len(boxes) > count:
        return op
    # Sources that nothing is taken from any more are left out.
    used = sorted({box.source for box in boxes} - {len(names)})
    places = {source: place for place, source in enumerate([*used, len(names)])}
    return replace(
        op,
        sources=tuple(names[source] for source in used),
        constants=bytes(constants),
        boxes=tuple(replace(box, source=places[box.source]) for box in boxes),
    )


def _map(graph: Graph, op: MoveOp) -> tuple[IndexArray, IndexArray]:
    """Return for each element of the output its source and its number there."""
    shape = graph.hwc(op.output)
    sources, elements = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for box in op.boxes:
        place = (
            slice(box.y, box.y + box.height * box.stride_y, box.stride_y),
            slice(box.x, box.x + box.width * box.stride_x, box.stride_x),
            slice(box.c, box.c + box.channels),
        )
        sources[place] = box.source
        elements[place] = _numbers(box)
    return sources, elements


def _numbers(box: Box) -> IndexArray:
    rows, columns, channels = (
        np.arange(count, dtype=np.int64) * step
        for count, step in (
            (box.height, box.step_y),
            (box.width, box.step_x),
            (box.channels, box.step_c),
        )
    )
    return box.offset + rows[:, None, None] + columns[:, None] + channels
