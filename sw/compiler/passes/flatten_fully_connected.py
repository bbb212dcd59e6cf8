"""Lets a FULLY_CONNECTED behind a flattening RESHAPE read the image itself.

Its kernel then covers the whole image, so that no flattened copy has to exist; the lowering
orders the weights accordingly. TFLite gives FULLY_CONNECTED on [1, H, W, C] the same meaning.
"""

from __future__ import annotations

from math import prod

from celosia.sw.compiler.ir import Graph, Op, SourceOp, Tensor
from celosia.sw.compiler.passes.rewrite import rename_inputs, same_quantisation, with_ops

__all__ = ["flatten_fully_connected"]


def flatten_fully_connected(graph: Graph) -> Graph:
    """Rewire each FULLY_CONNECTED that reads a flattened [1, H, W, C]."""
    flattened: dict[str, str] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if isinstance(op, SourceOp):
            if op.name in {"RESHAPE", "SQUEEZE"}:
                source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
                if _flattens(source, result):
                    flattened[result.name] = source.name
            elif op.name == "FULLY_CONNECTED" and op.operands[0] in flattened:
                op = rename_inputs(op, {op.operands[0]: flattened[op.operands[0]]})
        ops.append(op)
    return with_ops(graph, ops)


def _flattens(source: Tensor, result: Tensor) -> bool:
    return (
        len(source.shape) == 4
        and source.shape[0] == 1
        and result.shape == (1, prod(source.shape))
        and same_quantisation(source, result)
    )
