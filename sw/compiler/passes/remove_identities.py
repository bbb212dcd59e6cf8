"""Removes operators without effect: reshapes to the same shape, rescaling to the same scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from celosia.sw.compiler.ir import Graph, Op, SourceOp
from celosia.sw.compiler.passes.rewrite import (
    RESHAPES,
    rename_inputs,
    rename_output,
    same_quantisation,
    with_ops,
)

__all__ = ["remove_identities"]


def remove_identities(graph: Graph) -> Graph:
    """Take out RESHAPE, QUANTIZE and PAD without effect, and join chains of reshapes.

    An operator between a model input and a model output stays, since both names must exist.
    """
    graph = _join_reshapes(graph)
    for name in [name for op in graph.ops for name in op.outputs[:1]]:
        op = graph.producer(name)  # as it is by now: what it reads may have another name
        if isinstance(op, SourceOp) and op.results[0] == name and _is_identity(graph, op):
            graph = _remove(graph, op)
    return graph


def _join_reshapes(graph: Graph) -> Graph:
    """Let a reshape of a reshape read the first one's input; dead code removal does the rest."""
    origin: dict[str, str] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if isinstance(op, SourceOp) and op.name in RESHAPES:
            op = rename_inputs(op, origin)
            source, result = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
            if source.elements == result.elements:
                origin[result.name] = source.name
        ops.append(op)
    return with_ops(graph, ops)


def _is_identity(graph: Graph, op: SourceOp) -> bool:
    if op.name not in {*RESHAPES, "QUANTIZE", "PAD"}:
        return False
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    if source.shape != result.shape or not same_quantisation(source, result):
        return False
    if op.name == "PAD":
        amounts = graph.tensors[op.inputs[1]].data
        return amounts is not None and not np.any(amounts)
    return True


def _remove(graph: Graph, op: SourceOp) -> Graph:
    source, result = op.inputs[0], op.results[0]
    others = [other for other in graph.ops if other is not op]
    if result not in graph.outputs:
        return with_ops(graph, [rename_inputs(other, {result: source}) for other in others])
    producer = graph.producer(source)
    if producer is None or len(producer.outputs) != 1 or source in graph.outputs:
        return graph
    # The output's name must survive, so the producer writes it and all readers follow.
    ops = [
        rename_output(other, result, (op.origin.index,))
        if other is producer
        else rename_inputs(other, {source: result})
        for other in others
    ]
    return replace(graph, ops=ops)
