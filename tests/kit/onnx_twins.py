"""The same quantised network in both formats: a TFLite graph written as an ONNX one."""

from __future__ import annotations

from typing import Any

import numpy as np
from celosia.sw.compiler.ir import Graph, SourceOp, Tensor

from tests.kit.onnx_models import OnnxBuilder

__all__ = ["without_softmax"]

F = np.float32


def without_softmax(graph: Graph) -> bytes:
    """Return an ONNX model of a graph's weights and scales, up to its Softmax.

    An average gets a smaller scale than what it averages, as onnxruntime's calibration finds it.
    """
    b = OnnxBuilder(np.random.default_rng(0), np.int8)
    twins: dict[str, str] = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        twins[name] = b.input(_shape(tensor))
        b.known[twins[name]] = _quantisation(tensor)
    last = ""
    for op in graph.ops:
        assert isinstance(op, SourceOp)
        if op.name == "SOFTMAX":
            break
        last = twins[op.results[0]] = _EMITTERS[op.name](b, graph, op, twins)
    b.output(last)
    return b.model()


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """Return a shape with the channels behind the batch."""
    if len(tensor.shape) != 4:
        return tensor.shape
    batch, height, width, channels = tensor.shape
    return batch, channels, height, width


def _quantisation(tensor: Tensor) -> tuple[np.float32, int]:
    assert tensor.scale is not None
    return F(tensor.scale), tensor.zero_point


def _weights(b: OnnxBuilder, tensor: Tensor, codes: Any, axis: int) -> tuple[str, Any]:
    scales = tensor.channel_scales
    scale = np.asarray(F(tensor.scale or 0) if scales is None else scales, F)
    zero = np.zeros(scale.shape, np.int8)
    names = [b.constant(np.ascontiguousarray(codes)), b.constant(scale), b.constant(zero)]
    return str(b.node("DequantizeLinear", names, axis=axis)), scale


def _biased(b: OnnxBuilder, graph: Graph, op: SourceOp, scales: Any) -> list[str]:
    if len(op.operands) < 3 or op.operands[2] is None:
        return []
    bias = graph.tensors[op.operands[2]].data
    scale = np.asarray(F(graph.tensors[op.inputs[0]].scale or 0) * scales, F)
    zero = b.constant(np.zeros(scale.shape, np.int32))
    return [str(b.node("DequantizeLinear", [b.constant(bias), b.constant(scale), zero], axis=0))]


def _ending(b: OnnxBuilder, graph: Graph, op: SourceOp, real: str) -> str:
    if op.options.get("fused_activation_function") == "RELU":
        real = str(b.node("Relu", [real]))
    return b.quantised(real, _quantisation(graph.tensors[op.results[0]]))


def _conv(b: OnnxBuilder, graph: Graph, op: SourceOp, twins: dict[str, str]) -> str:
    weights, channels = graph.tensors[op.inputs[1]], graph.tensors[op.inputs[0]].shape[3]
    depthwise = op.name == "DEPTHWISE_CONV_2D"
    assert weights.data is not None
    codes = weights.data.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    w, scales = _weights(b, weights, codes, 0)
    operands = [b.dequantised(twins[op.inputs[0]]), w, *_biased(b, graph, op, scales)]
    options: dict[str, Any] = {
        "auto_pad": "SAME_UPPER" if op.options["padding"] == "SAME" else "VALID",
        "strides": [op.options["stride_h"], op.options["stride_w"]],
        "kernel_shape": list(codes.shape[2:]),
        "group": channels if depthwise else 1,
    }
    return _ending(b, graph, op, str(b.node("Conv", operands, **options)))


def _dense(b: OnnxBuilder, graph: Graph, op: SourceOp, twins: dict[str, str]) -> str:
    weights = graph.tensors[op.inputs[1]]
    w, scales = _weights(b, weights, weights.data, 0)
    operands = [b.dequantised(twins[op.inputs[0]]), w, *_biased(b, graph, op, scales)]
    return _ending(b, graph, op, str(b.node("Gemm", operands, transB=1)))


def _average(b: OnnxBuilder, graph: Graph, op: SourceOp, twins: dict[str, str]) -> str:
    scale, zero = _quantisation(graph.tensors[op.results[0]])
    real = str(b.node("GlobalAveragePool", [b.dequantised(twins[op.inputs[0]])]))
    return b.quantised(real, (F(scale * F(0.7)), zero))


def _add(b: OnnxBuilder, graph: Graph, op: SourceOp, twins: dict[str, str]) -> str:
    both = [b.dequantised(twins[name]) for name in op.inputs]
    return _ending(b, graph, op, str(b.node("Add", both)))


def _flatten(b: OnnxBuilder, graph: Graph, op: SourceOp, twins: dict[str, str]) -> str:
    return b.moved("Flatten", twins[op.inputs[0]])


_EMITTERS = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _dense,
    "AVERAGE_POOL_2D": _average,
    "ADD": _add,
    "RESHAPE": _flatten,
}
