"""What operators with a window and a clamp have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ir import AddOp, ConvOp, Graph, MulOp, PoolOp
from celosia.sw.compiler.ops.npu.checks import stride_over_samples

__all__ = ["stack_windows", "window_rows", "with_clamp"]

Clamped = TypeVar("Clamped", ConvOp, AddOp, MulOp, PoolOp)
Windowed = TypeVar("Windowed", ConvOp, PoolOp)


def window_rows(op: ConvOp | PoolOp, height: int, rows: Range) -> Range:
    """Return the rows of an image of `height` rows that windows of some output rows cover."""
    first = max(0, rows[0] * op.stride_h - op.pad_top)
    end = min(height, (rows[1] - 1) * op.stride_h + op.reach_h - op.pad_top)
    first = min(first, height - 1)
    return first, max(end, first + 1)


def with_clamp(op: Clamped, low: int, high: int) -> Clamped:
    """Copy an operator so that results outside of `low` to `high` become these."""
    return replace(
        op,
        act_min=min(max(op.act_min, low), high),
        act_max=min(max(op.act_max, low), high),
    )


def stack_windows(graph: Graph, op: Windowed, samples: int) -> Windowed | None:
    """Return an operator with a window for samples below one another, if it stays within each."""
    size, out = graph.hwc(op.input)[0], graph.hwc(op.output)[0]
    stride = stride_over_samples(size, out, op.stride_h, (op.pad_top, op.pad_bottom))
    return None if stride is None else replace(op, stride_h=stride)
