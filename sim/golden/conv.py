"""Convolutions and fully connected layers of the TensorFlow Lite int8 reference kernels.

Sources: TensorFlow Lite ``reference/integer_ops/{conv,depthwise_conv,fully_connected}.h``;
conventions as in :mod:`celosia.sim.golden.operators`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from celosia.sim.golden.fixed import (
    Int64,
    Rounding,
    activation_range,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    to_int8,
    wrap_int32,
)

__all__ = [
    "channel_multipliers",
    "channel_scales",
    "conv2d",
    "conv2d_accumulators",
    "depthwise_conv2d",
    "depthwise_conv2d_accumulators",
    "fully_connected",
    "fully_connected_accumulators",
    "requantize",
    "same_padding",
    "transpose_conv",
    "unsigned_multipliers",
    "window_geometry",
    "window_taps",
]

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Pair = tuple[int, int]
Scales = float | Sequence[float] | npt.NDArray[np.float32]


# ---------------------------------------------------------------------- sliding windows


def same_padding(extent: int, kernel: int, stride: int, dilation: int = 1) -> Pair:
    """Return the padding (before, after) that SAME adds along one axis.

    The odd element goes after.
    """
    out = -(-extent // stride)
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2


def window_geometry(
    extent: int, kernel: int, stride: int, padding: str, dilation: int = 1
) -> tuple[int, int, int]:
    """Return (output extent, padding before, padding after) along one axis.

    Raises
    ------
    ValueError
        If `padding` is neither "SAME" nor "VALID", or nothing fits.
    """
    if padding == "SAME":
        return (-(-extent // stride), *same_padding(extent, kernel, stride, dilation))
    if padding != "VALID":
        raise ValueError(f'padding is "SAME" or "VALID", got {padding!r}')
    out = -(-(extent - (kernel - 1) * dilation) // stride)
    if out < 1:
        raise ValueError(f"a kernel of {kernel} (dilation {dilation}) does not fit in {extent}")
    return out, 0, 0


def window_taps(
    x: Int64, kernel: Pair, strides: Pair, padding: str, dilations: Pair, fill: int
) -> list[tuple[int, int, Int64]]:
    """Return (kernel y, kernel x, the input element under that tap for every output pixel).

    The arrays are views, (N, out_h, out_w, C), of the input padded with `fill`.
    """
    rows = window_geometry(x.shape[1], kernel[0], strides[0], padding, dilations[0])
    cols = window_geometry(x.shape[2], kernel[1], strides[1], padding, dilations[1])
    padded = np.pad(x, ((0, 0), rows[1:], cols[1:], (0, 0)), constant_values=fill)
    taps = []
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            top, left = ky * dilations[0], kx * dilations[1]
            bottom = top + (rows[0] - 1) * strides[0] + 1
            right = left + (cols[0] - 1) * strides[1] + 1
            view = padded[:, top : bottom : strides[0], left : right : strides[1], :]
            taps.append((ky, kx, view))
    return taps


# ---------------------------------------------------------------------- requantisation


def channel_scales(x_scale: float, w_scales: Scales, out_scale: float) -> npt.NDArray[np.float64]:
    """Return x_scale * w_scale / out_scale for each channel.

    The kernels compute this in double precision, in this order, from float32 scales.
    """
    w = np.atleast_1d(np.asarray(w_scales, np.float32)).astype(np.float64)
    scales: npt.NDArray[np.float64] = float(np.float32(x_scale)) * w / float(np.float32(out_scale))
    return scales


def channel_multipliers(x_scale: float, w_scales: Scales, out_scale: float) -> tuple[Int64, Int64]:
    """Return the mantissas and shifts of :func:`channel_scales`, one for each channel."""
    reals = channel_scales(x_scale, w_scales, out_scale)
    pairs = [quantize_multiplier(float(real)) for real in reals]
    return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)


def unsigned_multipliers(x_scale: float, w_scales: Scales, out_scale: float) -> tuple[Int64, Int64]:
    """Return the mantissa and shift of a uint8 kernel, whose product of scales is one of floats.

    Source: ``GetQuantizedConvolutionMultipler`` in TensorFlow Lite ``kernels/kernel_util.cc``.
    """
    product = np.float32(x_scale) * np.atleast_1d(np.asarray(w_scales, np.float32))
    pairs = [quantize_multiplier(float(p) / float(np.float32(out_scale))) for p in product]
    return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)


def requantize(
    acc: npt.NDArray[np.int32] | Int64,
    mantissa: npt.ArrayLike,
    shift: npt.ArrayLike,
    *,
    out_zero_point: int,
    low: int,
    high: int,
    rounding: Rounding = "double",
) -> Int8:
    """Scale int32 accumulators, add the output's zero point, clamp to [low, high].

    `mantissa` and `shift` broadcast along the last axis, one for each channel.
    """
    scaled = multiply_by_quantized_multiplier(acc, mantissa, shift, rounding)
    return to_int8(scaled + out_zero_point, low, high)


# ---------------------------------------------------------------------- convolutions


def conv2d_accumulators(
    x: Int8,
    w: Int8,
    bias: Int32 | None,
    *,
    strides: Pair = (1, 1),
    padding: str = "SAME",
    dilations: Pair = (1, 1),
    x_zero_point: int,
    w_zero_point: int = 0,
) -> Int32:
    """Return the int32 accumulators of CONV_2D, bias included; shapes as for :func:`conv2d`."""
    out_channels, kernel_h, kernel_w, group_depth = w.shape
    groups = x.shape[3] // group_depth
    if groups * group_depth != x.shape[3] or out_channels % groups:
        raise ValueError(f"weights {w.shape} do not fit the input {x.shape}")
    # float64 is exact here (products below 2**16, far fewer than 2**37 of them) and uses BLAS.
    taps = window_taps(
        x.astype(np.int64), (kernel_h, kernel_w), strides, padding, dilations, x_zero_point
    )
    weights = w.astype(np.float64) - w_zero_point
    acc = np.zeros((*taps[0][2].shape[:3], out_channels), np.float64)
    per_group = out_channels // groups
    for ky, kx, view in taps:
        values = (view - x_zero_point).astype(np.float64)
        for group in range(groups):
            inputs = slice(group * group_depth, (group + 1) * group_depth)
            outputs = slice(group * per_group, (group + 1) * per_group)
            acc[..., outputs] += values[..., inputs] @ weights[outputs, ky, kx, :].T
    return _with_bias(acc.astype(np.int64), bias)


def _with_bias(acc: Int64, bias: Int32 | None) -> Int32:
    total = acc if bias is None else acc + bias.astype(np.int64)
    return wrap_int32(total).astype(np.int32)


def conv2d(
    x: Int8,
    w: Int8,
    bias: Int32 | None,
    *,
    strides: Pair = (1, 1),
    padding: str = "SAME",
    dilations: Pair = (1, 1),
    x_scale: float,
    x_zero_point: int,
    w_scales: Scales,
    out_scale: float,
    out_zero_point: int,
    activation: str = "NONE",
    w_zero_point: int = 0,
    unsigned: bool = False,
) -> Int8:
    """CONV_2D.

    Parameters
    ----------
    x
        int8 (N, H, W, C).
    w
        int8 (out_channels, kernel_h, kernel_w, C), zero point 0.  A smaller last dimension
        that divides C makes a grouped convolution.
    bias
        int32 (out_channels,) at scale x_scale * w_scale, or None.
    strides, dilations
        (height, width).
    padding
        "SAME" (with the zero point) or "VALID".
    x_scale, x_zero_point, out_scale, out_zero_point
        Quantisation of input and output.
    w_scales
        One scale, or one for each output channel.
    activation
        "NONE", "RELU", "RELU_N1_TO_1" or "RELU6".
    w_zero_point
        Of the weights; the int8 kernels have none.
    unsigned
        As the uint8 kernels, of values and zero points 128 larger: see
        :func:`unsigned_multipliers`.

    Returns
    -------
    numpy.ndarray
        int8 (N, out_h, out_w, out_channels).
    """
    acc = conv2d_accumulators(
        x,
        w,
        bias,
        strides=strides,
        padding=padding,
        dilations=dilations,
        x_zero_point=x_zero_point,
        w_zero_point=w_zero_point,
    )
    multipliers = unsigned_multipliers if unsigned else channel_multipliers
    mantissas, shifts = multipliers(x_scale, w_scales, out_scale)
    low, high = activation_range(activation, out_scale, out_zero_point)
    return requantize(acc, mantissas, shifts, out_zero_point=out_zero_point, low=low, high=high)


def transpose_conv(
    x: Int8,
    w: Int8,
    bias: Int32 | None,
    *,
    size: Pair,
    strides: Pair,
    padding: str,
    x_scale: float,
    x_zero_point: int,
    w_scales: Scales,
    out_scale: float,
    out_zero_point: int,
    activation: str = "NONE",
) -> Int8:
    """TRANSPOSE_CONV: every pixel of the input adds the kernel, times its value, to the output.

    Parameters
    ----------
    x, w, bias
        As for :func:`conv2d`.
    size
        Height and width of the output.  What the kernel writes outside of it is lost.
    strides
        Rows and columns of the output from input pixel to input pixel.
    padding
        "SAME" or "VALID" of the convolution that this is the transpose of.

    Returns
    -------
    numpy.ndarray
        int8 (N, *size, out_channels).
    """
    n, height, width, _ = x.shape
    out_channels, kernel_h, kernel_w, _ = w.shape
    top = _transposed_padding(size[0], kernel_h, strides[0], padding)
    left = _transposed_padding(size[1], kernel_w, strides[1], padding)
    rows = max((height - 1) * strides[0] + kernel_h, top + size[0])
    columns = max((width - 1) * strides[1] + kernel_w, left + size[1])
    total = np.zeros((n, rows, columns, out_channels), np.int64)
    values = x.astype(np.int64) - x_zero_point
    weights = w.astype(np.int64)
    for i in range(height):
        for j in range(width):
            y, z = i * strides[0], j * strides[1]
            added = np.einsum("nc,ohwc->nhwo", values[:, i, j], weights)
            total[:, y : y + kernel_h, z : z + kernel_w] += added
    acc = _with_bias(total[:, top : top + size[0], left : left + size[1]], bias)
    mantissas, shifts = channel_multipliers(x_scale, w_scales, out_scale)
    low, high = activation_range(activation, out_scale, out_zero_point)
    return requantize(acc, mantissas, shifts, out_zero_point=out_zero_point, low=low, high=high)


def _transposed_padding(extent: int, kernel: int, stride: int, padding: str) -> int:
    """Return the rows that the convolution which is transposed would have before `extent`."""
    return same_padding(extent, kernel, stride)[0] if padding == "SAME" else 0


def depthwise_conv2d_accumulators(
    x: Int8,
    w: Int8,
    bias: Int32 | None,
    *,
    strides: Pair = (1, 1),
    padding: str = "SAME",
    dilations: Pair = (1, 1),
    x_zero_point: int,
    w_zero_point: int = 0,
) -> Int32:
    """Return the int32 accumulators of DEPTHWISE_CONV_2D, bias included."""
    _, kernel_h, kernel_w, channels = w.shape
    multiplier = channels // x.shape[3]
    if multiplier * x.shape[3] != channels:
        raise ValueError(f"weights {w.shape} do not fit the input {x.shape}")
    taps = window_taps(
        x.astype(np.int64), (kernel_h, kernel_w), strides, padding, dilations, x_zero_point
    )
    acc = np.zeros((*taps[0][2].shape[:3], channels), np.int64)
    for ky, kx, view in taps:
        # Output channel c * multiplier + m reads input channel c.
        weights = w[0, ky, kx].astype(np.int64) - w_zero_point
        acc += np.repeat(view - x_zero_point, multiplier, axis=3) * weights
    return _with_bias(acc, bias)


def depthwise_conv2d(
    x: Int8,
    w: Int8,
    bias: Int32 | None,
    *,
    strides: Pair = (1, 1),
    padding: str = "SAME",
    dilations: Pair = (1, 1),
    x_scale: float,
    x_zero_point: int,
    w_scales: Scales,
    out_scale: float,
    out_zero_point: int,
    activation: str = "NONE",
    w_zero_point: int = 0,
    unsigned: bool = False,
) -> Int8:
    """DEPTHWISE_CONV_2D.

    `w` is int8 (1, kernel_h, kernel_w, C * depth_multiplier); the other parameters and the
    result are as for :func:`conv2d`.
    """
    acc = depthwise_conv2d_accumulators(
        x,
        w,
        bias,
        strides=strides,
        padding=padding,
        dilations=dilations,
        x_zero_point=x_zero_point,
        w_zero_point=w_zero_point,
    )
    multipliers = unsigned_multipliers if unsigned else channel_multipliers
    mantissas, shifts = multipliers(x_scale, w_scales, out_scale)
    low, high = activation_range(activation, out_scale, out_zero_point)
    return requantize(acc, mantissas, shifts, out_zero_point=out_zero_point, low=low, high=high)


def fully_connected_accumulators(
    x: Int8, w: Int8, bias: Int32 | None, *, x_zero_point: int, w_zero_point: int = 0
) -> Int32:
    """Return the int32 accumulators (batch, units) of FULLY_CONNECTED, bias included."""
    rows = x.reshape(-1, w.shape[1]).astype(np.float64) - x_zero_point
    products = rows @ (w.astype(np.float64) - w_zero_point).T
    return _with_bias(products.astype(np.int64), bias)


def fully_connected(
    x: Int8,
    w: Int8,
    bias: Int32 | None,
    *,
    x_scale: float,
    x_zero_point: int,
    w_scales: Scales,
    out_scale: float,
    out_zero_point: int,
    w_zero_point: int = 0,
    activation: str = "NONE",
) -> Int8:
    """FULLY_CONNECTED: accumulators times a double precision scale, rounded half away from zero.

    There is no fixed-point multiplier in this operator's reference kernel: it computes
    ``round(double(acc) * (double(x_scale) * double(w_scale) / double(out_scale)))``.

    Parameters
    ----------
    x
        int8, any shape; read as (batch, depth).
    w
        int8 (units, depth).
    bias
        int32 (units,), or None.
    w_scales
        One scale (per tensor) or one for each unit (per channel).

    Returns
    -------
    numpy.ndarray
        int8 (batch, units).
    """
    acc = fully_connected_accumulators(
        x, w, bias, x_zero_point=x_zero_point, w_zero_point=w_zero_point
    )
    scaled = acc.astype(np.float64) * channel_scales(x_scale, w_scales, out_scale)
    # floor(|v| + 0.5) would round the largest double below 0.5 up; the fraction does not.
    whole = np.floor(np.abs(scaled))
    rounded = np.copysign(whole + (np.abs(scaled) - whole >= 0.5), scaled)
    low, high = activation_range(activation, out_scale, out_zero_point)
    return to_int8(np.clip(rounded, -(2.0**31), 2.0**31) + out_zero_point, low, high)
