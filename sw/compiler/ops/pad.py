"""Lowers PAD on its own: a depthwise 1x1 convolution by one with explicit pads.

That is the identity inside, the zero point outside. Most a convolution takes in
(`celosia.sw.compiler.passes.fold_pad`); of axes other than rows and columns, it is a movement.
"""

from __future__ import annotations

import numpy as np
from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.ir import ConvOp, Graph, SourceOp
from celosia.sw.compiler.ops.moves import lower_by_fill
from celosia.sw.compiler.ops.operator import Lowered, Operator
from celosia.sw.compiler.passes.fold_pad import spatial_pads
from celosia.sw.compiler.passes.rewrite import same_quantisation, unsupported
from celosia.sw.compiler.passes.window import require_nhwc

__all__ = ["OPERATORS"]


def lower_pad(graph: Graph, op: SourceOp) -> ConvOp | Lowered:
    """Lower a PAD that no convolution could take in."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    amounts = graph.tensors[op.inputs[1]].data
    if amounts is not None and (amounts.shape != (4, 2) or np.any(amounts[[0, 3]])):
        return lower_by_fill(graph, op)
    top, bottom, left, right = spatial_pads(graph, op)
    if not same_quantisation(source, result):
        raise unsupported(op, "input and output have different quantisation", "convert again")
    _, _, channels = require_nhwc(op, source)
    return ConvOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=result.name,
        weights=np.ones((1, 1, channels), np.int8),
        bias=np.full(channels, -source.zero_point, np.int32),
        # 2**30 in Q0.31 after one left shift: exactly 1.
        multiplier=np.full(channels, 1 << 30, np.int32),
        shift=np.ones(channels, np.int8),
        rounding=Rounding.DOUBLE,
        depthwise=True,
        pad_top=top,
        pad_bottom=bottom,
        pad_left=left,
        pad_right=right,
        input_zero_point=source.zero_point,
        output_zero_point=result.zero_point,
        macs=0,
    )


def _pads_inside(graph: Graph, op: SourceOp) -> bool:
    amounts = graph.tensors[op.inputs[1]].data
    return amounts is not None and amounts.size > 1 and not np.any(amounts.reshape(-1, 2)[0])


OPERATORS = (
    Operator(
        names=("PAD",),
        operands=(2, 2),
        where="the convolution behind it, or the array; other axes: load engine",
        limits="constant amounts; equal quantisation of input and output",
        lower=lower_pad,
        apart=_pads_inside,
    ),
)
