"""Products of two tensors, and squares of their difference: `MulOp`, `SquaredDifferenceOp`.

The vector engine multiplies a value by another one that it has rescaled before
(``docs/arithmetic.md``). A multiplier above 1 is a shift to the left of the product, which is in
the rescaling of the second operand.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import SQUARE_LEFT_SHIFT, VectorOp
from celosia.sw.compiler.arithmetic.fixed import (
    multiply_by_quantized_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)
from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.ir import Graph, MulOp, SquaredDifferenceOp
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

__all__ = ["MOST_SHIFT", "MUL", "SQUARED_DIFFERENCE", "multiplied", "squared"]

UNITY = 1 << 30
"""The multiplier that halves: what it multiplies has been shifted left by one bit more."""
MOST_SHIFT = 8
"""Bits to the left that a product can be shifted by before it is rescaled."""


def _verify_mul(graph: Graph, op: MulOp) -> str | None:
    if op.left > MOST_SHIFT:
        return f"a shift of {op.left} bits to the left, at most {MOST_SHIFT}"
    return bad_operands(graph, op) or bad_clamp(op.act_min, op.act_max)


def multiplied(op: MulOp, a: int, b: int) -> int:
    """Return the product of two of the operands' values, as the operator makes it."""
    product = (a - op.zero_point_a) * (b - op.zero_point_b)
    high = saturating_rounding_doubling_high_mul(product << op.left, op.multiplier)
    scaled = rounding_divide_by_pot(high, op.left - op.shift)
    return min(max(scaled + op.zero_point_out, op.act_min), op.act_max)


def _ranges(graph: Graph, op: MulOp, sources: tuple[Ranges, ...]) -> Ranges:
    return corner_ranges(partial(multiplied, op), sources)


def _mul_steps(op: MulOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    fields = {
        "op": int(VectorOp.MUL),
        "zero_a": op.zero_point_a,
        "zero_b": op.zero_point_b,
        "zero_out": op.zero_point_out,
        "act_min": op.act_min,
        "act_max": op.act_max,
        "mult_b": UNITY,
        "shift_b": MOST_SHIFT - op.left,
        "mult_o": op.multiplier,
        "shift_o": op.left - op.shift,
    }
    yield binary_step(op, job, fields, config)


MUL = Kind(
    op=MulOp,
    where="vector engine",
    verify=_verify_mul,
    channelwise=same_channels,
    ranges=_ranges,
    clamp=with_clamp,
    in_place=True,
    stack=stack_rows,
    columns=same_positions,
    steps=_mul_steps,
)


def _verify_square(graph: Graph, op: SquaredDifferenceOp) -> str | None:
    if max(op.shift_a, op.shift_b, op.shift_out) > 0:
        return "a shift is positive"
    if not _is_half(op.multiplier_a, op.shift_a) and not _is_half(op.multiplier_b, op.shift_b):
        return "no operand is only halved"
    return bad_operands(graph, op)


def _is_half(multiplier: int, shift: int) -> bool:
    return (multiplier, shift) == (UNITY, 0)


def squared(op: SquaredDifferenceOp, a: int, b: int) -> int:
    """Return the rescaled square of the difference of two of the operands' values."""
    sides = [
        multiply_by_quantized_multiplier((value - zero) << SQUARE_LEFT_SHIFT, multiplier, shift)
        for value, zero, multiplier, shift in (
            (a, op.zero_point_a, op.multiplier_a, op.shift_a),
            (b, op.zero_point_b, op.multiplier_b, op.shift_b),
        )
    ]
    square = (sides[0] - sides[1]) ** 2
    scaled = multiply_by_quantized_multiplier(square, op.multiplier_out, op.shift_out)
    return min(max(scaled + op.zero_point_out, -128), 127)


def _square_steps(op: SquaredDifferenceOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    # The difference is a sum with one side negated: the side that is only halved, which is exact,
    # so that it does not matter which way halves are rounded.
    negates_a = _is_half(op.multiplier_a, op.shift_a)
    fields = {
        "op": int(VectorOp.SQUARED_DIFFERENCE),
        "zero_a": op.zero_point_a,
        "zero_b": op.zero_point_b,
        "zero_out": op.zero_point_out,
        "act_min": -128,
        "act_max": 127,
        "mult_a": -op.multiplier_a if negates_a else op.multiplier_a,
        "shift_a": -op.shift_a,
        "mult_b": op.multiplier_b if negates_a else -op.multiplier_b,
        "shift_b": -op.shift_b,
        "mult_o": op.multiplier_out,
        "shift_o": -op.shift_out,
    }
    yield binary_step(op, job, fields, config)


SQUARED_DIFFERENCE = Kind(
    op=SquaredDifferenceOp,
    where="vector engine",
    verify=_verify_square,
    channelwise=same_channels,
    in_place=True,
    stack=stack_rows,
    columns=same_positions,
    steps=_square_steps,
)
