"""Lowers CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED to `ConvOp`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.ir import ConvOp, Graph, NpuOp, ReshapeOp, SourceOp, Tensor, hwc, made_like
from celosia.sw.compiler.ops.matmul import lower_run_time_weights
from celosia.sw.compiler.ops.operator import Operator, always
from celosia.sw.compiler.ops.weights import (
    WideArray,
    conv_fields,
    require_channels,
    weighted_operands,
)
from celosia.sw.compiler.passes.rewrite import contradiction, unsupported
from celosia.sw.compiler.passes.window import Window, require_nhwc, window_of

__all__ = ["OPERATORS"]

MAX_DENSE_WEIGHTS = 1 << 24
"""Bound on what expanding groups, a depth multiplier or dilation may allocate, in bytes."""

IndexArray = npt.NDArray[np.intp]


def lower_conv(graph: Graph, op: SourceOp) -> ConvOp:
    """Lower CONV_2D; weights come as [cout, kh, kw, cin]."""
    x = weighted_operands(graph, op, rank=4, channel_axis=0)
    cout, kernel_h, kernel_w, cin = x.weights.shape
    _, _, channels = require_nhwc(op, x.source)
    groups = channels // cin
    if groups * cin != channels or cout % groups:
        raise contradiction(
            op, f"weights {list(x.weights.shape)} for an input of {channels} channels"
        )
    require_channels(op, x.result, cout)
    window = window_of(op, x.source, x.result, (kernel_h, kernel_w))
    weights = np.ascontiguousarray(x.weights.transpose(1, 2, 3, 0))
    macs = window.out_h * window.out_w * weights.size
    if groups > 1:
        inputs = np.arange(cin)[:, None] + cin * (np.arange(cout) // (cout // groups))
        weights = _spread(op, weights, inputs, channels)
    return ConvOp(
        **conv_fields(op, x, weights, cout, sum_axes=(0, 1, 2)),
        **_geometry(window),
        dilation_w=window.dilation_w,
        macs=macs,
    )


def _spread(op: SourceOp, weights: WideArray, inputs: IndexArray, channels: int) -> WideArray:
    """Return the weights of a dense convolution that computes one with fewer inputs an output.

    Parameters
    ----------
    op : SourceOp
        For messages.
    weights : ndarray of int16, shape [kh, kw, cin, cout]
        Of each output channel's own inputs.
    inputs : ndarray of int, shape [cin, cout]
        Which channels these are.
    channels : int
        Input channels of the dense convolution; the weights of others are 0, so sums are equal.
    """
    kernel_h, kernel_w, _, cout = weights.shape
    if kernel_h * kernel_w * channels * cout > MAX_DENSE_WEIGHTS:
        raise unsupported(
            op,
            f"groups or a depth multiplier on {channels} channels expand to too many weights",
            "use one convolution a group, or a depth multiplier of 1 followed by a 1x1 convolution",
        )
    dense = np.zeros((kernel_h, kernel_w, channels, cout), weights.dtype)
    dense[:, :, inputs, np.arange(cout)] = weights
    return dense


def lower_depthwise(graph: Graph, op: SourceOp) -> ConvOp:
    """Lower DEPTHWISE_CONV_2D; weights come as [1, kh, kw, cout].

    With a depth multiplier, output channel n reads input channel n // multiplier: that becomes a
    dense convolution whose other weights are zero, which changes no sum.
    """
    x = weighted_operands(graph, op, rank=4, channel_axis=3)
    one, kernel_h, kernel_w, cout = x.weights.shape
    _, _, cin = require_nhwc(op, x.source)
    declared = op.options.get("depth_multiplier")
    if one != 1 or cout % cin or declared not in (0, cout // cin):
        raise contradiction(
            op,
            f"weights {list(x.weights.shape)} with depth multiplier {declared} for {cin} channels",
        )
    require_channels(op, x.result, cout)
    window = window_of(op, x.source, x.result, (kernel_h, kernel_w))
    depthwise = cout == cin
    weights = np.ascontiguousarray(x.weights[0])
    if depthwise:
        weights = _beside(op, weights, window.dilation_w)
    else:
        own = (np.arange(cout) // (cout // cin))[None, :]
        weights = _spread(op, weights[:, :, None, :], own, cin)
    return ConvOp(
        **conv_fields(op, x, weights, cout, sum_axes=(0, 1) if depthwise else (0, 1, 2)),
        **_geometry(window),
        depthwise=depthwise,
        dilation_w=1 if depthwise else window.dilation_w,
        macs=window.out_h * window.out_w * cout * kernel_h * kernel_w,
    )


def _beside(op: SourceOp, weights: WideArray, dilation: int) -> WideArray:
    """Return a depthwise kernel [kh, kw, c] with zeros between its columns, for dilation 1."""
    kernel_h, kernel_w, channels = weights.shape
    reach = (kernel_w - 1) * dilation + 1
    if kernel_h * reach * channels > MAX_DENSE_WEIGHTS:
        raise unsupported(
            op, f"dilation {dilation} of {kernel_w} columns is too wide", "use a smaller dilation"
        )
    spread = np.zeros((kernel_h, reach, channels), weights.dtype)
    spread[:, ::dilation] = weights
    return spread


def lower_fully_connected(graph: Graph, op: SourceOp) -> tuple[list[NpuOp], list[Tensor]]:
    """Lower FULLY_CONNECTED; weights come as [cout, depth].

    Returns
    -------
    ops : list of NpuOp
        A `ConvOp`, behind a `ReshapeOp` where the input has no fitting [H, W, C] view; a
        `MatmulOp` where the weights are computed at run time.
    tensors : list of Tensor
        The reshaped input, if there is one.
    """
    if op.options.get("weights_format") != 0:
        raise unsupported(op, "shuffled weights", "convert without a microcontroller-specific step")
    if graph.tensors[op.inputs[1]].data is None:
        return lower_run_time_weights(graph, op)
    x = weighted_operands(graph, op, rank=2, channel_axis=0)
    cout, depth = x.weights.shape
    if x.source.elements % depth:
        raise contradiction(op, f"weights of depth {depth} for input {list(x.source.shape)}")
    batch = x.source.elements // depth
    if x.result.elements != batch * cout or x.result.shape[-1:] != (cout,):
        raise contradiction(op, f"output {list(x.result.shape)} for {batch} rows of {cout}")
    ops: list[NpuOp] = []
    tensors: list[Tensor] = []
    source = x.source
    height, width, channels = hwc(source.shape)
    pixels = batch == 1 and height * width * channels == depth
    rows = channels == depth and (height, width, cout) == hwc(x.result.shape)
    if not pixels and not rows:
        source = made_like(x.source, graph.tensors, f"{x.result.name}/rows", (batch, depth))
        tensors.append(source)
        ops.append(
            ReshapeOp(
                origin=op.origin,
                input=x.source.name,
                output=source.name,
            )
        )
    kernel = (height, width, channels) if pixels else (1, 1, depth)
    weights = np.ascontiguousarray(x.weights.reshape(cout, *kernel).transpose(1, 2, 3, 0))
    common = conv_fields(op, x, weights, cout, sum_axes=(0, 1, 2))
    common["input"] = source.name
    ops.append(ConvOp(**common, macs=batch * depth * cout))
    return ops, tensors


def _geometry(window: Window) -> dict[str, Any]:
    return {
        "dilation_h": window.dilation_h,
        "stride_h": window.stride_h,
        "stride_w": window.stride_w,
        "pad_top": window.pad_top,
        "pad_bottom": window.pad_bottom,
        "pad_left": window.pad_left,
        "pad_right": window.pad_right,
    }


def _constant_weights(graph: Graph, op: SourceOp) -> bool:
    """Whether a FULLY_CONNECTED takes nothing of the run but its first input."""
    return graph.tensors[op.inputs[1]].is_constant


OPERATORS = (
    Operator(
        names=("CONV_2D",),
        operands=(2, 3),
        where="array",
        limits="int8 weights with zero point 0 (uint8: any)",
        batches=True,
        apart=always,
        lower=lower_conv,
        weighted=True,
    ),
    Operator(
        names=("DEPTHWISE_CONV_2D",),
        operands=(2, 3),
        where="array",
        limits="int8 weights with zero point 0 (uint8: any)",
        batches=True,
        apart=always,
        lower=lower_depthwise,
        weighted=True,
    ),
    Operator(
        names=("FULLY_CONNECTED",),
        operands=(2, 3),
        where="array",
        limits="int8 weights with zero point 0 (uint8 and those of the run: any); no sum that"
        " leaves 32 bits in the reference",
        lower=lower_fully_connected,
        weighted=True,
        batches=True,
        apart=_constant_weights,
    ),
)
