"""Which values each channel of each tensor can have, by interval arithmetic on exact integers.

The lowered operators are monotone in every operand (tables aside, of which all values are looked
at), so the ends of an output's interval are the operator's results for ends of its operands'
intervals. Intervals are exact for a single operator and contain all reachable values for a
network: a channel whose interval is one value is constant for every input.
"""

from __future__ import annotations

from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.ops.npu.registry import kind_of

__all__ = ["channel_ranges"]


def channel_ranges(graph: Graph) -> dict[str, Ranges]:
    """Return the ranges of every tensor that the operators of a lowered graph read or write.

    Parameters
    ----------
    graph : Graph
        Lowered.
    """
    ranges = {name: Ranges.full(graph.hwc(name)[2]) for name in graph.inputs}
    for op in graph.npu_ops:
        sources = tuple(ranges[name] for name in op.inputs)
        ranges[op.output] = kind_of(op).ranges(graph, op, sources)
    return ranges
