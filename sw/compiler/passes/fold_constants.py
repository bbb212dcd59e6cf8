"""Evaluates operators whose operands are all constant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic import floats
from celosia.sw.compiler.arithmetic.fixed import INT8_MAX, INT8_MIN
from celosia.sw.compiler.ir import DType, Graph, Op, SourceOp, Tensor
from celosia.sw.compiler.passes.rewrite import RESHAPES, with_ops

__all__ = ["evaluate", "fold_constants"]


def fold_constants(graph: Graph) -> Graph:
    """Replace reshaped, quantised and dequantised constants by their values."""
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    for op in graph.ops:
        value = evaluate(op, tensors) if isinstance(op, SourceOp) else None
        if value is None:
            ops.append(op)
            continue
        value.flags.writeable = False
        name = op.outputs[0]
        tensors[name] = replace(tensors[name], data=value)
    return with_ops(graph, ops, tensors.values())


def evaluate(op: SourceOp, tensors: dict[str, Tensor]) -> npt.NDArray[Any] | None:
    """Value of the operator's result, or None when it is not foldable."""
    if not op.inputs:
        return None
    source, result = tensors[op.inputs[0]], tensors[op.results[0]]
    if source.data is None:
        return None
    if op.name in RESHAPES:
        if source.elements != result.elements or source.dtype != result.dtype:
            return None
        return source.data.reshape(result.shape).copy()
    if source.shape != result.shape:
        return None
    if op.name == "DEQUANTIZE":
        return _dequantize(source, result)
    if op.name == "QUANTIZE":
        return _quantize(source, result)
    return None


def _dequantize(source: Tensor, result: Tensor) -> npt.NDArray[np.float32] | None:
    if source.data is None or result.dtype is not DType.FLOAT32 or source.scale is None:
        return None
    if source.dtype not in (DType.INT8, DType.UINT8, DType.INT16, DType.INT32):
        return None
    return floats.dequantised(source.data.astype(np.int64), source.scale, source.zero_point)


def _quantize(source: Tensor, result: Tensor) -> npt.NDArray[np.int8] | None:
    if source.data is None or source.dtype is not DType.FLOAT32 or result.dtype is not DType.INT8:
        return None
    if result.scale is None or not np.all(np.isfinite(source.data)):
        return None
    codes = floats.quantised(source.data, result.scale, result.zero_point, (INT8_MIN, INT8_MAX))
    return codes.astype(np.int8)
