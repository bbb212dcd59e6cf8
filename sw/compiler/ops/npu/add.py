"""Additions of two tensors: `AddOp`, which the vector engine computes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADD_LEFT_SHIFT, VectorOp
from celosia.sw.compiler.arithmetic.fixed import (
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)
from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.ir import AddOp, Graph
from celosia.sw.compiler.ops.npu.checks import bad_clamp, stack_rows
from celosia.sw.compiler.ops.npu.job import VectorJob
from celosia.sw.compiler.ops.npu.kind import Kind, same_positions
from celosia.sw.compiler.ops.npu.operands import (
    bad_operands,
    binary_step,
    corner_ranges,
    same_channels,
)
from celosia.sw.compiler.ops.npu.window import with_clamp
from celosia.sw.compiler.steps import Step

__all__ = ["ADD", "added"]


def _verify(graph: Graph, op: AddOp) -> str | None:
    if max(op.shift_a, op.shift_b, op.shift_out) > 0:
        return "a shift is positive"
    if op.left_shift != ADD_LEFT_SHIFT:
        return f"headroom of {op.left_shift} bits, the vector engine has {ADD_LEFT_SHIFT}"
    return bad_operands(graph, op) or bad_clamp(op.act_min, op.act_max)


def added(op: AddOp, a: int, b: int) -> int:
    """Return the sum of two of the operands' values, as the operator makes it."""

    def scaled(value: int, multiplier: int, shift: int) -> int:
        high = saturating_rounding_doubling_high_mul(value, multiplier)
        return rounding_divide_by_pot(high, -shift)

    scaled_a = scaled((a - op.zero_point_a) << op.left_shift, op.multiplier_a, op.shift_a)
    scaled_b = scaled((b - op.zero_point_b) << op.left_shift, op.multiplier_b, op.shift_b)
    total = scaled(scaled_a + scaled_b, op.multiplier_out, op.shift_out)
    return min(max(total + op.zero_point_out, op.act_min), op.act_max)


def _ranges(graph: Graph, op: AddOp, sources: tuple[Ranges, ...]) -> Ranges:
    return corner_ranges(partial(added, op), sources)


def _steps(op: AddOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    fields = {
        "op": int(VectorOp.ADD),
        "zero_a": op.zero_point_a,
        "zero_b": op.zero_point_b,
        "zero_out": op.zero_point_out,
        "act_min": op.act_min,
        "act_max": op.act_max,
        "mult_a": op.multiplier_a,
        "shift_a": -op.shift_a,
        "mult_b": op.multiplier_b,
        "shift_b": -op.shift_b,
        "mult_o": op.multiplier_out,
        "shift_o": -op.shift_out,
    }
    yield binary_step(op, job, fields, config)


ADD = Kind(
    op=AddOp,
    where="vector engine",
    verify=_verify,
    channelwise=same_channels,
    ranges=_ranges,
    clamp=with_clamp,
    in_place=True,
    piece=lambda op, height, rows, channels: op,
    stack=stack_rows,
    columns=same_positions,
    steps=_steps,
)
