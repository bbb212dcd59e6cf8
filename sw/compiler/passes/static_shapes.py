"""Makes shapes constant that a model works out at run time, but that are known.

Converters write the shape of a result that depends on the batch as a chain of SHAPE,
STRIDED_SLICE and PACK. The result's shape is in the file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from celosia.sw.compiler.ir import DType, Graph, Op, SourceOp, Tensor, fresh_name
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["make_shapes_static"]

_SHAPES: dict[str, tuple[int, slice]] = {
    "BROADCAST_TO": (1, slice(None)),
    "RESIZE_BILINEAR": (1, slice(1, 3)),
    "RESIZE_NEAREST_NEIGHBOR": (1, slice(1, 3)),
    "TRANSPOSE_CONV": (0, slice(None)),
}
"""The place of the operand that is the result's shape, and which dimensions it has."""


def make_shapes_static(graph: Graph) -> Graph:
    """Replace shapes that operators compute by constants; who computed them is dead then."""
    ops: list[Op] = []
    tensors: list[Tensor] = []
    taken = set(graph.tensors)
    for op in graph.ops:
        if isinstance(op, SourceOp) and (name := _computed_shape(graph, op)) is not None:
            place, dimensions = _SHAPES[op.name]
            data = np.array(graph.tensors[op.results[0]].shape[dimensions], np.int32)
            data.flags.writeable = False
            fresh = fresh_name(taken, f"{name}/static")
            taken.add(fresh)
            tensors.append(Tensor(name=fresh, shape=data.shape, dtype=DType.INT32, data=data))
            operands = (*op.operands[:place], fresh, *op.operands[place + 1 :])
            op = replace(op, operands=operands)
        ops.append(op)
    return with_ops(graph, ops, tensors)


def _computed_shape(graph: Graph, op: SourceOp) -> str | None:
    """Return the operand that is the shape of an operator's result, if it is computed."""
    if op.name not in _SHAPES:
        return None
    place, _ = _SHAPES[op.name]
    name = op.operands[place] if place < len(op.operands) else None
    if name is None or graph.tensors[name].data is not None or name in graph.inputs:
        return None
    return name
