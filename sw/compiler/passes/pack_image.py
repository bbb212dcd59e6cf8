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
from celosia.sw.compiler.ir import Graph, Op, Origin, ReshapeOp, Tensor, made_like
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["pack_image"]


def pack_image(graph: Graph, config: NpuConfig) -> Graph:
    """Return the graph with packed images before its dense layers; the same graph if none gains."""
    ops: list[Op] = []
    tensors: dict[str, Tensor] = {}
    for op in graph.npu_ops:
        kind, flat = kind_of(op), None
        if kind.flat is not None and (name := op.inputs[0]) not in graph.inputs:
            flat = kind.flat(op, graph.hwc(name), config)
        if flat is None:
            ops.append(op)
            continue
        source = graph.tensors[name]
        taken = graph.tensors | tensors
        packed = made_like(source, taken, f"{source.name}/packed", (1, 1, 1, source.elements))
        tensors[packed.name] = packed
        origin = Origin("", -1, "PACK_IMAGE")
        ops.append(ReshapeOp(origin=origin, output=packed.name, input=name))
        ops.append(replace(flat, input=packed.name))
    return with_ops(graph, ops, tensors.values()) if tensors else graph
