"""Lowers operators of two tensors: ADD, SUB, MUL, MAXIMUM, MINIMUM, SQUARED_DIFFERENCE, PRELU.

Where one operand is constant they may be a function of the other: one for all channels, or one for
each. Other constants are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from celosia.hw.contract.isa import SQUARE_LEFT_SHIFT
from celosia.sw.compiler.arithmetic import tables
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    QuantizationError,
    add_parameters,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)
from celosia.sw.compiler.arithmetic.single import Pair, fit_product, fit_sum
from celosia.sw.compiler.ir import (
    AddOp,
    BinaryOp,
    ConvOp,
    DType,
    Exactness,
    Graph,
    Int8Array,
    MaximumOp,
    MulOp,
    Scaling,
    SourceOp,
    SquaredDifferenceOp,
    TableOp,
    Tensor,
)
from celosia.sw.compiler.ops.broadcast import Operands, operands_of
from celosia.sw.compiler.ops.clamp import clamp_of
from celosia.sw.compiler.ops.elementwise import table_op
from celosia.sw.compiler.ops.exactness import near_enough
from celosia.sw.compiler.ops.npu.add import added
from celosia.sw.compiler.ops.npu.product import MOST_SHIFT, multiplied, squared
from celosia.sw.compiler.ops.operator import Lowered, Operator, first_axis_first
from celosia.sw.compiler.passes.rewrite import contradiction, same_quantisation, unsupported

__all__ = ["OPERATORS", "UNSIGNED_FILE"]

UNSIGNED_FILE = "unsigned"
"""Option of an operator in single precision: the file's codes are uint8, 128 more than here."""

PAIRS = 1 << 16
"""Of the values of two operands."""
OVERFLOW_SHIFT = 16
"""The reference shifts a product of MUL, of 16 bits, to the left by less."""


@dataclass(frozen=True)
class _Binary:
    """Tensors and scales of ADD, SUB or MUL."""

    a: Tensor
    b: Tensor
    result: Tensor
    scale_a: float
    scale_b: float
    scale_out: float
    act_min: int
    act_max: int


def lower_add(graph: Graph, op: SourceOp) -> TableOp | Lowered:
    """Lower ADD or SUB."""
    x = _binary(graph, op)
    exactness = None
    if op.arithmetic.scaling is Scaling.SINGLE:
        pair = _pair(op, x)
        subtract = op.name == "SUB"
        function = pair.differences if subtract else pair.sums
        table = _tabulated(op, x, _of_codes(function))
        if table is not None:
            return table
        fit = fit_sum(pair, subtract=subtract)
        parameters = fit.parameters
        exactness = near_enough(op, Exactness.of([(fit.differing, PAIRS)], "pairs of values"))
    else:
        parameters = add_parameters(x.scale_a, x.scale_b, x.scale_out, subtract=op.name == "SUB")

    def add(operands: Operands) -> AddOp:
        sides = [
            (x.a.zero_point, parameters.multiplier_a, parameters.shift_a),
            (x.b.zero_point, parameters.multiplier_b, parameters.shift_b),
        ]
        (zero_a, mult_a, shift_a), (zero_b, mult_b, shift_b) = operands.in_order(sides)
        return AddOp(
            origin=op.origin,
            fused=op.fused,
            input_a=operands.a,
            input_b=operands.b,
            spread_b=operands.spread_b,
            output=operands.result,
            zero_point_a=zero_a,
            zero_point_b=zero_b,
            zero_point_out=x.result.zero_point,
            left_shift=parameters.left_shift,
            multiplier_a=mult_a,
            shift_a=shift_a,
            multiplier_b=mult_b,
            shift_b=shift_b,
            multiplier_out=parameters.multiplier_out,
            shift_out=parameters.shift_out,
            act_min=x.act_min,
            act_max=x.act_max,
            exactness=exactness,
        )

    return _tabulated(op, x, partial(added, add(_as_they_are(x)))) or _of_two(graph, op, x, add)


def lower_mul(graph: Graph, op: SourceOp) -> TableOp | ConvOp | Lowered:
    """Lower MUL."""
    x = _binary(graph, op)
    # All in single precision, then widened: the reference's Prepare of MUL.
    real = np.float32(x.scale_a) * np.float32(x.scale_b) / np.float32(x.scale_out)
    multiplier, shift = quantize_multiplier(float(real))
    exactness, more_bits = None, 0
    if op.arithmetic.scaling is Scaling.SINGLE:
        pair = _pair(op, x)
        table = _tabulated(op, x, _of_codes(pair.products))
        if table is not None:
            return table
        fit = fit_product(pair, MOST_SHIFT)
        multiplier, more_bits = fit.multiplier, MOST_SHIFT - max(fit.shift, 0)
        exactness = near_enough(op, Exactness.of([(fit.differing, PAIRS)], "pairs of values"))
    if shift >= OVERFLOW_SHIFT:
        raise QuantizationError(
            f"a product is rescaled by {real:g}, where the reference has room for"
            f" {1 << (OVERFLOW_SHIFT - 1)}"
        )

    def mul(operands: Operands) -> MulOp:
        zero_a, zero_b = operands.in_order([x.a.zero_point, x.b.zero_point])
        return MulOp(
            origin=op.origin,
            fused=op.fused,
            input_a=operands.a,
            input_b=operands.b,
            spread_b=operands.spread_b,
            output=operands.result,
            zero_point_a=zero_a,
            zero_point_b=zero_b,
            zero_point_out=x.result.zero_point,
            multiplier=multiplier,
            shift=shift,
            more_bits=more_bits,
            act_min=x.act_min,
            act_max=x.act_max,
            exactness=exactness,
        )

    as_weights = _weights(op, x, multiplier, shift)
    if as_weights is not None:
        return as_weights
    table = _tabulated(op, x, partial(multiplied, mul(_as_they_are(x))))
    if table is None and shift > MOST_SHIFT:
        # Whatever is not 0 is clamped, as it is by this multiplier.
        multiplier, shift = (1 << 31) - 1, MOST_SHIFT
    return table or _of_two(graph, op, x, mul)


def _weights(op: SourceOp, x: _Binary, multiplier: int, shift: int) -> ConvOp | None:
    """Return a MUL by one factor a channel as a depthwise convolution of one tap, if it is one."""
    for constant, other in ((x.b, x.a), (x.a, x.b)):
        factors = _per_channel(constant, other, x.result)
        if factors is None or np.unique(factors).size == 1:
            continue
        weights = factors.astype(np.int64) - constant.zero_point
        if np.abs(weights).max() > INT8_MAX:
            return None
        return ConvOp(
            origin=op.origin,
            fused=op.fused,
            input=other.name,
            output=x.result.name,
            weights=weights.astype(np.int8).reshape(1, 1, -1),
            bias=(-other.zero_point * weights).astype(np.int32),
            multiplier=np.full(weights.size, multiplier, np.int32),
            shift=np.full(weights.size, shift, np.int8),
            rounding=op.arithmetic.rounding,
            depthwise=True,
            input_zero_point=other.zero_point,
            output_zero_point=x.result.zero_point,
            act_min=x.act_min,
            act_max=x.act_max,
        )
    return None


def lower_extremum(graph: Graph, op: SourceOp) -> TableOp | Lowered:
    """Lower MAXIMUM or MINIMUM; the kernels compare bytes."""
    x = _binary(graph, op)
    for tensor in (x.a, x.b):
        if not same_quantisation(tensor, x.result):
            raise unsupported(
                op, f"{tensor.name!r} and the output have different quantisation", "convert again"
            )
    least = op.name == "MINIMUM"

    def extreme(operands: Operands) -> MaximumOp:
        return MaximumOp(
            origin=op.origin,
            fused=op.fused,
            input_a=operands.a,
            input_b=operands.b,
            spread_b=operands.spread_b,
            output=operands.result,
            least=least,
        )

    return _tabulated(op, x, min if least else max) or _of_two(graph, op, x, extreme)


def lower_squared_difference(graph: Graph, op: SourceOp) -> TableOp | Lowered:
    """Lower SQUARED_DIFFERENCE."""
    x = _binary(graph, op)
    twice = 2.0 * max(x.scale_a, x.scale_b)
    real = twice * twice / ((1 << 2 * SQUARE_LEFT_SHIFT) * x.scale_out)
    scale_a, scale_b, scale_out = (
        quantize_multiplier(r) for r in (x.scale_a / twice, x.scale_b / twice, real)
    )
    if real >= 1 or scale_out[1] > 0:
        raise QuantizationError(f"a square is rescaled by {real:g}, which is not below 1")

    def difference(operands: Operands) -> SquaredDifferenceOp:
        sides = [(x.a.zero_point, *scale_a), (x.b.zero_point, *scale_b)]
        (zero_a, mult_a, shift_a), (zero_b, mult_b, shift_b) = operands.in_order(sides)
        return SquaredDifferenceOp(
            origin=op.origin,
            fused=op.fused,
            input_a=operands.a,
            input_b=operands.b,
            spread_b=operands.spread_b,
            output=operands.result,
            zero_point_a=zero_a,
            zero_point_b=zero_b,
            zero_point_out=x.result.zero_point,
            multiplier_a=mult_a,
            shift_a=shift_a,
            multiplier_b=mult_b,
            shift_b=shift_b,
            multiplier_out=scale_out[0],
            shift_out=scale_out[1],
        )

    table = _tabulated(op, x, partial(squared, difference(_as_they_are(x))))
    return table or _of_two(graph, op, x, difference)


def lower_prelu(graph: Graph, op: SourceOp) -> TableOp:
    """Lower PRELU with a constant slope, one for all channels or one for each."""
    x = _binary(graph, op)
    if x.b.data is None:
        raise unsupported(op, "its slopes are computed at run time", "use constant slopes")
    single = np.float32
    scale = quantize_multiplier(float(single(x.scale_a) / single(x.scale_out)))
    product = single(single(x.scale_a) * single(x.scale_b))
    slope = quantize_multiplier(float(product / single(x.scale_out)))

    def prelu(a: int, alpha: int) -> int:
        value = a - x.a.zero_point
        if value < 0:
            value = multiply_by_quantized_multiplier(value * (alpha - x.b.zero_point), *slope)
        else:
            value = multiply_by_quantized_multiplier(value, *scale)
        return value + x.result.zero_point

    return _only_by_constant(op, x, prelu)


def _pair(op: SourceOp, x: _Binary) -> Pair:
    """Return the operator as single precision computes it."""
    return Pair(
        scales=(x.scale_a, x.scale_b, x.scale_out),
        zeros=(x.a.zero_point, x.b.zero_point, x.result.zero_point),
        offset=128 if op.options.get(UNSIGNED_FILE) else 0,
        clamp=(x.act_min, x.act_max),
    )


def _of_codes(function: Callable[[Any, Any], Any]) -> Callable[[int, int], int]:
    """Return a function of arrays of codes as one of two codes."""
    return lambda a, b: int(function(np.array([a]), np.array([b]))[0])


def _as_they_are(x: _Binary) -> Operands:
    return Operands(a=x.a.name, b=x.b.name, result=x.result.name)


def _of_two(
    graph: Graph, op: SourceOp, x: _Binary, make: Callable[[Operands], BinaryOp]
) -> Lowered:
    """Return an operator of two tensors, with the views of them that it takes."""
    operands = operands_of(graph, op, x.a, x.b, x.result)
    return [*operands.before, make(operands), *operands.after], list(operands.between)


def _only_by_constant(op: SourceOp, x: _Binary, function: Callable[[int, int], int]) -> TableOp:
    table = _tabulated(op, x, function)
    if table is None:
        raise unsupported(
            op,
            f"a constant operand of shape {list(x.b.shape)} ({x.b.name!r})",
            "use one value, or one a channel",
        )
    return table


def _binary(graph: Graph, op: SourceOp) -> _Binary:
    a, b = (graph.tensors[name] for name in op.inputs)
    result = graph.tensors[op.results[0]]
    if {a.dtype, b.dtype} != {DType.INT8}:
        raise unsupported(op, f"operands are {a.dtype} and {b.dtype}", "quantise both to int8")
    if a.scale is None or b.scale is None or result.scale is None:
        raise contradiction(op, "an operand has no scale")
    act_min, act_max = clamp_of(op, result)
    return _Binary(
        a=a,
        b=b,
        result=result,
        scale_a=a.scale,
        scale_b=b.scale,
        scale_out=result.scale,
        act_min=act_min,
        act_max=act_max,
    )


def _tabulated(op: SourceOp, x: _Binary, function: Callable[[int, int], int]) -> TableOp | None:
    """Tabulate the operator when one operand is a constant of one value, or of one a channel."""
    if x.a.data is not None and x.b.data is not None:
        raise unsupported(op, "both operands are constants", "fold it before converting")
    for constant, other, swapped in ((x.b, x.a, False), (x.a, x.b, True)):
        if constant.data is None:
            continue
        fix = _fix_first if swapped else _fix_second
        values = np.unique(constant.data)
        if values.size == 1 and other.shape == x.result.shape:
            return table_op(op, other, x.result, tables.table_from(fix(function, int(values[0]))))
        each = _per_channel(constant, other, x.result)
        if each is None:
            return None
        known = {int(v): tables.table_from(fix(function, int(v))) for v in values}
        return table_op(op, other, x.result, np.stack([known[int(v)] for v in each]))
    return None


def _per_channel(constant: Tensor, other: Tensor, result: Tensor) -> Int8Array | None:
    """Return the values of a constant with one a channel of the other operand, else None."""
    channels = other.shape[-1] if other.shape else 1
    if (
        constant.data is None
        or other.data is not None
        or other.shape != result.shape
        or constant.shape[-1:] != (channels,)
        or constant.elements != channels
    ):
        return None
    return constant.data.reshape(channels)


def _fix_first(function: Callable[[int, int], int], value: int) -> Callable[[int], int]:
    return lambda v: function(value, v)


def _fix_second(function: Callable[[int, int], int], value: int) -> Callable[[int], int]:
    return lambda v: function(v, value)


_BROADCAST = "what is repeated makes at most three groups of neighbouring axes"
_WHERE = "vector engine; with a constant of one value or of one a channel: table"

OPERATORS = (
    Operator(
        names=("ADD", "SUB"),
        operands=(2, 2),
        where=_WHERE,
        limits=_BROADCAST,
        lower=lower_add,
        batches=True,
        apart=first_axis_first,
        constants=True,
    ),
    Operator(
        names=("MUL",),
        operands=(2, 2),
        where=f"{_WHERE}, or array",
        limits=_BROADCAST,
        lower=lower_mul,
        batches=True,
        apart=first_axis_first,
        constants=True,
    ),
    Operator(
        names=("MAXIMUM", "MINIMUM"),
        operands=(2, 2),
        where=_WHERE,
        limits=f"{_BROADCAST}; equal quantisation",
        lower=lower_extremum,
        batches=True,
        apart=first_axis_first,
        constants=True,
    ),
    Operator(
        names=("PRELU",),
        operands=(2, 2),
        where="table",
        limits="a constant slope, one for all or one a channel",
        lower=lower_prelu,
        batches=True,
        apart=first_axis_first,
    ),
    Operator(
        names=("SQUARED_DIFFERENCE",),
        operands=(2, 2),
        where=_WHERE,
        limits=_BROADCAST,
        lower=lower_squared_difference,
        batches=True,
        apart=first_axis_first,
        constants=True,
        uint8=False,
    ),
)
