"""Lowers softmax."""

from __future__ import annotations

from celosia.sw.compiler.arithmetic.tables import exp_table
from celosia.sw.compiler.ir import Graph, SoftmaxOp, SourceOp
from celosia.sw.compiler.ops.operator import Operator, always
from celosia.sw.compiler.passes.rewrite import contradiction, unsupported

__all__ = ["OPERATORS"]

SOFTMAX_SCALE = 1 / 256
SOFTMAX_ZERO_POINT = -128


def lower_softmax(graph: Graph, op: SourceOp) -> SoftmaxOp:
    """Lower SOFTMAX over the last dimension."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    if source.scale is None:
        raise contradiction(op, "its input has no scale")
    if source.shape != result.shape or not source.shape:
        raise contradiction(op, f"input {list(source.shape)}, output {list(result.shape)}")
    if (result.scale, result.zero_point) != (SOFTMAX_SCALE, SOFTMAX_ZERO_POINT):
        raise unsupported(
            op,
            f"output scale {result.scale:g} and zero point {result.zero_point}",
            "an int8 softmax has scale 1/256 and zero point -128: convert again",
        )
    beta = op.options.get("beta")
    if not isinstance(beta, float) or not beta > 0:
        raise contradiction(op, f"beta is {beta}")
    table, cutoff = exp_table(source.scale, beta)
    channels = source.shape[-1]
    return SoftmaxOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=result.name,
        rows=source.elements // channels,
        channels=channels,
        beta=beta,
        exp_table=table,
        cutoff=cutoff,
    )


OPERATORS = (
    Operator(
        names=("SOFTMAX",),
        operands=(1, 1),
        where="vector engine",
        limits="over the last dimension, of which a row and its result are on chip and have at most"
        " 65,535 elements; output scale 1/256 and zero point -128",
        lower=lower_softmax,
        batches=True,
        apart=always,
    ),
)
