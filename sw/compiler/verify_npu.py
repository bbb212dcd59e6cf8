"""Invariants of the lowered operators: those that all have, and those of the kind's record."""

from __future__ import annotations

from celosia.sw.compiler.ir import DType, Graph, NpuOp
from celosia.sw.compiler.ops.npu.checks import is_int8
from celosia.sw.compiler.ops.npu.registry import KINDS

__all__ = ["npu_violation"]


def npu_violation(graph: Graph, op: NpuOp) -> str | None:
    """Return what is wrong with a lowered operator, or None."""
    for name in (*op.inputs, *op.outputs):
        tensor = graph.tensors[name]
        if tensor.dtype is not DType.INT8:
            return f"{name!r} is {tensor.dtype}"
        if tensor.is_constant:
            return f"{name!r} is a constant, which nothing puts into memory"
        if tensor.scale is None or not tensor.scale > 0:
            return f"{name!r} has no scale"
        if not is_int8(tensor.zero_point):
            return f"zero point of {name!r} is {tensor.zero_point}"
    kind = KINDS.get(type(op))
    if kind is None:
        return f"unknown operator type {type(op).__name__}"
    return kind.verify(graph, op)
