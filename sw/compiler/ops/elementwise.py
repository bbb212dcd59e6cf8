"""Lowers element-wise operators: ADD and SUB to `AddOp`, functions of one tensor to `TableOp`.

An operator of two tensors of which one is constant is a function of the other: one for all
channels, or one for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from celosia.sw.compiler.arithmetic import tables
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    activation_range,
    add_parameters,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)
from celosia.sw.compiler.ir import (
    AddOp,
    ConvOp,
    DType,
    Graph,
    Int8Array,
    MaximumOp,
    SourceOp,
    TableOp,
    Tensor,
    hwc,
    made_like,
)
from celosia.sw.compiler.ops.npu.add import added
from celosia.sw.compiler.ops.npu.checks import bad_broadcast
from celosia.sw.compiler.ops.operator import Lowered, Operator, always
from celosia.sw.compiler.passes.rewrite import contradiction, same_quantisation, unsupported

__all__ = ["OPERATORS"]


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


def lower_add(graph: Graph, op: SourceOp) -> AddOp | TableOp:
    """Lower ADD or SUB."""
    x = _binary(graph, op)
    parameters = add_parameters(x.scale_a, x.scale_b, x.scale_out, subtract=op.name == "SUB")

    addition = AddOp(
        origin=op.origin,
        fused=op.fused,
        input_a=x.a.name,
        input_b=x.b.name,
        output=x.result.name,
        zero_point_a=x.a.zero_point,
        zero_point_b=x.b.zero_point,
        zero_point_out=x.result.zero_point,
        left_shift=parameters.left_shift,
        multiplier_a=parameters.multiplier_a,
        shift_a=parameters.shift_a,
        multiplier_b=parameters.multiplier_b,
        shift_b=parameters.shift_b,
        multiplier_out=parameters.multiplier_out,
        shift_out=parameters.shift_out,
        act_min=x.act_min,
        act_max=x.act_max,
    )
    return _by_constant(op, x, partial(added, addition)) or addition


def lower_mul(graph: Graph, op: SourceOp) -> TableOp | ConvOp:
    """Lower MUL by a constant."""
    x = _binary(graph, op)
    # All in single precision, then widened: the reference's Prepare of MUL.
    real = np.float32(x.scale_a) * np.float32(x.scale_b) / np.float32(x.scale_out)
    multiplier, shift = quantize_multiplier(float(real))

    def mul(a: int, b: int) -> int:
        product = (a - x.a.zero_point) * (b - x.b.zero_point)
        scaled = multiply_by_quantized_multiplier(product, multiplier, shift)
        return min(max(scaled + x.result.zero_point, x.act_min), x.act_max)

    return _weights(op, x, multiplier, shift) or _only_by_constant(op, x, mul)


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
    smaller = op.name == "MINIMUM"
    table = _by_constant(op, x, min if smaller else max)
    if table is not None:
        return table
    if not smaller:
        return [_maximum(op, x.a.name, x.b.name, x.result.name)], []
    # The smaller of two is the complement of the greater of their complements.
    complement = tables.table_from(lambda value: -1 - value)
    between = [
        made_like(tensor, graph.tensors, f"{x.result.name}/{part}")
        for part, tensor in (("a", x.a), ("b", x.b), ("greater", x.result))
    ]
    a, b, greater = between
    return [
        _table_op(op, x.a, a, complement),
        _table_op(op, x.b, b, complement),
        _maximum(op, a.name, b.name, greater.name),
        _table_op(op, greater, x.result, complement),
    ], between


def _maximum(op: SourceOp, a: str, b: str, output: str) -> MaximumOp:
    return MaximumOp(origin=op.origin, fused=op.fused, input_a=a, input_b=b, output=output)


def lower_squared_difference(graph: Graph, op: SourceOp) -> TableOp:
    """Lower SQUARED_DIFFERENCE from a constant."""
    x = _binary(graph, op)
    twice = 2.0 * max(x.scale_a, x.scale_b)
    real = twice * twice / ((1 << 2 * SQUARE_HEADROOM) * x.scale_out)
    scales = [quantize_multiplier(r) for r in (x.scale_a / twice, x.scale_b / twice, real)]

    def difference(a: int, b: int) -> int:
        sides = (a - x.a.zero_point, b - x.b.zero_point)
        scaled = [
            multiply_by_quantized_multiplier(side << SQUARE_HEADROOM, *scale)
            for side, scale in zip(sides, scales, strict=False)
        ]
        square = (scaled[0] - scaled[1]) ** 2
        return multiply_by_quantized_multiplier(square, *scales[2]) + x.result.zero_point

    return _only_by_constant(op, x, difference)


SQUARE_HEADROOM = 7
"""Bits by which SQUARED_DIFFERENCE shifts its operands left."""


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


def _only_by_constant(op: SourceOp, x: _Binary, function: Callable[[int, int], int]) -> TableOp:
    table = _by_constant(op, x, function)
    if table is None:
        raise unsupported(op, "both operands are activations", "use a constant for one of them")
    return table


_Quantisation = tuple[float, int, float, int]
_TableMaker = Callable[[SourceOp, _Quantisation], Int8Array]
"""From scale and zero point of input and output."""


def _by_table(make: _TableMaker) -> Callable[[Graph, SourceOp], TableOp]:
    """Return what lowers a function of one tensor; its table must be right for all 256 inputs."""

    def lower(graph: Graph, op: SourceOp) -> TableOp:
        source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
        if source.scale is None or result.scale is None:
            raise contradiction(op, "input or output has no scale")
        if source.shape != result.shape:
            raise contradiction(op, f"input {list(source.shape)}, output {list(result.shape)}")
        arguments = (source.scale, source.zero_point, result.scale, result.zero_point)
        return _table_op(op, source, result, make(op, arguments))

    return lower


def _binary(graph: Graph, op: SourceOp) -> _Binary:
    a, b = (graph.tensors[name] for name in op.inputs)
    result = graph.tensors[op.results[0]]
    if {a.dtype, b.dtype} != {DType.INT8}:
        raise unsupported(op, f"operands are {a.dtype} and {b.dtype}", "quantise both to int8")
    if a.scale is None or b.scale is None or result.scale is None:
        raise contradiction(op, "an operand has no scale")
    activation = str(op.options.get("fused_activation_function", "NONE"))
    act_min, act_max = activation_range(activation, result.scale, result.zero_point)
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


def _by_constant(op: SourceOp, x: _Binary, function: Callable[[int, int], int]) -> TableOp | None:
    """Tabulate the operator when one operand is constant; None when both are activations."""
    if x.a.data is not None and x.b.data is not None:
        raise unsupported(op, "both operands are constants", "fold it before converting")
    for constant, other, swapped in ((x.b, x.a, False), (x.a, x.b, True)):
        if constant.data is None:
            continue
        fix = _fix_first if swapped else _fix_second
        values = np.unique(constant.data)
        if values.size == 1 and other.shape == x.result.shape:
            return _table_op(op, other, x.result, tables.table_from(fix(function, int(values[0]))))
        each = _per_channel(constant, other, x.result)
        if each is None:
            raise unsupported(
                op,
                f"a constant operand of shape {list(constant.shape)} ({constant.name!r})",
                "use one value, or one a channel",
            )
        known = {int(v): tables.table_from(fix(function, int(v))) for v in values}
        return _table_op(op, other, x.result, np.stack([known[int(v)] for v in each]))
    shapes = [list(t.shape) for t in (x.a, x.b, x.result)]
    if x.a.shape == x.b.shape == x.result.shape:
        return None
    try:
        expected = np.broadcast_shapes(x.a.shape, x.b.shape)
    except ValueError:
        expected = None
    if expected != x.result.shape:
        raise contradiction(op, f"operands {shapes[0]} and {shapes[1]}, output {shapes[2]}")
    # An operand of one row or column is read again; its channels have to be there.
    a, b, result = (hwc(t.shape) for t in (x.a, x.b, x.result))
    if bad_broadcast(a, b, result):
        raise unsupported(
            op,
            f"broadcast of {shapes[0]} and {shapes[1]}",
            "broadcast over height and width only",
        )
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


def _table_op(op: SourceOp, source: Tensor, result: Tensor, table: Int8Array) -> TableOp:
    return TableOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=result.name,
        table=table,
    )


def _leaky_relu(op: SourceOp, arguments: _Quantisation) -> Int8Array:
    alpha = op.options.get("alpha")
    if not isinstance(alpha, float):
        raise contradiction(op, f"alpha is {alpha}")
    return tables.leaky_relu_table(alpha, *arguments)


def _relu(op: SourceOp, arguments: _Quantisation) -> Int8Array:
    return tables.relu_table(op.name, *arguments)


def _gelu(op: SourceOp, arguments: _Quantisation) -> Int8Array:
    return tables.gelu_table(*arguments, approximate=bool(op.options.get("approximate")))


def _function(*names: str, table: _TableMaker, limits: str = "", uint8: bool = True) -> Operator:
    return Operator(
        names=names,
        operands=(1, 1),
        where="table",
        limits=limits,
        lower=_by_table(table),
        batches=True,
        apart=always,
        uint8=uint8,
    )


OPERATORS = (
    Operator(
        names=("ADD", "SUB"),
        operands=(2, 2),
        where="vector engine; with a constant: table",
        limits="broadcast over height and width, or a constant of one value or of one a channel",
        lower=lower_add,
        batches=True,
        apart=always,
        constants=True,
    ),
    Operator(
        names=("MUL",),
        operands=(2, 2),
        where="table, or array",
        limits="by a constant of one value or of one a channel",
        lower=lower_mul,
        batches=True,
        apart=always,
        constants=True,
    ),
    Operator(
        names=("MAXIMUM", "MINIMUM"),
        operands=(2, 2),
        where="vector engine; with a constant: table",
        limits="broadcast over height and width, or a constant of one value or of one a channel;"
        " equal quantisation",
        lower=lower_extremum,
        batches=True,
        apart=always,
        constants=True,
    ),
    Operator(
        names=("PRELU",),
        operands=(2, 2),
        where="table",
        limits="a constant slope, one for all or one a channel",
        lower=lower_prelu,
        batches=True,
        apart=always,
    ),
    Operator(
        names=("SQUARED_DIFFERENCE",),
        operands=(2, 2),
        where="table",
        limits="from a constant of one value or of one a channel",
        lower=lower_squared_difference,
        batches=True,
        apart=always,
        constants=True,
        uint8=False,
    ),
    _function("ABS", table=lambda op, q: tables.abs_table(*q), uint8=False),
    _function("ELU", table=lambda op, q: tables.elu_table(*q), uint8=False),
    _function("EXP", table=lambda op, q: tables.exponential_table(*q), uint8=False),
    _function("GELU", table=_gelu),
    _function("LOG", table=lambda op, q: tables.log_table(*q), uint8=False),
    _function("LOGISTIC", table=lambda op, q: tables.logistic_table(*q)),
    _function("NEG", table=lambda op, q: tables.negate_table(), uint8=False),
    _function(
        "RSQRT",
        table=lambda op, q: tables.rsqrt_table(*q),
        uint8=False,
        limits="at 0 the greatest value, below as well (the reference stops there)",
    ),
    _function(
        "SQRT",
        table=lambda op, q: tables.sqrt_table(*q),
        uint8=False,
        limits="below 0 as at 0 (the reference stops there)",
    ),
    _function("TANH", table=lambda op, q: tables.tanh_table(*q)),
    _function("HARD_SWISH", table=lambda op, q: tables.hard_swish_table(*q)),
    _function("LEAKY_RELU", table=_leaky_relu),
    _function("RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", table=_relu),
    _function("QUANTIZE", table=lambda op, q: tables.requantize_table(*q)),
)
