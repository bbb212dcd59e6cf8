"""What operators with a window and a clamp have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ir import AddOp, ConvOp, PoolOp

__all__ = ["window_rows", "with_clamp"]

Clamped = TypeVar("Clamped", ConvOp, AddOp, PoolOp)


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
