"""Convolutions and fully connected layers: `ConvOp`, which the array computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.arithmetic.fixed import int32_wrap, multiply_by_quantized_multiplier
from celosia.sw.compiler.arithmetic.ranges import BoolArray, Int64Array, Ranges
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.compiler.ir import ConvOp, Graph, Int8Array
from celosia.sw.compiler.ops.npu.checks import bad_clamp, is_int8, window_count
from celosia.sw.compiler.ops.npu.kind import InputLayout, Kind
from celosia.sw.compiler.ops.npu.window import (
    stack_windows,
    window_columns,
    window_piece,
    window_rows,
    with_clamp,
)
from celosia.sw.compiler.place.mapping import ROWS_TAPS, conv_axes, joined_passes, map_conv

__all__ = ["CONV", "border_classes", "numbers_violation"]

WORD = 1 << 32


def _verify(graph: Graph, op: ConvOp) -> str | None:
    height, width, _ = graph.hwc(op.input)
    violation = numbers_violation(graph, op)
    if violation is not None:
        return violation
    out = (
        window_count(height, op.reach_h, op.stride_h, op.pad_top, op.pad_bottom),
        window_count(width, op.reach_w, op.stride_w, op.pad_left, op.pad_right),
        op.cout,
    )
    if out != graph.hwc(op.output):
        return f"computes {out}, output is {graph.hwc(op.output)}"
    return None


def numbers_violation(graph: Graph, op: ConvOp) -> str | None:
    """Return what is wrong with a convolution apart from its geometry, or None."""
    channels = graph.hwc(op.input)[2]
    if op.weights.dtype != np.int8 or op.weights.ndim != (3 if op.depthwise else 4):
        return f"weights are {op.weights.dtype}{list(op.weights.shape)}"
    for more in op.more_weights:
        if (more.dtype, more.shape) != (op.weights.dtype, op.weights.shape):
            return f"more weights are {more.dtype}{list(more.shape)}"
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
    if not is_int8(op.input_zero_point) or not is_int8(op.output_zero_point):
        return "a zero point is out of range"
    if min(op.dilation_h, op.dilation_w) < 1:
        return f"dilation {op.dilation_h}x{op.dilation_w}"
    if op.depthwise and op.dilation_w > 1:
        return "a depthwise kernel has its columns side by side"
    return bad_clamp(op.act_min, op.act_max)


# Ranges -----------------------------------------------------------------------------------------


def border_classes(op: ConvOp, height: int, width: int) -> BoolArray:
    """Return the kernel taps inside the image, for each kind of output pixel.

    Parameters
    ----------
    op : ConvOp
        The convolution.
    height, width : int
        Of its input.

    Returns
    -------
    ndarray of bool, shape [classes, kh, kw]
        At least one class.
    """
    rows = _inside(op.kernel_h, op.dilation_h, op.stride_h, op.pad_top, op.pad_bottom, height)
    columns = _inside(op.kernel_w, op.dilation_w, op.stride_w, op.pad_left, op.pad_right, width)
    classes: BoolArray = rows[:, None, :, None] & columns[None, :, None, :]
    return classes.reshape(-1, op.kernel_h, op.kernel_w)


def _inside(
    kernel: int, dilation: int, stride: int, before: int, after: int, size: int
) -> BoolArray:
    """Distinct rows of bool, shape [kinds, kernel], of one axis."""
    out = (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
    position = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - before
    distinct: BoolArray = np.unique((position >= 0) & (position < size), axis=0)
    return distinct


def _ranges(graph: Graph, op: ConvOp, sources: tuple[Ranges, ...]) -> Ranges:
    """Treat padding exactly: pixels of one border class have the same taps inside the image."""
    height, width, _ = graph.hwc(op.input)
    weights = op.whole_weights
    low, high = sources[0].low, sources[0].high
    if op.depthwise:
        tap_low = np.minimum(weights * low, weights * high)
        tap_high = np.maximum(weights * low, weights * high)
        tap_outside = weights * op.input_zero_point
    else:
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        tap_low = np.einsum("ijcn,c->ijn", positive, low) + np.einsum("ijcn,c->ijn", negative, high)
        tap_high = np.einsum("ijcn,c->ijn", positive, high) + np.einsum(
            "ijcn,c->ijn", negative, low
        )
        tap_outside = weights.sum(axis=2) * op.input_zero_point
    inside = border_classes(op, height, width)[..., None]
    bias = op.bias.astype(np.int64)
    acc_low = bias + np.where(inside, tap_low, tap_outside).sum(axis=(1, 2)).min(axis=0)
    acc_high = bias + np.where(inside, tap_high, tap_outside).sum(axis=(1, 2)).max(axis=0)
    out_low = np.empty(op.cout, np.int64)
    out_high = np.empty(op.cout, np.int64)
    for channel in range(op.cout):
        ends = _requantised(op, channel, int(acc_low[channel]), int(acc_high[channel]))
        out_low[channel], out_high[channel] = ends
    return Ranges(out_low, out_high)


def _requantised(op: ConvOp, channel: int, low: int, high: int) -> tuple[int, int]:
    """Return the int8 results for an interval of accumulator values before wrapping."""
    turns = (low + WORD // 2) // WORD
    left = max(int(op.shift[channel]), 0)
    wraps = (high + WORD // 2) // WORD != turns
    low, high = low - turns * WORD, high - turns * WORD
    # A left shift may wrap as well, and is monotone only if neither end does.
    if op.rounding is Rounding.DOUBLE and low != high:
        wraps = wraps or (low << left, high << left) != (
            int32_wrap(low << left),
            int32_wrap(high << left),
        )
    if wraps:
        return op.act_min, op.act_max
    first, last = (_requantise(op, channel, acc) for acc in (low, high))
    assert first <= last, "requantisation is monotone"
    return first, last


def _requantise(op: ConvOp, channel: int, acc: int) -> int:
    multiplier, shift = int(op.multiplier[channel]), int(op.shift[channel])
    if op.rounding is Rounding.DOUBLE:
        scaled = multiply_by_quantized_multiplier(acc, multiplier, shift)
    else:
        scaled = (acc * multiplier + (1 << (30 - shift))) >> (31 - shift)
    return min(max(scaled + op.output_zero_point, op.act_min), op.act_max)


# Channels ---------------------------------------------------------------------------------------


def _needed(graph: Graph, op: ConvOp, source: Ranges, outputs: BoolArray) -> BoolArray:
    """Return the input channels that the bias cannot stand for."""
    added, reads = _contributions(graph, op, source)
    uneven = (added != added[:1]).any(axis=0)
    needed: BoolArray = ((reads & ~source.constant[:, None]) | uneven)[:, outputs].any(axis=1)
    return needed


def _contributions(graph: Graph, op: ConvOp, source: Ranges) -> tuple[Int64Array, BoolArray]:
    """Return what each input channel adds to the accumulators if it is constant.

    Returns
    -------
    added : ndarray of int64, shape [border classes, cin, cout]
        For channels that are not constant: as if they were.
    reads : ndarray of bool, shape [cin, cout]
        Whether any tap that is ever inside the image has a weight.
    """
    height, width, _ = graph.hwc(op.input)
    inside = border_classes(op, height, width)
    weights = op.whole_weights
    sums_inside = np.einsum("kij,ijcn->kcn", inside.astype(np.int64), weights)
    sums_outside = weights.sum(axis=(0, 1)) - sums_inside
    added = sums_inside * source.low[:, None] + sums_outside * op.input_zero_point
    reads: BoolArray = (weights[inside.any(axis=0)] != 0).any(axis=0)
    return added, reads


def _narrow(
    graph: Graph, op: ConvOp, source: Ranges, inputs: BoolArray, outputs: BoolArray
) -> ConvOp:
    if inputs.all() and outputs.all():
        return op
    bias = op.bias.astype(np.int64)

    def kept(weights: Int8Array) -> Int8Array:
        part = weights[:, :, outputs] if op.depthwise else weights[:, :, inputs][..., outputs]
        return np.ascontiguousarray(part)

    if op.depthwise:
        total, left = op.cout, int(outputs.sum())
    else:
        added, _ = _contributions(graph, op, source)
        bias = bias + added[0, ~inputs].sum(axis=0)
        total, left = op.cin * op.cout, int(inputs.sum()) * int(outputs.sum())
    return replace(
        op,
        weights=kept(op.weights),
        more_weights=tuple(map(kept, op.more_weights)),
        bias=bias[outputs].astype(np.int32),  # wraps, as the 32-bit accumulator does
        multiplier=op.multiplier[outputs],
        shift=op.shift[outputs],
        folded_macs=op.macs - op.macs * left // total,
    )


# Layout -----------------------------------------------------------------------------------------


def _odd_rows(op: ConvOp, config: NpuConfig) -> bool:
    """Whether it could read in mode ROWS along the image's rows."""
    return (
        op.depthwise
        and ceil_div(op.kernel_w, op.stride_w) <= ROWS_TAPS
        and op.kernel_h > 1
        and op.dilation_h == 1
        and config.dw_segments > 1
    )


def _stream_costs(
    op: ConvOp, in_size: Range, out_size: Range, config: NpuConfig
) -> tuple[float, float]:
    """Return the positions streamed along rows and along columns, padding included."""
    if not op.depthwise:
        return 0, 0
    taps = ceil_div(op.kernel_h, op.stride_h)
    if taps > ROWS_TAPS or op.kernel_w == 1 or op.dilation_h > 1 or config.dw_segments == 1:
        return 0, float("inf")
    axes = conv_axes(op, in_size, out_size)
    along_rows, along_columns = axes[1].stream(0, out_size[1]), axes[0].stream(0, out_size[0])
    return (
        out_size[0] * along_rows[0] + along_rows[1],
        out_size[1] * along_columns[0] + along_columns[1],
    )


def _joined_bytes(op: ConvOp, channels: int, config: NpuConfig) -> int:
    return 0 if joined_passes(op, channels, config) is None else op.kernel_w * channels


def _flat(op: ConvOp, shape: tuple[int, int, int], config: NpuConfig) -> ConvOp | None:
    """Return a dense layer of one vector, if the kernel is the image and its pixels have gaps."""
    height, width, channels = shape
    if op.depthwise or (op.kernel_h, op.kernel_w) != (height, width):
        return None
    if max(op.pad_top, op.pad_bottom, op.pad_left, op.pad_right) > 0:
        return None
    depth = height * width * channels
    if ceil_div(depth, config.rows) >= height * width * ceil_div(channels, config.rows):
        return None

    def flat(weights: Int8Array) -> Int8Array:
        return weights.reshape(1, 1, depth, -1)

    return replace(
        op,
        weights=flat(op.weights),
        more_weights=tuple(map(flat, op.more_weights)),
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
    )


def _piece(op: ConvOp, height: int, rows: Range, channels: Range) -> ConvOp:
    """Return the convolution that computes some rows and channels."""
    own = slice(*channels)
    return replace(
        window_piece(op, height, rows),
        weights=np.ascontiguousarray(op.weights[..., own]),
        more_weights=tuple(np.ascontiguousarray(part[..., own]) for part in op.more_weights),
        bias=op.bias[own],
        multiplier=op.multiplier[own],
        shift=op.shift[own],
    )


CONV = Kind(
    op=ConvOp,
    where="array",
    verify=_verify,
    channelwise=lambda graph, op: op.depthwise,
    ranges=_ranges,
    needed=_needed,
    narrow=_narrow,
    clamp=with_clamp,
    rows=window_rows,
    flat=_flat,
    piece=_piece,
    stack=stack_windows,
    columns=window_columns,
    input_layout=InputLayout(
        odd_rows=_odd_rows,
        stream_costs=_stream_costs,
        # A row of the kernel is one run of bytes only if its columns lie side by side.
        reads_packed=lambda op: not op.depthwise and op.dilation_w == 1,
        joined_bytes=_joined_bytes,
    ),
    map=map_conv,
)
