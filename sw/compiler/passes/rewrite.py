"""What several passes need to make a new graph from an old one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from celosia.errors import ModelError, UnsupportedError
from celosia.sw.compiler.ir import Graph, NpuOp, Op, SourceOp, Tensor

__all__ = [
    "RESHAPES",
    "constant_numbers",
    "contradiction",
    "rename_inputs",
    "rename_output",
    "require_shape",
    "same_quantisation",
    "unsupported",
    "with_ops",
]

RESHAPES = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
"""Operators of which the result is the first operand's bytes."""


def with_ops(graph: Graph, ops: Iterable[Op], tensors: Iterable[Tensor] = ()) -> Graph:
    """Copy a graph with other operators, and with tensors added or replaced by name."""
    merged = dict(graph.tensors)
    merged.update((tensor.name, tensor) for tensor in tensors)
    return replace(graph, ops=list(ops), tensors=merged)


def rename_inputs(op: Op, names: Mapping[str, str]) -> Op:
    """Copy a source-level operator that reads other tensors; itself when nothing changes."""
    if not isinstance(op, SourceOp) or not any(name in names for name in op.inputs):
        return op
    operands = tuple(None if n is None else names.get(n, n) for n in op.operands)
    return replace(op, operands=operands)


def rename_output(op: Op, name: str, fused: tuple[int, ...] = ()) -> Op:
    """Copy an operator with one output so that it writes `name`.

    Parameters
    ----------
    op : Op
        The operator.
    name : str
        Tensor to write.
    fused : tuple of int
        File operators it performs from now on, besides its own.
    """
    changes: dict[str, Any] = {"fused": (*op.fused, *fused)}
    if isinstance(op, NpuOp):
        return replace(op, output=name, **changes)
    return replace(op, results=(name,), **changes)  # type: ignore[call-arg]


def same_quantisation(a: Tensor, b: Tensor) -> bool:
    """Whether equal bytes mean equal numbers in both tensors."""
    return (
        a.dtype == b.dtype
        and a.scale is not None
        and a.scale == b.scale
        and a.zero_point == b.zero_point
    )


def constant_numbers(graph: Graph, op: SourceOp, operand: int) -> list[int] | None:
    """Return the values of an operand of whole numbers; None if it is not constant, or absent."""
    name = op.operands[operand] if operand < len(op.operands) else None
    data = None if name is None else graph.tensors[name].data
    if data is None or data.dtype.kind not in "iu":
        return None
    return [int(value) for value in data.flat]


def require_shape(graph: Graph, op: SourceOp, operand: int, expected: tuple[int, ...]) -> None:
    """Hold that the operand which says an operator's size is constant, and right.

    Raises
    ------
    UnsupportedError
        If it is computed at run time.
    ModelError
        If it says another size than the result's.
    """
    told = constant_numbers(graph, op, operand)
    if told is None:
        raise unsupported(op, "its output's size is not constant", "use a constant size")
    if told != list(expected):
        raise contradiction(op, f"its size is {told}, its output's {list(expected)}")


def unsupported(op: Op, cause: str, remedy: str = "") -> UnsupportedError:
    """Make the error for an operator the NPU does not run; the caller raises it."""
    return UnsupportedError(
        op.title, cause, remedy, op_index=op.origin.index, op_type=op.origin.name
    )


def contradiction(op: Op, cause: str) -> ModelError:
    """Make the error for an operator whose fields contradict its tensors."""
    return ModelError(
        op.title,
        cause,
        "the file contradicts itself: convert the model again",
        op_index=op.origin.index,
        op_type=op.origin.name,
    )
