"""Operators that are several convolutions into one tensor: `PhasesOp`, which the array computes.

A transposed convolution with stride s, or an image that grows s times, has the same kernel for
every s-th row and column of its output. Each such grid of outputs, a *phase*, is a small
convolution of its own; the vector engine writes its results s pixels and s rows apart, so
nothing is multiplied by the zeros that a grown image would have between its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.ranges import BoolArray, Ranges
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ir import ConvOp, Graph, NpuOp
from celosia.sw.compiler.ops.npu.conv import CONV, numbers_violation
from celosia.sw.compiler.ops.npu.kind import InputLayout, Kind
from celosia.sw.compiler.ops.npu.window import window_rows, with_clamp
from celosia.sw.compiler.place.layout import ActLayout
from celosia.sw.compiler.place.phases import Phase, PhaseMapping, map_phases

__all__ = ["PHASES", "PhasesOp"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PhasesOp(NpuOp):
    """Several convolutions of one tensor that write parts of one output.

    Attributes
    ----------
    input : str
        int8, viewed by `hwc`.
    phases : tuple of Phase
        They cover the output, none twice.
    """

    input: str
    phases: tuple[Phase, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    @property
    def depthwise(self) -> bool:
        """Whether every output channel depends on its own input channel only."""
        return self.phases[0].conv.depthwise


def _with_convs(op: PhasesOp, convs: list[ConvOp], **changes: int) -> PhasesOp:
    phases = tuple(replace(p, conv=conv) for p, conv in zip(op.phases, convs, strict=True))
    return replace(op, phases=phases, **changes)  # type: ignore[arg-type]


def _verify(graph: Graph, op: PhasesOp) -> str | None:
    in_h, in_w, _ = graph.hwc(op.input)
    height, width, channels = graph.hwc(op.output)
    written = np.zeros((height, width), np.int64)
    for phase in op.phases:
        conv = phase.conv
        if (conv.input, conv.cout, conv.depthwise) != (op.input, channels, op.depthwise):
            return f"a phase makes {conv.cout} channels of {channels} from {conv.input!r}"
        violation = numbers_violation(graph, conv)
        if violation is not None:
            return violation
        if phase.rest is not None and phase.rest.shape != conv.weights.shape:
            return f"the rest of weights {conv.weights.shape} is {phase.rest.shape}"
        if min(phase.rows, phase.columns, phase.step_y, phase.step_x) < 1:
            return f"a phase of {phase.rows}x{phase.columns}"
        read = (
            (phase.rows - 1) * conv.stride_h + conv.reach_h - conv.pad_top - conv.pad_bottom,
            (phase.columns - 1) * conv.stride_w + conv.reach_w - conv.pad_left - conv.pad_right,
        )
        if read != (in_h, in_w):
            return f"a phase reads {read[0]}x{read[1]} pixels, input has {in_h}x{in_w}"
        last = (
            phase.y + (phase.rows - 1) * phase.step_y,
            phase.x + (phase.columns - 1) * phase.step_x,
        )
        if min(phase.y, phase.x) < 0 or last[0] >= height or last[1] >= width:
            return "a phase lies outside the output"
        written[phase.y : last[0] + 1 : phase.step_y, phase.x : last[1] + 1 : phase.step_x] += 1
    if (written != 1).any():
        return "its phases do not cover the output once"
    return None


def _ranges(graph: Graph, op: PhasesOp, sources: tuple[Ranges, ...]) -> Ranges:
    # The range of a convolution may have weights of any size.
    convs = [
        replace(phase.conv, weights=phase.weights)  # type: ignore[arg-type]
        for phase in op.phases
    ]
    each = [CONV.ranges(graph, conv, sources) for conv in convs]
    return Ranges(
        reduce(np.minimum, (ranges.low for ranges in each)),
        reduce(np.maximum, (ranges.high for ranges in each)),
    )


def _narrow(
    graph: Graph, op: PhasesOp, source: Ranges, inputs: BoolArray, outputs: BoolArray
) -> PhasesOp:
    assert CONV.narrow is not None, "a convolution has weights for each channel"
    convs = [CONV.narrow(graph, phase.conv, source, inputs, outputs) for phase in op.phases]
    left = int(outputs.sum())
    narrow = _with_convs(op, convs, folded_macs=op.macs - op.macs * left // outputs.size)
    phases = tuple(
        replace(p, rest=None if p.rest is None else p.rest[..., outputs]) for p in narrow.phases
    )
    return replace(narrow, phases=phases)


def _clamp(op: PhasesOp, low: int, high: int) -> PhasesOp:
    return _with_convs(op, [with_clamp(phase.conv, low, high) for phase in op.phases])


def _rows(op: PhasesOp, height: int, rows: Range) -> Range:
    parts = [(phase.conv, phase.within(rows)) for phase in op.phases]
    needed = [window_rows(conv, height, part) for conv, part in parts if part[0] < part[1]]
    return min(first for first, _ in needed), max(end for _, end in needed)


def _map(
    op: PhasesOp, layout: ActLayout, in_height: int, out_size: tuple[int, int], config: NpuConfig
) -> PhaseMapping:
    return map_phases(op.phases, layout, in_height, config)


def _stream_costs(
    op: PhasesOp, in_size: Range, out_size: Range, config: NpuConfig
) -> tuple[float, float]:
    wishes = CONV.input_layout
    assert wishes is not None, "a convolution has wishes"
    costs = [
        wishes.stream_costs(phase.conv, in_size, (phase.rows, phase.columns), config)
        for phase in op.phases
    ]
    return sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)


def _odd_rows(op: PhasesOp, config: NpuConfig) -> bool:
    wishes = CONV.input_layout
    return wishes is not None and any(wishes.odd_rows(p.conv, config) for p in op.phases)


PHASES = Kind(
    op=PhasesOp,
    where="array",
    verify=_verify,
    channelwise=lambda graph, op: op.depthwise,
    ranges=_ranges,
    narrow=_narrow,
    clamp=_clamp,
    rows=_rows,
    input_layout=InputLayout(
        odd_rows=_odd_rows,
        stream_costs=_stream_costs,
        reads_packed=lambda op: not op.depthwise,
    ),
    phases=_map,
)
