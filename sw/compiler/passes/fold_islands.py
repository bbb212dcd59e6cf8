"""Makes a table of what a model computes in float32, or in another type, of one int8 tensor.

Converters write DEQUANTIZE, f, QUANTIZE for an f that has no int8 kernel, such as NEG in a layer
normalisation. Whatever is computed element by element of one int8 tensor and of constants is a
function of 256 values: it is worked out here, in the arithmetic of the file's operators, and the
operator that comes back to int8 becomes the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic import floats
from celosia.sw.compiler.arithmetic.fixed import QuantizationError
from celosia.sw.compiler.arithmetic.integers import requantised
from celosia.sw.compiler.ir import DType, Graph, Op, SourceOp, TableOp, Tensor
from celosia.sw.compiler.passes.fold_constants import fold_constants
from celosia.sw.compiler.passes.rewrite import unsupported, with_ops

__all__ = ["ISLAND_OPERATORS", "fold_islands"]

ISLAND_OPERATORS: tuple[str, ...] = tuple(sorted({*floats.UNARY, *floats.BINARY}))
"""What may be computed in float32 between DEQUANTIZE and QUANTIZE, besides these."""

CODES = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
"""int8 values in the order of a table's entries."""
INTEGERS = frozenset({DType.INT8, DType.UINT8, DType.INT16})


@dataclass(frozen=True)
class _Function:
    """A tensor that is a function of an int8 tensor, or a constant.

    Attributes
    ----------
    source : str
        The int8 tensor; empty for a constant.
    values : ndarray, shape [5 or 1, channels or 1, 256 or 1]
        float32 with bounds (`floats.BOUNDS`), or int64; by table entry.
    ops : tuple of SourceOp
        The operators in between.
    """

    source: str
    values: npt.NDArray[np.generic]
    ops: tuple[SourceOp, ...] = ()


def fold_islands(graph: Graph) -> Graph:
    """Replace operators that give an int8 tensor by tables; those before them may be left over.

    Parameters
    ----------
    graph : Graph
        Source level.

    Raises
    ------
    UnsupportedError
        If a result depends on the last bits of a function of the C library.
    """
    constants = fold_constants(graph).tensors
    known: dict[str, _Function] = {}
    ops: list[Op] = []
    for op in graph.ops:
        try:
            function = _function(graph, op, known, constants) if isinstance(op, SourceOp) else None
        except QuantizationError as error:
            raise unsupported(op, str(error), "calibrate or train the model again") from error
        if function is None:
            ops.append(op)
            continue
        result = graph.tensors[op.outputs[0]]
        if result.dtype is DType.INT8 and len(function.ops) > 1:
            ops.append(_table(function, result))
            continue
        if result.dtype is not DType.INT8:
            known[result.name] = function
        ops.append(op)
    return graph if ops == graph.ops else with_ops(graph, ops)


def _table(function: _Function, result: Tensor) -> TableOp:
    codes = function.values
    if not floats.BY_DEFAULT.intersection(op.name for op in function.ops):
        codes = codes[:3]
    if not (codes == codes[:1]).all():
        raise unsupported(
            function.ops[-1],
            "a result is so close to the middle of two int8 values that it depends on the last bit"
            f" of {' or '.join(sorted({op.name for op in function.ops[1:-1]}))}",
            "calibrate or train the model again",
        )
    tables = codes[0].astype(np.int8)
    # The operator that computes something names the layer.
    main = function.ops[-2 if len(function.ops) > 2 else -1]
    return TableOp(
        origin=main.origin,
        fused=tuple(op.origin.index for op in function.ops if op is not main),
        input=function.source,
        output=result.name,
        table=tables[0] if len(tables) == 1 else tables,
    )


def _function(
    graph: Graph, op: SourceOp, known: Mapping[str, _Function], constants: Mapping[str, Tensor]
) -> _Function | None:
    """Return what an operator's result is of an int8 tensor; None if it is no such function."""
    if len(op.results) != 1:
        return None
    result = graph.tensors[op.results[0]]
    operands: list[_Function] = []
    for name in op.inputs:
        operand = known.get(name) or _leaf(graph.tensors[name], constants[name], result)
        if operand is None or (operand.source and graph.tensors[name].shape != result.shape):
            return None
        operands.append(operand)
    sources = {operand.source for operand in operands if operand.source}
    if len(sources) != 1:
        return None
    values = _values(graph, op, operands)
    if values is None:
        return None
    channels = result.shape[-1] if result.shape else 1
    if values.shape[1] not in (1, channels):
        return None
    each = [inner for operand in operands for inner in operand.ops]
    return _Function(sources.pop(), values, (*dict.fromkeys(each), op))


def _leaf(tensor: Tensor, folded: Tensor, result: Tensor) -> _Function | None:
    """Return an int8 tensor as a function of itself, or a constant, for all or for a channel."""
    if folded.data is None:
        if tensor.dtype is not DType.INT8 or tensor.scale is None:
            return None
        return _Function(tensor.name, CODES.reshape(1, 1, -1))
    data = folded.data
    if folded.dtype is not DType.FLOAT32:
        return None
    if data.size == 1:
        return _Function("", data.reshape(1, 1, 1))
    if result.shape and data.shape[-1] == data.size == result.shape[-1]:
        return _Function("", data.reshape(1, -1, 1))
    return None


def _values(
    graph: Graph, op: SourceOp, operands: list[_Function]
) -> npt.NDArray[np.generic] | None:
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    values = [operand.values for operand in operands]
    kinds = {graph.tensors[name].dtype for name in op.inputs} | {result.dtype}
    if op.name == "DEQUANTIZE" and source.dtype in INTEGERS and result.dtype is DType.FLOAT32:
        if source.scale is None:
            return None
        codes = values[0].astype(np.int64)
        if len(codes) == 1:
            return floats.with_bounds(codes, source.scale, source.zero_point)
        return floats.dequantised(codes, source.scale, source.zero_point)
    if op.name == "CAST" and source.dtype in INTEGERS and result.dtype is DType.FLOAT32:
        return values[0].astype(np.float32)
    if op.name == "QUANTIZE" and result.dtype in INTEGERS and result.scale is not None:
        info = np.iinfo(str(result.dtype))
        target, limits = (result.scale, result.zero_point), (int(info.min), int(info.max))
        if source.dtype is DType.FLOAT32:
            return floats.quantised(values[0].astype(np.float32), *target, limits)
        if source.dtype in INTEGERS and source.scale is not None:
            codes = values[0].astype(np.int64)
            return requantised(codes, (source.scale, source.zero_point), target, limits)
        return None
    if kinds != {DType.FLOAT32}:
        return None
    rows = len(floats.BOUNDS)
    wide = [np.broadcast_to(v.astype(np.float32), (rows, *v.shape[1:])) for v in values]
    if op.name in floats.UNARY and len(wide) == 1:
        return floats.unary(op.name, wide[0], op.options)
    if op.name in floats.BINARY and len(wide) == 2:
        return floats.binary(op.name, wide[0], wide[1], op.options)
    return None
