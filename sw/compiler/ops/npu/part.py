"""Rows and columns of a tensor that only memory needs: `PartOp`, which the store engine does.

A window over time leaves its newest rows to the next inference. They are on chip, in the window:
they are stored from there, and nothing is loaded for it.
"""

from __future__ import annotations

from celosia.sw.compiler.ir import Graph, PartOp
from celosia.sw.compiler.ops.npu.kind import Kind, Placement

__all__ = ["PART"]


def _verify(graph: Graph, op: PartOp) -> str | None:
    height, width, channels = graph.hwc(op.input)
    rows, columns, depth = graph.hwc(op.output)
    if depth != channels:
        return f"{channels} channels, {depth} of them"
    if min(op.y, op.x) < 0 or op.y + rows > height or op.x + columns > width:
        return f"{rows}x{columns} from ({op.y}, {op.x}) on are outside of {height}x{width}"
    if op.output not in graph.outputs or graph.consumers(op.output):
        return f"{op.output!r} is needed on chip"
    return None


PART = Kind(
    op=PartOp,
    where="store engine",
    verify=_verify,
    channelwise=lambda graph, op: False,
    placement=Placement.STORED,
    grouped=False,
    part=lambda op: (op.y, op.x),
    reason=lambda op: "store engine, a part of what is on chip",
)
