"""Lowers CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED to `ConvOp`, TRANSPOSE_CONV to several.

Also PAD on its own, which is a depthwise 1x1 convolution by one with explicit pads: the identity
inside, the zero point outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import UnsupportedError
from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.arithmetic.exact import ExactMultiplier, exact_multiplier
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    INT32_MIN,
    activation_range,
    channel_multipliers,
)
from celosia.sw.compiler.ir import (
    ConvOp,
    DType,
    Float32Array,
    Graph,
    Int8Array,
    Int32Array,
    NpuOp,
    ReshapeOp,
    Scaling,
    SourceOp,
    Tensor,
    hwc,
    made_like,
)
from celosia.sw.compiler.ops.matmul import bias_of, lower_run_time_weights
from celosia.sw.compiler.ops.moves import lower_by_fill
from celosia.sw.compiler.ops.npu.phases import PhasesOp
from celosia.sw.compiler.ops.operator import Lowered, Operator, always
from celosia.sw.compiler.ops.phases import phases_of, transposed_axis
from celosia.sw.compiler.passes.fold_pad import spatial_pads
from celosia.sw.compiler.passes.rewrite import (
    contradiction,
    require_shape,
    same_quantisation,
    unsupported,
)
from celosia.sw.compiler.passes.window import Window, require_nhwc, strides_of, window_of

__all__ = ["OPERATORS"]

MAX_DENSE_WEIGHTS = 1 << 24
"""Bound on what expanding groups, a depth multiplier or dilation may allocate, in bytes."""

IndexArray = npt.NDArray[np.intp]
WideArray = npt.NDArray[np.int16]
"""Weights less their zero point."""


@dataclass(frozen=True)
class _Operands:
    """Tensors of a weighted operator, of the right types and with quantisation."""

    source: Tensor
    weights: WideArray
    filter_scales: Float32Array
    bias: Int32Array
    result: Tensor
    in_scale: float
    out_scale: float


def lower_conv(graph: Graph, op: SourceOp) -> ConvOp:
    """Lower CONV_2D; weights come as [cout, kh, kw, cin]."""
    x = _operands(graph, op, rank=4, channel_axis=0)
    cout, kernel_h, kernel_w, cin = x.weights.shape
    _, _, channels = require_nhwc(op, x.source)
    groups = channels // cin
    if groups * cin != channels or cout % groups:
        raise contradiction(
            op, f"weights {list(x.weights.shape)} for an input of {channels} channels"
        )
    _require_channels(op, x.result, cout)
    window = window_of(op, x.source, x.result, (kernel_h, kernel_w))
    weights = np.ascontiguousarray(x.weights.transpose(1, 2, 3, 0))
    macs = window.out_h * window.out_w * weights.size
    if groups > 1:
        inputs = np.arange(cin)[:, None] + cin * (np.arange(cout) // (cout // groups))
        weights = _spread(op, weights, inputs, channels)
    return ConvOp(
        **_common(op, x, weights, cout, sum_axes=(0, 1, 2)),
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
    x = _operands(graph, op, rank=4, channel_axis=3)
    one, kernel_h, kernel_w, cout = x.weights.shape
    _, _, cin = require_nhwc(op, x.source)
    declared = op.options.get("depth_multiplier")
    if one != 1 or cout % cin or declared not in (0, cout // cin):
        raise contradiction(
            op,
            f"weights {list(x.weights.shape)} with depth multiplier {declared} for {cin} channels",
        )
    _require_channels(op, x.result, cout)
    window = window_of(op, x.source, x.result, (kernel_h, kernel_w))
    depthwise = cout == cin
    weights = np.ascontiguousarray(x.weights[0])
    if depthwise:
        weights = _beside(op, weights, window.dilation_w)
    else:
        own = (np.arange(cout) // (cout // cin))[None, :]
        weights = _spread(op, weights[:, :, None, :], own, cin)
    return ConvOp(
        **_common(op, x, weights, cout, sum_axes=(0, 1) if depthwise else (0, 1, 2)),
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
    x = _operands(graph, op, rank=2, channel_axis=0)
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
    common = _common(op, x, weights, cout, sum_axes=(0, 1, 2))
    common["input"] = source.name
    ops.append(ConvOp(**common, macs=batch * depth * cout))
    return ops, tensors


def lower_transpose_conv(graph: Graph, op: SourceOp) -> PhasesOp:
    """Lower TRANSPOSE_CONV: the shape of its output, weights [cout, kh, kw, cin], the input.

    Its reference adds each input pixel times the kernel to the output, the strides apart; here
    each phase of the output gathers the kernel taps that reach it.
    """
    require_shape(graph, op, 0, graph.tensors[op.results[0]].shape)
    _, filter_, source, *bias = op.operands
    op = replace(op, operands=(source, filter_, *bias))
    x = _operands(graph, op, rank=4, channel_axis=0)
    cout, kernel_h, kernel_w, cin = x.weights.shape
    height, width, channels = require_nhwc(op, x.source)
    out_h, out_w, _ = require_nhwc(op, x.result)
    if cin != channels:
        raise contradiction(op, f"weights {list(x.weights.shape)} for {channels} channels")
    if graph.tensors[op.inputs[1]].zero_point:
        raise unsupported(op, "its weights have a zero point", "quantise them symmetrically")
    _require_channels(op, x.result, cout)
    stride_h, stride_w = strides_of(op)
    same = op.options.get("padding") == "SAME"
    weights = np.ascontiguousarray(x.weights.transpose(1, 2, 3, 0))
    rows = transposed_axis(height, out_h, kernel_h, stride_h, same=same)
    columns = transposed_axis(width, out_w, kernel_w, stride_w, same=same)

    def conv(taps_y: tuple[int, ...], taps_x: tuple[int, ...]) -> dict[str, Any]:
        own = np.zeros((1, 1, cin, cout), weights.dtype)
        if taps_y and taps_x:
            own = np.ascontiguousarray(weights[list(taps_y)][:, list(taps_x)])
        return _common(op, x, own, cout, sum_axes=(0, 1, 2))

    return PhasesOp(
        origin=op.origin,
        fused=op.fused,
        input=x.source.name,
        output=x.result.name,
        phases=phases_of(op, rows, columns, conv),
        macs=height * width * weights.size,
    )


def lower_pad(graph: Graph, op: SourceOp) -> ConvOp | Lowered:
    """Lower a PAD that no convolution could take in."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    amounts = graph.tensors[op.inputs[1]].data
    if amounts is not None and (amounts.shape != (4, 2) or np.any(amounts[[0, 3]])):
        return lower_by_fill(graph, op)
    top, bottom, left, right = spatial_pads(graph, op)
    if not same_quantisation(source, result):
        raise unsupported(op, "input and output have different quantisation", "convert again")
    _, _, channels = require_nhwc(op, source)
    return ConvOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=result.name,
        weights=np.ones((1, 1, channels), np.int8),
        bias=np.full(channels, -source.zero_point, np.int32),
        # 2**30 in Q0.31 after one left shift: exactly 1.
        multiplier=np.full(channels, 1 << 30, np.int32),
        shift=np.ones(channels, np.int8),
        rounding=Rounding.DOUBLE,
        depthwise=True,
        pad_top=top,
        pad_bottom=bottom,
        pad_left=left,
        pad_right=right,
        input_zero_point=source.zero_point,
        output_zero_point=result.zero_point,
        macs=0,
    )


def _fitted_scaling(
    op: SourceOp,
    x: _Operands,
    common: dict[str, Any],
    weights: npt.NDArray[np.int64],
    sum_axes: tuple[int, ...],
) -> dict[str, Any]:
    """Requantisation as a reference that scales in double precision does it."""
    # The accumulator's range over all int8 inputs, widened to int32 where it would wrap.
    bias = common["bias"].astype(np.int64)
    acc_min = bias + np.minimum(-128 * weights, 127 * weights).sum(axis=sum_axes)
    acc_max = bias + np.maximum(-128 * weights, 127 * weights).sum(axis=sum_axes)
    wraps = (acc_min < INT32_MIN) | (acc_max > INT32_MAX)
    acc_min, acc_max = np.where(wraps, INT32_MIN, acc_min), np.where(wraps, INT32_MAX, acc_max)
    low = common["act_min"] - common["output_zero_point"]
    high = common["act_max"] - common["output_zero_point"]
    cout = weights.shape[-1]

    def found(scale: np.float32, first: int, last: int) -> ExactMultiplier:
        real = x.in_scale * float(scale) / x.out_scale
        return exact_multiplier(real, low, high, first, last)

    scales = np.broadcast_to(x.filter_scales, (cout,))
    each: list[ExactMultiplier] = []
    if len(x.filter_scales) == 1:
        each = [found(scales[0], int(acc_min.min()), int(acc_max.max()))] * cout
    if not all(f.exact for f in each) or not each:
        # A multiplier of its own has to be right for a unit's own accumulators only.
        each = [
            found(*unit) for unit in zip(scales, map(int, acc_min), map(int, acc_max), strict=True)
        ]
    for unit, multiplier in enumerate(each):
        if not multiplier.exact:
            raise _inexact(op, x, unit, multiplier, int(acc_min[unit]), int(acc_max[unit]))
    return {
        "multiplier": np.array([f.multiplier for f in each], np.int32),
        "shift": np.array([f.shift for f in each], np.int8),
    }


def _inexact(
    op: SourceOp, x: _Operands, unit: int, multiplier: ExactMultiplier, first: int, last: int
) -> UnsupportedError:
    """Make the error for a unit that no multiplier brings to the reference's results."""
    scale = float(x.filter_scales[unit if len(x.filter_scales) > 1 else 0])
    real = x.in_scale * scale / x.out_scale
    cause = (
        f"the accumulators of unit {unit}, {first} to {last}, times the scale {real:.6g}"
        " (input * weights / output)"
    )
    if max(-first, last) << max(multiplier.shift, 0) > INT32_MAX:
        cause += " exceed 32 bits, which the requantisation has"
    else:
        cause += " round differently from the reference with every 32-bit multiplier"
    return unsupported(
        op, cause, "convert with a larger output scale (a wider range of representative data)"
    )


def _operands(graph: Graph, op: SourceOp, *, rank: int, channel_axis: int) -> _Operands:
    source, filter_, result = (
        graph.tensors[name] for name in (op.inputs[0], op.inputs[1], op.results[0])
    )
    if filter_.data is None:
        raise unsupported(op, "its weights are computed at run time", "use constant weights")
    if filter_.dtype is not DType.INT8:
        raise unsupported(op, f"its weights are {filter_.dtype}", "quantise the weights to int8")
    if source.scale is None or result.scale is None:
        raise contradiction(op, "input or output has no scale")
    if len(filter_.shape) != rank:
        raise contradiction(op, f"weights of shape {list(filter_.shape)}, expected rank {rank}")
    cout = filter_.shape[channel_axis]
    if filter_.channel_scales is not None:
        if filter_.channel_axis != channel_axis:
            raise contradiction(op, f"weights quantised along axis {filter_.channel_axis}")
        scales = filter_.channel_scales
    elif filter_.scale is not None:
        scales = np.array([filter_.scale], np.float32)
    else:
        raise contradiction(op, "its weights have no scale")
    return _Operands(
        source=source,
        weights=filter_.data.astype(np.int16) - np.int16(filter_.zero_point),
        filter_scales=scales,
        bias=bias_of(graph, op, cout),
        result=result,
        in_scale=source.scale,
        out_scale=result.scale,
    )


def _common(
    op: SourceOp,
    x: _Operands,
    weights: WideArray,
    cout: int,
    *,
    sum_axes: tuple[int, ...],
) -> dict[str, Any]:
    """Fields that do not depend on the operator's geometry."""
    single = op.arithmetic.scaling is Scaling.NEAREST_TO_SINGLE
    multiplier, shift = channel_multipliers(
        x.in_scale, x.filter_scales, x.out_scale, cout, single=single
    )
    activation = str(op.options.get("fused_activation_function", "NONE"))
    act_min, act_max = activation_range(activation, x.out_scale, x.result.zero_point)
    sums = weights.sum(axis=sum_axes, dtype=np.int64)
    folded = x.bias.astype(np.int64) - x.source.zero_point * sums
    common = {
        "origin": op.origin,
        "fused": op.fused,
        "input": x.source.name,
        "output": x.result.name,
        **_in_eight_bits(weights),
        "bias": folded.astype(np.int32),  # wraps, as the 32-bit accumulator does
        "multiplier": multiplier,
        "shift": shift,
        "rounding": op.arithmetic.rounding,
        "input_zero_point": x.source.zero_point,
        "output_zero_point": x.result.zero_point,
        "act_min": act_min,
        "act_max": act_max,
    }
    if op.arithmetic.scaling is Scaling.FITTED:
        common |= _fitted_scaling(op, x, common, weights.astype(np.int64), sum_axes)
    return common


def _in_eight_bits(weights: WideArray) -> dict[str, Any]:
    """Return weights as one array of int8, and others to be added where they exceed it."""
    parts: list[Int8Array] = []
    while not parts or weights.any():
        parts.append(np.clip(weights, INT8_MIN, INT8_MAX).astype(np.int8))
        weights = weights - parts[-1]
    return {"weights": parts[0], "more_weights": tuple(parts[1:])}


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


def _require_channels(op: SourceOp, result: Tensor, cout: int) -> None:
    if result.shape[-1:] != (cout,):
        raise contradiction(op, f"output {list(result.shape)} for {cout} channels")


def _pads_inside(graph: Graph, op: SourceOp) -> bool:
    amounts = graph.tensors[op.inputs[1]].data
    return amounts is not None and amounts.size > 1 and not np.any(amounts.reshape(-1, 2)[0])


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
        names=("TRANSPOSE_CONV",),
        operands=(3, 4),
        activations=(2,),
        where="array",
        limits="int8 weights with zero point 0",
        lower=lower_transpose_conv,
        uint8=False,
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
    Operator(
        names=("PAD",),
        operands=(2, 2),
        where="the convolution behind it, or the array; other axes: load engine",
        limits="constant amounts; equal quantisation of input and output",
        lower=lower_pad,
        apart=_pads_inside,
    ),
)
