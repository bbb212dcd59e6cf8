"""Folds a PAD into the convolutions that read it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from celosia.sw.compiler.ir import DType, Graph, Op, SourceOp, Tensor
from celosia.sw.compiler.passes.rewrite import (
    contradiction,
    same_quantisation,
    unsupported,
    with_ops,
)
from celosia.sw.compiler.passes.window import EXPLICIT_PADS

__all__ = ["fold_pad", "spatial_pads"]

_CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
MAX_PAD = 1 << 12


def fold_pad(graph: Graph) -> Graph:
    """Turn PAD followed by unpadded convolutions into convolutions with explicit pads.

    PAD writes the zero point, which is what a convolution's own padding means. Pooling leaves
    padding out instead, so a PAD before a pool stays an operator.
    """
    for pad in list(graph.ops):
        if isinstance(pad, SourceOp) and pad.name == "PAD":
            graph = _fold(graph, pad)
    return graph


def spatial_pads(graph: Graph, pad: SourceOp) -> tuple[int, int, int, int]:
    """Amounts (top, bottom, left, right) of a PAD of an image.

    Raises
    ------
    UnsupportedError
        If it pads batch or channels, is not rank 4, or its amounts are not constant.
    ModelError
        If the amounts contradict the shapes.
    """
    source, result = graph.tensors[pad.inputs[0]], graph.tensors[pad.results[0]]
    table = graph.tensors[pad.inputs[1]]
    if table.data is None or table.dtype not in (DType.INT32, DType.INT64):
        raise unsupported(pad, "its amounts are not constant", "pad by constant amounts")
    if len(source.shape) != 4:
        raise unsupported(pad, f"it pads a tensor of rank {len(source.shape)}", "pad images only")
    if table.shape != (4, 2):
        raise contradiction(pad, f"its amounts have shape {list(table.shape)}, expected [4, 2]")
    amounts = [(int(before), int(after)) for before, after in table.data]
    if any(not 0 <= n <= MAX_PAD for pair in amounts for n in pair):
        raise contradiction(pad, f"it pads by {amounts}")
    expected = tuple(d + b + a for d, (b, a) in zip(source.shape, amounts, strict=True))
    if expected != result.shape:
        raise contradiction(pad, f"its output is {list(result.shape)}, not {list(expected)}")
    if amounts[0] != (0, 0) or amounts[3] != (0, 0):
        raise unsupported(pad, "it pads batch or channels", "pad height and width only")
    return amounts[1] + amounts[2]


def _fold(graph: Graph, pad: SourceOp) -> Graph:
    source, result = graph.tensors[pad.inputs[0]], graph.tensors[pad.results[0]]
    readers = graph.consumers(result.name)
    if result.name in graph.outputs or not readers or not same_quantisation(source, result):
        return graph
    if not all(_accepts(graph, reader, result) for reader in readers):
        return graph
    pads = spatial_pads(graph, pad)
    ops: list[Op] = []
    for op in graph.ops:
        if op is pad:
            continue
        if op in readers and isinstance(op, SourceOp):
            op = replace(
                op,
                operands=(source.name, *op.operands[1:]),
                options=MappingProxyType({**op.options, EXPLICIT_PADS: pads}),
                fused=(*op.fused, pad.origin.index),
            )
        ops.append(op)
    return with_ops(graph, ops)


def _accepts(graph: Graph, op: Op, padded: Tensor) -> bool:
    return (
        isinstance(op, SourceOp)
        and op.name in _CONVOLUTIONS
        and op.options.get("padding") == "VALID"
        and EXPLICIT_PADS not in op.options
        and op.operands[0] == padded.name
        and op.inputs.count(padded.name) == 1
    )
