"""Pooling: `PoolOp`, which the vector engine computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Vector, VectorOp
from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.compiler.ir import Graph, PoolOp
from celosia.sw.compiler.ops.npu.checks import bad_clamp, window_count
from celosia.sw.compiler.ops.npu.job import VectorJob
from celosia.sw.compiler.ops.npu.kind import Kind
from celosia.sw.compiler.ops.npu.large_pool import split_pool
from celosia.sw.compiler.ops.npu.window import (
    stack_windows,
    window_columns,
    window_piece,
    window_rows,
    with_clamp,
)
from celosia.sw.compiler.place.layout import ActLayout
from celosia.sw.compiler.place.limits import most
from celosia.sw.compiler.steps import Step

__all__ = ["POOL"]

MOST_TAPS = most(Vector, "n_ky")
"""Rows, or columns, of a window that one loop of a command counts."""


def _verify(graph: Graph, op: PoolOp) -> str | None:
    height, width, channels = graph.hwc(op.input)
    out = (
        window_count(height, op.kernel_h, op.stride_h, op.pad_top, op.pad_bottom),
        window_count(width, op.kernel_w, op.stride_w, op.pad_left, op.pad_right),
        channels,
    )
    if out != graph.hwc(op.output):
        return f"computes {out}, output is {graph.hwc(op.output)}"
    if max(op.pad_top, op.pad_bottom) >= op.kernel_h or max(op.pad_left, op.pad_right) >= (
        op.kernel_w
    ):
        return "a window lies outside the image"
    return bad_clamp(op.act_min, op.act_max)


def _ranges(graph: Graph, op: PoolOp, sources: tuple[Ranges, ...]) -> Ranges:
    """A maximum is one of the values, and an average lies between them also when rounded."""
    (source,) = sources
    return Ranges(
        np.clip(source.low, op.act_min, op.act_max),
        np.clip(source.high, op.act_min, op.act_max),
    )


@dataclass(frozen=True)
class _Clipped:
    """Outputs ``first`` to ``end - 1`` along an axis, whose windows have `taps` pixels inside the
    image, the first window's from `start` on."""

    first: int
    end: int
    start: int
    taps: int


def _steps(op: PoolOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    """Yield one command for the interior and some for each clipped border."""
    source, line = job.sources[0], config.line_bytes
    for y in _clip(job.rows, op.kernel_h, op.stride_h, op.pad_top, job.in_heights[0]):
        for x in _clip(job.columns, op.kernel_w, op.stride_w, op.pad_left, job.in_widths[0]):
            fields = {
                **_window(op.kind, y.taps, x.taps, source.layout, line),
                "op": int(VectorOp.AVERAGE if op.kind == "avg" else VectorOp.MAX),
                "n_oc": job.tiles[1] - job.tiles[0],
                "out_h": y.end - y.first,
                "out_w": x.end - x.first,
                "a_addr": source.address(y.start, x.start, job.tiles[0] * line) // line,
                "a_y": op.stride_h * source.layout.row_pitch // line,
                "a_x": op.stride_w * source.layout.pixel_pitch // line,
                "d_addr": job.target.address(y.first, x.first, job.tiles[0] * line) // line,
                "d_y": job.target.layout.row_pitch // line,
                "d_x": job.target.layout.pixel_pitch // line,
                "act_min": op.act_min,
                "act_max": op.act_max,
            }
            if op.kind == "avg":
                fields |= _reciprocal(y.taps * x.taps, inward=op.inward)
            # Steps that are never taken may not fit their fields.
            if fields["out_h"] == 1:
                fields |= {"a_y": 0, "d_y": 0}
            if fields["out_w"] == 1:
                fields |= {"a_x": 0, "d_x": 0}
            yield Step(
                command=Vector(**fields),
                reads=(source.footprint,),
                writes=(job.target.footprint,),
                layer=job.layer,
            )


def _window(kind: str, rows: int, columns: int, layout: ActLayout, line: int) -> dict[str, int]:
    """Return the loops of a window, of one too long to be counted along an axis both."""
    pitch_y, pitch_x = layout.row_pitch // line, layout.pixel_pitch // line
    if columns == 1 and rows > MOST_TAPS:
        outer, inner, step = _two_loops(rows, exact=kind == "avg")
        return {"n_ky": outer, "a_ky": step * pitch_y, "n_kx": inner, "a_kx": pitch_y}
    if rows == 1 and columns > MOST_TAPS:
        outer, inner, step = _two_loops(columns, exact=kind == "avg")
        return {"n_ky": outer, "a_ky": step * pitch_x, "n_kx": inner, "a_kx": pitch_x}
    return {"n_ky": rows, "a_ky": pitch_y, "n_kx": columns, "a_kx": pitch_x}


def _two_loops(taps: int, *, exact: bool) -> tuple[int, int, int]:
    """Return turns of two loops that cover a window, and the taps from turn to turn of the outer.

    Unless each tap has to be taken once (`exact`), turns may overlap; if they must not and do, the
    outer loop has more turns than a command counts.
    """
    outer = ceil_div(taps, MOST_TAPS)
    if not exact:
        step = taps // outer
        return outer, taps - (outer - 1) * step, step
    divisors = (inner for inner in range(MOST_TAPS, 0, -1) if taps % inner == 0)
    inner = next(divisors)
    return taps // inner, inner, inner


def _clip(outputs: Range, kernel: int, stride: int, pad_before: int, size: int) -> list[_Clipped]:
    """Group outputs whose windows have the same number of pixels inside, and equal steps."""
    groups: list[_Clipped] = []
    for index in range(*outputs):
        start = index * stride - pad_before
        first, end = max(0, start), min(size, start + kernel)
        last = groups[-1] if groups else None
        if (
            last is not None
            and last.taps == end - first
            and last.start + (index - last.first) * stride == first
        ):
            groups[-1] = _Clipped(last.first, index + 1, last.start, last.taps)
        else:
            groups.append(_Clipped(index, index + 1, first, end - first))
    return groups


def _reciprocal(count: int, *, inward: bool) -> dict[str, int]:
    """Return how AVERAGE divides by `count` (docs/arithmetic.md)."""
    shift = (count - 1).bit_length()
    return {
        "half": (count - 1) // 2 if inward else count // 2,
        "mult_o": -(-(1 << (30 + shift)) // count),
        "shift_o": shift,
    }


POOL = Kind(
    op=PoolOp,
    where="vector engine",
    verify=_verify,
    channelwise=lambda graph, op: True,
    ranges=_ranges,
    clamp=with_clamp,
    split=split_pool,
    rows=window_rows,
    piece=lambda op, height, rows, channels: window_piece(op, height, rows),
    stack=stack_windows,
    columns=window_columns,
    steps=_steps,
    behind_array=True,
)
