"""Which values each channel of each tensor can have, by interval arithmetic on exact integers.

The lowered operators are monotone in every operand, so the ends of an output's interval are the
operator's results for ends of its operands' intervals. Intervals are exact for a single operator
and contain all reachable values for a network: a channel whose interval is one value is constant
for every input.

Padding is treated exactly: output pixels are sorted into *border classes* by the kernel taps that
lie inside the image for them, and a tap outside has the value of the zero point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    INT8_MIN,
    int32_wrap,
    multiply_by_quantized_multiplier,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
)
from celosia.sw.compiler.ir import (
    AddOp,
    ConvOp,
    Graph,
    NpuOp,
    PoolOp,
    ReshapeOp,
    TableOp,
    hwc,
)

__all__ = ["Ranges", "border_classes", "channel_ranges"]

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
WORD = 1 << 32


@dataclass(frozen=True, eq=False)
class Ranges:
    """The values of a tensor, channel by channel.

    Attributes
    ----------
    low, high : ndarray of int64, shape [channels]
        Least and greatest int8 value that any pixel can have for any input.
    """

    low: Int64Array
    high: Int64Array

    @property
    def constant(self) -> BoolArray:
        """Whether each channel has one value; bool, shape [channels]."""
        same: BoolArray = self.low == self.high
        return same


def channel_ranges(graph: Graph) -> dict[str, Ranges]:
    """Return the ranges of every tensor that the operators of a lowered graph read or write.

    Parameters
    ----------
    graph : Graph
        Lowered.
    """
    ranges = {name: _full(_channels(graph, name)) for name in graph.inputs}
    for op in graph.npu_ops:
        ranges[op.output] = _output_ranges(graph, op, ranges)
    return ranges


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
    rows = _inside(op.kernel_h, op.stride_h, op.pad_top, op.pad_bottom, height)
    columns = _inside(op.kernel_w, op.stride_w, op.pad_left, op.pad_right, width)
    classes: BoolArray = rows[:, None, :, None] & columns[None, :, None, :]
    return classes.reshape(-1, op.kernel_h, op.kernel_w)


def _inside(kernel: int, stride: int, before: int, after: int, size: int) -> BoolArray:
    """Distinct rows of bool, shape [kinds, kernel], of one axis."""
    out = (size + before + after - kernel) // stride + 1
    position = np.arange(out)[:, None] * stride + np.arange(kernel) - before
    distinct: BoolArray = np.unique((position >= 0) & (position < size), axis=0)
    return distinct


def _channels(graph: Graph, name: str) -> int:
    return hwc(graph.tensors[name].shape)[2]


def _full(channels: int, low: int = INT8_MIN, high: int = INT8_MAX) -> Ranges:
    return Ranges(np.full(channels, low, np.int64), np.full(channels, high, np.int64))


def _output_ranges(graph: Graph, op: NpuOp, ranges: dict[str, Ranges]) -> Ranges:
    if isinstance(op, ConvOp):
        return _conv(graph, op, ranges[op.input])
    if isinstance(op, AddOp):
        return _add(op, ranges[op.input_a], ranges[op.input_b])
    if isinstance(op, PoolOp):
        # A maximum is one of the values, and an average lies between them also when rounded.
        source = ranges[op.input]
        return Ranges(
            np.clip(source.low, op.act_min, op.act_max),
            np.clip(source.high, op.act_min, op.act_max),
        )
    if isinstance(op, TableOp):
        return _table(op, ranges[op.input])
    channels = _channels(graph, op.output)
    if isinstance(op, ReshapeOp) and channels == _channels(graph, op.input):
        return ranges[op.input]
    return _full(channels)


def _conv(graph: Graph, op: ConvOp, source: Ranges) -> Ranges:
    height, width, _ = hwc(graph.tensors[op.input].shape)
    weights = op.weights.astype(np.int64)
    low, high = source.low, source.high
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
    if op.rounding == "double" and low != high:
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
    if op.rounding == "double":
        scaled = multiply_by_quantized_multiplier(acc, multiplier, shift)
    else:
        scaled = (acc * multiplier + (1 << (30 - shift))) >> (31 - shift)
    return min(max(scaled + op.output_zero_point, op.act_min), op.act_max)


def _add(op: AddOp, a: Ranges, b: Ranges) -> Ranges:
    corners = np.array(
        [
            [_sum(op, int(x), int(y)) for x, y in zip(ends_a, ends_b, strict=True)]
            for ends_a in (a.low, a.high)
            for ends_b in (b.low, b.high)
        ],
        np.int64,
    )
    return Ranges(corners.min(axis=0), corners.max(axis=0))


def _sum(op: AddOp, a: int, b: int) -> int:
    def scaled(value: int, multiplier: int, shift: int) -> int:
        high = saturating_rounding_doubling_high_mul(value, multiplier)
        return rounding_divide_by_pot(high, -shift)

    scaled_a = scaled((a - op.zero_point_a) << op.left_shift, op.multiplier_a, op.shift_a)
    scaled_b = scaled((b - op.zero_point_b) << op.left_shift, op.multiplier_b, op.shift_b)
    total = scaled(scaled_a + scaled_b, op.multiplier_out, op.shift_out)
    return min(max(total + op.zero_point_out, op.act_min), op.act_max)


def _table(op: TableOp, source: Ranges) -> Ranges:
    """Tables need not be monotone: look at all values of the interval."""
    ordered = np.roll(op.table, 128).astype(np.int64)  # by value from -128 on
    parts = [
        ordered[low - INT8_MIN : high - INT8_MIN + 1]
        for low, high in zip(source.low, source.high, strict=True)
    ]
    return Ranges(
        np.array([part.min() for part in parts], np.int64),
        np.array([part.max() for part in parts], np.int64),
    )
