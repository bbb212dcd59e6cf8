"""What operators with a window and a clamp have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ir import AddOp, ConvOp, Graph, MatmulOp, MulOp, PoolOp
from celosia.sw.compiler.ops.npu.checks import stride_over_samples

__all__ = ["stack_windows", "window_columns", "window_piece", "window_rows", "with_clamp"]

Clamped = TypeVar("Clamped", ConvOp, AddOp, MatmulOp, MulOp, PoolOp)
Windowed = TypeVar("Windowed", ConvOp, PoolOp)


def window_rows(op: ConvOp | PoolOp, height: int, rows: Range) -> Range:
    """Return the rows of an image of `height` rows that windows of some output rows cover."""
    return _covered(height, rows, op.stride_h, op.reach_h, op.pad_top)


def window_columns(op: ConvOp | PoolOp, width: int, columns: Range) -> Range:
    """Return the columns of an image that windows of some output columns cover."""
    return _covered(width, columns, op.stride_w, op.reach_w, op.pad_left)


def window_piece(op: Windowed, height: int, rows: Range) -> Windowed:
    """Return an operator whose image is what windows of some output rows cover: others are padding.

    Parameters
    ----------
    op : ConvOp or PoolOp
    height : int
        Of its image.
    rows : (int, int)
        Output rows that it computes: first and end.
    """
    top = rows[0] * op.stride_h - op.pad_top
    bottom = (rows[1] - 1) * op.stride_h - op.pad_top + op.reach_h
    return replace(op, pad_top=max(0, -top), pad_bottom=max(0, bottom - height))


def _covered(size: int, outputs: Range, stride: int, reach: int, before: int) -> Range:
    first = max(0, outputs[0] * stride - before)
    end = min(size, (outputs[1] - 1) * stride + reach - before)
    first = min(first, size - 1)
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
