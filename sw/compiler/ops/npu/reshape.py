"""Other shapes of the same bytes: `ReshapeOp`, for which nothing is computed."""

from __future__ import annotations

from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.ir import Graph, ReshapeOp
from celosia.sw.compiler.ops.npu.checks import differing_elements
from celosia.sw.compiler.ops.npu.kind import Kind, Placement

__all__ = ["RESHAPE"]


def _keeps_channels(graph: Graph, op: ReshapeOp) -> bool:
    return graph.hwc(op.input)[2] == graph.hwc(op.output)[2]


def _ranges(graph: Graph, op: ReshapeOp, sources: tuple[Ranges, ...]) -> Ranges:
    return sources[0] if _keeps_channels(graph, op) else Ranges.full(graph.hwc(op.output)[2])


RESHAPE = Kind(
    op=ReshapeOp,
    where="nothing to do",
    verify=lambda graph, op: differing_elements(graph, op.input, op.output),
    channelwise=_keeps_channels,
    ranges=_ranges,
    placement=Placement.VIEW,
    # The bytes of a sample stay together.
    stack=lambda graph, op, samples: op,
)
