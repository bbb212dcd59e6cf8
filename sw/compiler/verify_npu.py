"""Invariants of the lowered operators, one function a type."""

from __future__ import annotations

import numpy as np
from celosia.sw.compiler.ir import (
    AddOp,
    ConvOp,
    DType,
    Graph,
    NpuOp,
    PoolOp,
    ReshapeOp,
    SoftmaxOp,
    TableOp,
    hwc,
)

__all__ = ["npu_violation"]


def npu_violation(graph: Graph, op: NpuOp) -> str | None:
    """Return what is wrong with a lowered operator, or None."""
    for name in (*op.inputs, *op.outputs):
        tensor = graph.tensors[name]
        if tensor.dtype is not DType.INT8:
            return f"{name!r} is {tensor.dtype}"
        if tensor.scale is None or not tensor.scale > 0:
            return f"{name!r} has no scale"
        if not _is_int8(tensor.zero_point):
            return f"zero point of {name!r} is {tensor.zero_point}"
        if len(tensor.shape) == 4 and tensor.shape[0] != 1:
            return f"{name!r} has a batch of {tensor.shape[0]}"
    if isinstance(op, ConvOp):
        return _conv(graph, op)
    if isinstance(op, AddOp):
        return _add(graph, op)
    if isinstance(op, PoolOp):
        return _pool(graph, op)
    if isinstance(op, TableOp):
        if op.table.shape != (256,) or op.table.dtype != np.int8:
            return f"table is {op.table.dtype}{list(op.table.shape)}"
        return _same_elements(graph, op.input, op.output)
    if isinstance(op, SoftmaxOp):
        return _softmax(graph, op)
    if isinstance(op, ReshapeOp):
        return _same_elements(graph, op.input, op.output)
    return f"unknown operator type {type(op).__name__}"


def _conv(graph: Graph, op: ConvOp) -> str | None:
    height, width, channels = hwc(graph.tensors[op.input].shape)
    if op.weights.dtype != np.int8 or op.weights.ndim != (3 if op.depthwise else 4):
        return f"weights are {op.weights.dtype}{list(op.weights.shape)}"
    if op.cin != channels:
        return f"{op.cin} input channels for {channels}"
    for field, array, dtype in (
        ("bias", op.bias, np.int32),
        ("multiplier", op.multiplier, np.int32),
        ("shift", op.shift, np.int8),
    ):
        if array.shape != (op.cout,) or array.dtype != dtype:
            return f"{field} is {array.dtype}{list(array.shape)}, {op.cout} channels"
    if np.any(op.multiplier < 0) or np.any(op.shift < -31) or np.any(op.shift > 30):
        return "a multiplier or shift is out of range"
    if op.rounding not in ("double", "single"):
        return f"rounding {op.rounding}"
    if not _is_int8(op.input_zero_point) or not _is_int8(op.output_zero_point):
        return "a zero point is out of range"
    out = (
        _window(height, op.kernel_h, op.stride_h, op.pad_top, op.pad_bottom),
        _window(width, op.kernel_w, op.stride_w, op.pad_left, op.pad_right),
        op.cout,
    )
    if out != hwc(graph.tensors[op.output].shape):
        return f"computes {out}, output is {hwc(graph.tensors[op.output].shape)}"
    return _clamp(op.act_min, op.act_max)


def _pool(graph: Graph, op: PoolOp) -> str | None:
    source, result = graph.tensors[op.input], graph.tensors[op.output]
    height, width, channels = hwc(source.shape)
    out = (
        _window(height, op.kernel_h, op.stride_h, op.pad_top, op.pad_bottom),
        _window(width, op.kernel_w, op.stride_w, op.pad_left, op.pad_right),
        channels,
    )
    if out != hwc(result.shape):
        return f"computes {out}, output is {hwc(result.shape)}"
    if max(op.pad_top, op.pad_bottom) >= op.kernel_h or max(op.pad_left, op.pad_right) >= (
        op.kernel_w
    ):
        return "a window lies outside the image"
    return _clamp(op.act_min, op.act_max)


def _add(graph: Graph, op: AddOp) -> str | None:
    shapes = [graph.tensors[name].shape for name in (*op.inputs, op.output)]
    if len(set(shapes)) != 1:
        return f"shapes {shapes}"
    if max(op.shift_a, op.shift_b, op.shift_out) > 0:
        return "a shift is positive"
    return _clamp(op.act_min, op.act_max)


def _softmax(graph: Graph, op: SoftmaxOp) -> str | None:
    if op.rows * op.channels != graph.tensors[op.input].elements:
        return f"{op.rows} rows of {op.channels}"
    if op.exp_table.shape != (256,) or op.exp_table.dtype != np.int32:
        return f"table is {op.exp_table.dtype}{list(op.exp_table.shape)}"
    if not 1 <= op.cutoff <= 256 or np.any(op.exp_table[op.cutoff :]):
        return f"cut-off {op.cutoff}"
    return _same_elements(graph, op.input, op.output)


def _same_elements(graph: Graph, source: str, result: str) -> str | None:
    a, b = graph.tensors[source].elements, graph.tensors[result].elements
    return None if a == b else f"{a} elements in, {b} out"


def _window(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    if kernel < 1 or stride < 1 or before < 0 or after < 0:
        return -1
    return (size + before + after - kernel) // stride + 1


def _clamp(low: int, high: int) -> str | None:
    if _is_int8(low) and _is_int8(high) and low <= high:
        return None
    return f"clamp {low}..{high}"


def _is_int8(value: int) -> bool:
    return -128 <= value <= 127
