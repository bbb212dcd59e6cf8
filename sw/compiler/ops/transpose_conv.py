"""Lowers TRANSPOSE_CONV to several convolutions, one a phase of its output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from celosia.sw.compiler.ir import Graph, SourceOp
from celosia.sw.compiler.ops.npu.phases import PhasesOp
from celosia.sw.compiler.ops.operator import Operator
from celosia.sw.compiler.ops.phases import phases_of, transposed_axis
from celosia.sw.compiler.ops.weights import conv_fields, require_channels, weighted_operands
from celosia.sw.compiler.passes.rewrite import contradiction, require_shape, unsupported
from celosia.sw.compiler.passes.window import require_nhwc, strides_of

__all__ = ["OPERATORS"]


def lower_transpose_conv(graph: Graph, op: SourceOp) -> PhasesOp:
    """Lower TRANSPOSE_CONV: the shape of its output, weights [cout, kh, kw, cin], the input.

    Its reference adds each input pixel times the kernel to the output, the strides apart; here
    each phase of the output gathers the kernel taps that reach it.
    """
    require_shape(graph, op, 0, graph.tensors[op.results[0]].shape)
    _, filter_, source, *bias = op.operands
    op = replace(op, operands=(source, filter_, *bias))
    x = weighted_operands(graph, op, rank=4, channel_axis=0)
    cout, kernel_h, kernel_w, cin = x.weights.shape
    height, width, channels = require_nhwc(op, x.source)
    out_h, out_w, _ = require_nhwc(op, x.result)
    if cin != channels:
        raise contradiction(op, f"weights {list(x.weights.shape)} for {channels} channels")
    if graph.tensors[op.inputs[1]].zero_point:
        raise unsupported(op, "its weights have a zero point", "quantise them symmetrically")
    require_channels(op, x.result, cout)
    stride_h, stride_w = strides_of(op)
    same = op.options.get("padding") == "SAME"
    weights = np.ascontiguousarray(x.weights.transpose(1, 2, 3, 0))
    rows = transposed_axis(height, out_h, kernel_h, stride_h, same=same)
    columns = transposed_axis(width, out_w, kernel_w, stride_w, same=same)

    def conv(taps_y: tuple[int, ...], taps_x: tuple[int, ...]) -> dict[str, Any]:
        own = np.zeros((1, 1, cin, cout), weights.dtype)
        if taps_y and taps_x:
            own = np.ascontiguousarray(weights[list(taps_y)][:, list(taps_x)])
        return conv_fields(op, x, own, cout, sum_axes=(0, 1, 2))

    return PhasesOp(
        origin=op.origin,
        fused=op.fused,
        input=x.source.name,
        output=x.result.name,
        phases=phases_of(op, rows, columns, conv),
        macs=height * width * weights.size,
    )


OPERATORS = (
    Operator(
        names=("TRANSPOSE_CONV",),
        operands=(3, 4),
        activations=(2,),
        where="array",
        limits="int8 weights with zero point 0",
        lower=lower_transpose_conv,
        uint8=False,
    ),
)
