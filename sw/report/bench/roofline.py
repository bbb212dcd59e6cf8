"""The least cycles that a model can take with memory ports of a width: its roofline."""

from __future__ import annotations

from collections.abc import Collection

from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.ir import DType, Graph, SourceOp
from celosia.sw.compiler.partition.macs import macs_of

__all__ = ["roofline_cycles"]

VIEWS = frozenset({"EXPAND_DIMS", "RESHAPE", "SQUEEZE"})
"""Operators that move nothing."""


def roofline_cycles(
    graph: Graph, multipliers: int, port_bytes: int, without: Collection[int] = ()
) -> int:
    """Return the sum over a model's operators of the longest of what each takes.

    That is its MACs by the multipliers, or the bytes of its constants, of its inputs or of its
    outputs by the width of a port. Constants, inputs and outputs have a port each; nothing overlaps
    between operators.

    Parameters
    ----------
    graph : Graph
        As the reader makes it: operators are the file's.
    multipliers : int
        MACs a cycle.
    port_bytes : int
        Bytes a cycle of each port.
    without : collection of int
        Numbers of operators in the file that are not counted: those of the host.
    """
    total = 0
    for op in graph.ops:
        assert isinstance(op, SourceOp), "the graph is not lowered"
        if op.name in VIEWS or op.origin.index in without:
            continue
        if any(graph.tensors[name].dtype is DType.FLOAT32 for name in (*op.inputs, *op.results)):
            continue  # between the host's floats and what the NPU computes with
        tensors = [graph.tensors[name] for name in dict.fromkeys(op.operands) if name is not None]
        constants = sum(tensor.size_bytes for tensor in tensors if tensor.is_constant)
        inputs = sum(tensor.size_bytes for tensor in tensors if not tensor.is_constant)
        outputs = sum(graph.tensors[name].size_bytes for name in op.results)
        total += max(
            ceil_div(macs_of(graph, op), multipliers),
            *(ceil_div(size, port_bytes) for size in (constants, inputs, outputs)),
        )
    return total
