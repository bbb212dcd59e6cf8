"""Packs an image of few channels before a dense layer reads all of it.

A pixel takes whole lines on chip. A dense layer over an image of 4 channels, whose kernel is the
whole image, therefore takes a pass for each pixel with a quarter of the rows of an array of 16 in
use, and as many lines of weights of which three quarters are zeros. If the image goes through
memory instead, it comes back as one vector without gaps: a store of short runs and a load of one
long one, for a fraction of the passes and weights. Whether that is faster the prediction says
(`celosia.sw.compiler.build`).
"""

from __future__ import annotations

from dataclasses import replace

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.ir import (
    ConvOp,
    Graph,
    Int8Array,
    Op,
    Origin,
    ReshapeOp,
    Tensor,
    made_like,
)
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["pack_image"]


def pack_image(graph: Graph, config: NpuConfig) -> Graph:
    """Return the graph with packed images before its dense layers; the same graph if none gains."""
    ops: list[Op] = []
    tensors: dict[str, Tensor] = {}
    for op in graph.ops:
        if not isinstance(op, ConvOp) or not _gains(graph, op, config):
            ops.append(op)
            continue
        source = graph.tensors[op.input]
        height, width, channels = graph.hwc(op.input)
        depth = height * width * channels
        taken = graph.tensors | tensors
        packed = made_like(source, taken, f"{source.name}/packed", (1, 1, 1, depth))
        tensors[packed.name] = packed
        ops.append(
            ReshapeOp(
                origin=Origin("", -1, "PACK_IMAGE"),
                output=packed.name,
                input=op.input,
            )
        )

        def flat(weights: Int8Array, depth: int = depth) -> Int8Array:
            return weights.reshape(1, 1, depth, -1)

        ops.append(
            replace(
                op,
                input=packed.name,
                weights=flat(op.weights),
                more_weights=tuple(map(flat, op.more_weights)),
                stride_h=1,
                stride_w=1,
                dilation_h=1,
                dilation_w=1,
            )
        )
    return with_ops(graph, ops, tensors.values()) if tensors else graph


def _gains(graph: Graph, op: ConvOp, config: NpuConfig) -> bool:
    """Whether a kernel is the whole image, of pixels that would be padded."""
    height, width, channels = graph.hwc(op.input)
    if op.depthwise or op.input in graph.inputs or (op.kernel_h, op.kernel_w) != (height, width):
        return False
    padded = max(op.pad_top, op.pad_bottom, op.pad_left, op.pad_right) > 0
    if padded or height * width == 1:
        return False
    lines = height * width * ceil_div(channels, config.rows)
    return ceil_div(height * width * channels, config.rows) < lines
