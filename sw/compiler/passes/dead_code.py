"""Removes operators and tensors that no output depends on."""

from __future__ import annotations

from dataclasses import replace

from celosia.sw.compiler.ir import Graph, Op, SourceOp

__all__ = ["eliminate_dead_code"]


def eliminate_dead_code(graph: Graph) -> Graph:
    """Keep what the outputs need, and the model's inputs even when unused.

    Shape arithmetic feeding a RESHAPE goes too, because a RESHAPE's result has a static shape and
    its second operand is never read.
    """
    needed = set(graph.outputs)
    ops: list[Op] = []
    for op in reversed(graph.ops):
        if not needed.intersection(op.outputs):
            continue
        if isinstance(op, SourceOp) and op.name == "RESHAPE":
            op = replace(op, operands=op.operands[:1])
        needed.update(op.inputs)
        ops.append(op)
    keep = needed | set(graph.inputs)
    for op in ops:
        keep.update(op.outputs)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in keep}
    return replace(graph, ops=ops[::-1], tensors=tensors)
