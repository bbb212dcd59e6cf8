"""Lowers operators that move elements and compute nothing."""

from __future__ import annotations

from celosia.sw.compiler.ir import Graph, ReshapeOp, SourceOp
from celosia.sw.compiler.ops.operator import Operator
from celosia.sw.compiler.passes.rewrite import contradiction

__all__ = ["OPERATORS"]


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


OPERATORS = (
    Operator(names=("RESHAPE",), operands=(1, 2), where="nothing to do", lower=lower_reshape),
    Operator(names=("SQUEEZE",), operands=(1, 1), where="nothing to do", lower=lower_reshape),
    Operator(names=("EXPAND_DIMS",), operands=(2, 2), where="nothing to do", lower=lower_reshape),
    Operator(
        names=("DEQUANTIZE",),
        operands=(1, 1),
        remedy="convert with inference_output_type = tf.int8",
    ),
)
