"""Lowers operators that move elements and compute nothing."""

from __future__ import annotations

from celosia.sw.compiler.ir import Graph, ReshapeOp, TfliteOp
from celosia.sw.compiler.passes.rewrite import contradiction

__all__ = ["lower_reshape"]


def lower_reshape(graph: Graph, op: TfliteOp) -> ReshapeOp:
    """Lower RESHAPE, SQUEEZE or EXPAND_DIMS."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    if source.elements != result.elements:
        raise contradiction(op, f"input {list(source.shape)}, output {list(result.shape)}")
    # The kernel copies bytes whatever the scales say, and so does this.
    return ReshapeOp(
        tflite_index=op.tflite_index,
        tflite_name=op.tflite_name,
        fused=op.fused,
        input=source.name,
        output=result.name,
    )
