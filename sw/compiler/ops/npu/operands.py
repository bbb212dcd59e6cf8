"""What operators of two tensors have in common.

An operand may have one row or one column, which is read for each of the output's; the second one
may have one channel, which the vector engine takes for all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.ir import BinaryOp, Graph
from celosia.sw.compiler.ops.npu.checks import bad_broadcast
from celosia.sw.compiler.ops.npu.job import VectorJob, elementwise_step
from celosia.sw.compiler.steps import Step

__all__ = ["bad_operands", "binary_step", "corner_ranges", "in_step", "same_channels"]


def bad_operands(graph: Graph, op: BinaryOp) -> str | None:
    """Hold that the operands' shapes make the output's."""
    a, b, result = (graph.hwc(name) for name in (*op.inputs, op.output))
    if op.spread_b and b[2] != 1:
        return f"{b[2]} channels, of which one is for all"
    return bad_broadcast(a, (*b[:2], result[2]) if op.spread_b else b, result)


def same_channels(graph: Graph, op: BinaryOp) -> bool:
    """Whether channel c of the output depends on channel c of both operands only."""
    return not op.spread_b


def in_step(sources: tuple[Ranges, ...]) -> tuple[Ranges, ...]:
    """Return the ranges of both operands for the channels of the output."""
    channels = max(len(source.low) for source in sources)
    return tuple(
        Ranges(np.broadcast_to(s.low, (channels,)), np.broadcast_to(s.high, (channels,)))
        for s in sources
    )


def corner_ranges(function: Callable[[int, int], int], sources: tuple[Ranges, ...]) -> Ranges:
    """Return the ranges of a function that is greatest and least where its operands are."""
    a, b = in_step(sources)
    corners = np.array(
        [
            [function(int(x), int(y)) for x, y in zip(ends_a, ends_b, strict=True)]
            for ends_a in (a.low, a.high)
            for ends_b in (b.low, b.high)
        ],
        np.int64,
    )
    return Ranges(corners.min(axis=0), corners.max(axis=0))


def binary_step(op: BinaryOp, job: VectorJob, fields: dict[str, int], config: NpuConfig) -> Step:
    """Return the command that an operator of two tensors is, given what is its own of it."""
    last = len(job.sources) - 1  # 0, where both operands are one tensor
    spread = {"b_oc": int(op.spread_b)}
    return elementwise_step(job, {"a": 0, "b": last}, fields | spread, config)
