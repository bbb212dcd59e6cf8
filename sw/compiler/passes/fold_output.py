"""Lets a convolution of few output channels compute neighbouring pixels side by side.

A pixel of 8 channels takes 8 of 16 columns of the array, and 8 of the 16 bytes of a line, in the
activation memory as in the weights of whoever reads it. Where F neighbours fit, one window that
covers all of theirs computes them together, as F times as many channels of 1/F of the pixels::

    folded[y, x, f * C + c] = output[y, x * F + f, c]

The bytes are in the same order, so a dense layer that reads the whole image reads the folded one
with the same weights. The window grows by F - 1 strides, and the weights of what a pixel does not
read are zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.ir import ConvOp, Graph, Int8Array, NpuOp, Op, made_like
from celosia.sw.compiler.ops.npu.registry import kind_of

__all__ = ["fold_output"]


def fold_output(graph: Graph, config: NpuConfig) -> Graph:
    """Return the graph with outputs folded where a dense layer reads them; else the same graph.

    Parameters
    ----------
    graph : Graph
        Lowered.
    config : NpuConfig
        The machine, whose columns are to be filled.
    """
    ops: list[Op] = []
    tensors = dict(graph.tensors)
    readers: dict[int, ConvOp] = {}
    for op in graph.ops:
        conv = _convolution(op)
        reader = None if conv is None else _reader(graph, conv, config)
        if id(op) in readers:
            op = conv = readers[id(op)]
        if conv is not None and reader is not None:
            height, width, channels = graph.hwc(conv.output)
            fold = _fold(width, channels, config)
            shape = (1, height, width // fold, channels * fold)
            output = graph.tensors[conv.output]
            folded = made_like(output, tensors, f"{output.name}/folded", shape)
            tensors[folded.name] = folded
            readers[id(reader)] = _reading(reader, folded.name, fold)
            op = _folded(conv, folded.name, fold)
        ops.append(op)
    return replace(graph, tensors=tensors, ops=ops) if readers else graph


def _fold(width: int, channels: int, config: NpuConfig) -> int:
    """Return how many neighbours fit a line, of which rows are made up."""
    most = config.cols // channels
    return max((f for f in range(1, most + 1) if width % f == 0), default=1)


def _convolution(op: Op) -> ConvOp | None:
    """Return an operator that the array computes with constant weights, as it is."""
    return cast(ConvOp, op) if kind_of(cast(NpuOp, op)).map is not None else None


def _reader(graph: Graph, op: ConvOp, config: NpuConfig) -> ConvOp | None:
    """Return the dense layer that alone reads a convolution's output, if that can be folded."""
    if (
        op.depthwise
        or op.dilation_w > 1
        or op.output in graph.outputs
        or any(op.output in (state.before, state.after) for state in graph.state)
    ):
        return None
    _, width, channels = graph.hwc(op.output)
    consumers = graph.consumers(op.output)
    if _fold(width, channels, config) == 1 or len(consumers) != 1:
        return None
    reader = _convolution(consumers[0])
    if reader is None or reader.depthwise or max(_pads(reader)) > 0:
        return None
    whole = (reader.kernel_h, reader.kernel_w) == graph.hwc(op.output)[:2]
    return reader if whole and max(reader.dilation_h, reader.dilation_w) == 1 else None


def _pads(op: ConvOp) -> tuple[int, int, int, int]:
    return op.pad_top, op.pad_bottom, op.pad_left, op.pad_right


def _folded(op: ConvOp, output: str, fold: int) -> ConvOp:
    reach = op.kernel_w + (fold - 1) * op.stride_w

    def folded(weights: Int8Array) -> Int8Array:
        wide = np.zeros((op.kernel_h, reach, op.cin, fold, op.cout), np.int8)
        for f in range(fold):
            wide[:, f * op.stride_w : f * op.stride_w + op.kernel_w, :, f] = weights
        return wide.reshape(op.kernel_h, reach, op.cin, fold * op.cout)

    return replace(
        op,
        output=output,
        weights=folded(op.weights),
        more_weights=tuple(map(folded, op.more_weights)),
        bias=np.tile(op.bias, fold),
        multiplier=np.tile(op.multiplier, fold),
        shift=np.tile(op.shift, fold),
        stride_w=op.stride_w * fold,
    )


def _reading(op: ConvOp, name: str, fold: int) -> ConvOp:
    def folded(weights: Int8Array) -> Int8Array:
        return weights.reshape(op.kernel_h, op.kernel_w // fold, op.cin * fold, op.cout)

    return replace(
        op,
        input=name,
        weights=folded(op.weights),
        more_weights=tuple(map(folded, op.more_weights)),
    )
