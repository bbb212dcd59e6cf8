"""Copies operands that the array takes from memory where they have no pixels of whole lines there.

The weight memory is loaded in whole bus words. A tensor's pixels take whole lines in memory, unless
somebody reads them dense: the host an input or output of the model, a view of another shape, the
load engine. Where the channels are whole lines the two are the same.
"""

from __future__ import annotations

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.ir import Graph, MoveOp, NpuOp, Op, Tensor, made_like
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["copy_operands"]


def copy_operands(graph: Graph, config: NpuConfig) -> Graph:
    """Return the graph with copies of such operands; the same graph if there are none.

    Parameters
    ----------
    graph : Graph
        Lowered.
    config : NpuConfig
        The machine.
    """
    ops: list[Op] = []
    tensors = dict(graph.tensors)
    for op in graph.npu_ops:
        kind = kind_of(op)
        for place in kind.in_memory:
            name = op.inputs[place] if place < len(op.inputs) else None
            if name is None or not _is_dense(graph, name, config):
                continue
            source = graph.tensors[name]
            copy = made_like(source, tensors, f"{op.output}/{place}")
            tensors[copy.name] = copy
            ops.append(_copy(graph, op, source, copy))
            assert kind.with_input is not None, "it takes its input from anywhere in memory"
            op = kind.with_input(op, place, copy.name)
        ops.append(op)
    return with_ops(graph, ops, tensors.values()) if len(ops) > len(graph.ops) else graph


def _is_dense(graph: Graph, name: str, config: NpuConfig) -> bool:
    """Whether a tensor's pixels in memory are, or may be, no whole lines."""
    if graph.hwc(name)[2] % config.line_bytes == 0:
        return False
    users = [user for user in graph.npu_ops if name in (*user.inputs, *user.outputs)]
    return (
        name in graph.inputs
        or name in graph.outputs
        or any(kind_of(user).placement is Placement.VIEW for user in users)
        or any(
            kind_of(user).placement is Placement.LOADED and name in user.inputs for user in users
        )
    )


def _copy(graph: Graph, op: NpuOp, source: Tensor, copy: Tensor) -> MoveOp:
    box = Box.dense(*graph.hwc(source.name))
    return MoveOp(origin=op.origin, output=copy.name, sources=(source.name,), boxes=(box,))
