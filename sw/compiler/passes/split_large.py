"""Makes several operators of one that is too large for a machine's commands or memory."""

from __future__ import annotations

from dataclasses import replace

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.ir import Graph, NpuOp
from celosia.sw.compiler.ops.npu.registry import kind_of

__all__ = ["split_large"]


def split_large(graph: Graph, config: NpuConfig) -> Graph:
    """Return the graph with operators split that their kind splits; else the same graph.

    Parameters
    ----------
    graph : Graph
        Lowered.
    config : NpuConfig
        The machine.
    """
    ops: list[NpuOp] = []
    tensors = dict(graph.tensors)
    for op in graph.npu_ops:
        split = kind_of(op).split
        ops += [op] if split is None else split(op, tensors, config)
    if len(ops) == len(graph.ops) and all(a is b for a, b in zip(ops, graph.ops, strict=True)):
        return graph
    return replace(graph, ops=[*ops], tensors=tensors)
