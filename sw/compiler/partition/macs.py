"""Multiply-accumulates of operators that the NPU does not lower, as TFLite counts them."""

from __future__ import annotations

from math import prod

from celosia.sw.compiler.ir import Graph, SourceOp

__all__ = ["macs_of"]

RECURRENT = frozenset(
    {"BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM"}
)
"""Operators that multiply each of their weight matrices with a vector, in every step."""


def macs_of(graph: Graph, op: SourceOp) -> int:
    """Return the multiply-accumulates of an operator; 0 if it has none, or nobody counts them.

    Of a convolution: outputs times kernel elements; of a dense layer: outputs times depth; of a
    recurrent layer: elements of its weight matrices times steps.
    """
    shapes = [() if name is None else graph.tensors[name].shape for name in op.operands]
    results = [graph.tensors[name].shape for name in op.results]
    if not results or len(shapes) < 2:
        return 0
    source, weights, result = shapes[0], shapes[1], results[0]
    match op.name:
        case "CONV_2D" if len(weights) == 4:
            return prod(result) * prod(weights[1:])
        case "DEPTHWISE_CONV_2D" if len(weights) == 4:
            return prod(result) * prod(weights[1:3])
        case "CONV_3D" if len(weights) == 5:
            return prod(result) * prod(weights[:4])
        case "TRANSPOSE_CONV" if len(weights) == 4 and len(shapes) > 2:
            return prod(shapes[2]) * prod(weights[:3])
        case "FULLY_CONNECTED" if len(weights) == 2:
            return prod(result) * weights[1]
        case "BATCH_MATMUL" if len(source) > 1:
            inner = source[-2] if op.options.get("adj_x") else source[-1]
            return prod(result) * inner
        case name if name in RECURRENT:
            steps = source[0] * source[1] if len(source) == 3 else 1
            matrices = [
                tensor
                for tensor in op.inputs
                if graph.tensors[tensor].is_constant and len(graph.tensors[tensor].shape) == 2
            ]
            return steps * sum(graph.tensors[tensor].elements for tensor in matrices)
    return 0
