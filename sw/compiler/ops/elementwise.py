"""Lowers functions of one tensor to `TableOp`."""

from __future__ import annotations

from collections.abc import Callable

from celosia.sw.compiler.arithmetic import tables
from celosia.sw.compiler.ir import Graph, Int8Array, SourceOp, TableOp, Tensor
from celosia.sw.compiler.ops.operator import Operator, always
from celosia.sw.compiler.passes.rewrite import contradiction

__all__ = ["LOOKUP", "OPERATORS", "table_op"]

LOOKUP = "LOOKUP"
"""A function that a front end gives as its table of 256 entries, by `value & 0xFF`; or one a
channel, [channels, 256]."""

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
        return table_op(op, source, result, make(op, arguments))

    return lower


def table_op(op: SourceOp, source: Tensor, result: Tensor, table: Int8Array) -> TableOp:
    """Return the operator that looks a tensor up in a table."""
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


def lower_lookup(graph: Graph, op: SourceOp) -> TableOp:
    """Lower a function that a front end has worked out: its second operand is the table."""
    source, table, result = (graph.tensors[name] for name in (*op.inputs, *op.results))
    shapes = (256,), (source.shape[-1] if source.shape else 1, 256)
    if table.data is None or table.shape not in shapes or source.shape != result.shape:
        raise contradiction(op, f"a table of shape {list(table.shape)}")
    return table_op(op, source, result, table.data)


OPERATORS = (
    Operator(
        names=(LOOKUP,),
        operands=(2, 2),
        where="table",
        made=True,
        lower=lower_lookup,
        batches=True,
        apart=always,
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
