"""Maxima and minima of two tensors: `MaximumOp`, which the vector engine computes.

A machine without the operation PAIR takes the maximum over windows of two vectors, of which the
second lies in the other tensor: the distance from one tensor to the other is that from window row
to window row. It is the same for all pixels where both tensors have the same pitches; else there is
a command for each row, or for each pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Vector, VectorOp
from celosia.hw.contract.operations import Operation
from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.arithmetic.whole import Range, split
from celosia.sw.compiler.ir import Graph, MaximumOp
from celosia.sw.compiler.ops.npu.checks import stack_rows
from celosia.sw.compiler.ops.npu.job import VectorJob
from celosia.sw.compiler.ops.npu.kind import Kind, same_positions
from celosia.sw.compiler.ops.npu.operands import (
    bad_operands,
    binary_step,
    in_step,
    same_channels,
)
from celosia.sw.compiler.steps import Step

__all__ = ["MAXIMUM"]


def _ranges(graph: Graph, op: MaximumOp, sources: tuple[Ranges, ...]) -> Ranges:
    a, b = in_step(sources)
    extreme = np.minimum if op.least else np.maximum
    return Ranges(extreme(a.low, b.low), extreme(a.high, b.high))


def _steps(op: MaximumOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    # What a window cannot do the machine needs PAIR for, and lacks it by name.
    if not config.can(Operation.PAIR) and not op.spread_b:
        yield from _by_windows(op, job, config)
        return
    fields = {
        "op": int(VectorOp.MAX),
        "pair": 1,
        "least": int(op.least),
        "act_min": -128,
        "act_max": 127,
    }
    yield binary_step(op, job, fields, config)


def _by_windows(op: MaximumOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    line, channel = config.line_bytes, job.tiles[0] * config.line_bytes
    slabs = (job.sources[0], job.sources[-1])
    heights = (job.in_heights[0], job.in_heights[-1])
    pitches_y = [s.layout.row_pitch if h > 1 else 0 for s, h in zip(slabs, heights, strict=True)]
    widths = (job.in_widths[0], job.in_widths[-1])
    pitches_x = [s.layout.pixel_pitch if w > 1 else 0 for s, w in zip(slabs, widths, strict=True)]
    for rows in _together(job.rows, pitches_y):
        for columns in _together(job.columns, pitches_x):
            addresses = sorted(
                slab.address(
                    rows[0] if height > 1 else 0,
                    columns[0] if width_of > 1 else 0,
                    channel,
                )
                // line
                for slab, height, width_of in zip(slabs, heights, widths, strict=True)
            )
            height, width = rows[1] - rows[0], columns[1] - columns[0]
            command = Vector(
                op=int(VectorOp.MAX),
                n_oc=job.tiles[1] - job.tiles[0],
                out_h=height,
                out_w=width,
                n_ky=2,
                least=int(op.least),
                a_addr=addresses[0],
                a_ky=addresses[1] - addresses[0],
                a_y=pitches_y[0] // line if height > 1 else 0,
                a_x=pitches_x[0] // line if width > 1 else 0,
                d_addr=job.target.address(rows[0], columns[0], channel) // line,
                d_y=job.target.layout.row_pitch // line if height > 1 else 0,
                d_x=job.target.layout.pixel_pitch // line if width > 1 else 0,
                act_min=-128,
                act_max=127,
            )
            yield Step(
                command=command,
                reads=tuple(slab.footprint for slab in slabs),
                writes=(job.target.footprint,),
                layer=job.layer,
            )


def _together(whole: Range, pitches: list[int]) -> Iterator[Range]:
    """Yield the range at once if both tensors have the same pitch along it, else bit by bit."""
    count = whole[1] - whole[0]
    for first, end in split(count, count if pitches[0] == pitches[1] else 1):
        yield whole[0] + first, whole[0] + end


MAXIMUM = Kind(
    op=MaximumOp,
    where="vector engine",
    verify=bad_operands,
    channelwise=same_channels,
    ranges=_ranges,
    in_place=True,
    stack=stack_rows,
    columns=same_positions,
    steps=_steps,
)
