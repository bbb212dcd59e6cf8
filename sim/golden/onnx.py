"""What onnxruntime's quantised kernels compute, on tensors as ONNX has them (channels second).

Every function takes codes (int8 or uint8 arrays) and their quantisation, and returns codes. Sums
are whole numbers; they are scaled in float32 and rounded with halves to even. Sources: onnxruntime
``core/mlas/lib/{quantize,qladd,qlmul}.cpp`` and ``contrib_ops/cpu/quantization``, measured on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Codes",
    "add",
    "conv",
    "global_average_pool",
    "matmul",
    "max_pool",
    "multiply",
    "quantize",
    "requantize",
]

Array = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Codes:
    """Codes of a tensor, and what they mean: scale times code less zero point.

    Scale and zero point are arrays of one element, or of one a channel (of weights only).
    """

    values: Array
    scale: Float32
    zero_point: Int64

    def less_zero(self, axis: int = 0) -> Int64:
        """Return codes less their zero points, one a channel along an axis."""
        zeros = self.zero_point
        if zeros.size > 1:
            shape = [1] * self.values.ndim
            shape[axis] = zeros.size
            zeros = zeros.reshape(shape)
        return self.values.astype(np.int64) - (zeros if zeros.size > 1 else int(zeros.flat[0]))


@dataclass(frozen=True)
class Result:
    """What a result's codes are to mean."""

    scale: np.float32
    zero_point: int
    dtype: np.dtype[Any]


def quantize(real: Array, out: Result) -> Array:
    """QuantizeLinear: divided in float32, halves to even, saturated."""
    with np.errstate(over="ignore"):
        steps = np.rint(np.asarray(real, np.float32) / np.float32(out.scale))
    return _saturated(steps.astype(np.float64) + out.zero_point, out)


def requantize(x: Codes, out: Result) -> Array:
    """DequantizeLinear and QuantizeLinear, without anything between them."""
    real = x.less_zero().astype(np.float32) * x.scale.flat[0]
    return quantize(real, out)


def _saturated(values: Array, out: Result) -> Array:
    limits = np.iinfo(out.dtype)
    return np.clip(values, limits.min, limits.max).astype(out.dtype)


def _scaled(accumulators: Int64, scale: Float32, out: Result) -> Array:
    """Scale sums of 32 bits; `scale` broadcasts against them."""
    assert np.abs(accumulators).max(initial=0) < 1 << 31, "the sum leaves 32 bits"
    steps = np.rint(accumulators.astype(np.float32) * scale)
    return _saturated(steps.astype(np.float64) + out.zero_point, out)


def _scale_of_sums(x: Codes, w: Codes, out: Result) -> Float32:
    scale: Float32 = (x.scale.flat[0] * w.scale.reshape(-1)) / np.float32(out.scale)
    return scale.astype(np.float32)


def conv(
    x: Codes,
    w: Codes,
    bias: Int64 | None,
    out: Result,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    size: Sequence[int],
) -> Array:
    """QLinearConv over any number of axes.

    Parameters
    ----------
    x, w : Codes
        [N, C, ...] and [M, C / group, ...].
    pads : sequence of int
        Pixels before the first one, along each axis; behind the last one as many as are needed.
    size : sequence of int
        Of the result along each axis.
    """
    axes = len(size)
    values, weights = x.less_zero(), w.less_zero(axis=0)
    kernel = weights.shape[2:]
    batch, cout, own = values.shape[0], weights.shape[0], weights.shape[1]
    sums = np.zeros((batch, cout, *size), np.int64)
    for tap, pixels in _taps(values, kernel, strides, dilations, pads, size, 0):
        for number in range(group):
            outputs = slice(number * cout // group, (number + 1) * cout // group)
            inputs = pixels[:, number * own : (number + 1) * own]
            place: tuple[Any, ...] = outputs, slice(None), *tap
            part = weights[place]
            sums[:, outputs] += np.einsum("nc...,mc->nm...", inputs, part)
    if bias is not None:
        sums += bias.reshape(1, -1, *[1] * axes)
    scale = _scale_of_sums(x, w, out)
    return _scaled(sums, scale.reshape(1, -1, *[1] * axes), out)


def matmul(a: Codes, b: Codes, bias: Int64 | None, out: Result) -> Array:
    """QLinearMatMul, and QGemm without transposition; scales of `b` are one or one a column."""
    sums = a.less_zero() @ b.less_zero(axis=b.values.ndim - 1)
    if bias is not None:
        sums = sums + bias
    return _scaled(sums, _scale_of_sums(a, b, out), out)


def global_average_pool(x: Codes, out: Result) -> Array:
    """QLinearGlobalAveragePool: a sum of whole numbers, scaled once."""
    axes = tuple(range(2, x.values.ndim))
    count = np.float32(np.prod([x.values.shape[axis] for axis in axes]))
    sums = x.less_zero().sum(axis=axes, keepdims=True)
    scale = x.scale.flat[0] / (count * np.float32(out.scale))
    return _scaled(sums, np.asarray(scale, np.float32), out)


def max_pool(
    x: Array,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    size: Sequence[int],
) -> Array:
    """MaxPool of codes; padding takes no part. `pads` and `size` as of `conv`."""
    low = int(np.iinfo(x.dtype).min)
    best = np.full((*x.shape[:2], *size), low, x.dtype)
    for _, pixels in _taps(x, kernel, strides, dilations, pads, size, low):
        best = np.maximum(best, pixels)
    return best


def _taps(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    size: Sequence[int],
    fill: int,
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Yield each place of a kernel, and the elements under it for all of the result."""
    amounts = [(0, 0), (0, 0)]
    for axis, extent in enumerate(size):
        reach = (extent - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        amounts.append((pads[axis], max(reach - pads[axis] - x.shape[2 + axis], 0)))
    padded = np.pad(x, amounts, constant_values=fill)
    for tap in np.ndindex(*kernel):
        window = []
        for axis, at in enumerate(tap):
            first = at * dilations[axis]
            end = first + (size[axis] - 1) * strides[axis] + 1
            window.append(slice(first, end, strides[axis]))
        yield tap, padded[(slice(None), slice(None), *window)]


def add(a: Codes, b: Codes, out: Result) -> Array:
    """QLinearAdd: two fused multiplications and additions, behind a constant part."""
    ratio_a, ratio_b = (np.float32(c.scale.flat[0] / np.float32(out.scale)) for c in (a, b))
    zero_a, zero_b = (np.float32(c.zero_point.flat[0]) for c in (a, b))
    inner = _fused(ratio_a, zero_a, ratio_b * zero_b)
    fixed = np.float32(out.zero_point) - inner
    real = _fused(
        a.values.astype(np.float32), ratio_a, _fused(b.values.astype(np.float32), ratio_b, fixed)
    )
    return _saturated(np.rint(real), out)


def multiply(a: Codes, b: Codes, out: Result) -> Array:
    """QLinearMul: a product of whole numbers, scaled, to which the zero point is added."""
    scale = np.float32(a.scale.flat[0] * b.scale.flat[0] / np.float32(out.scale))
    products = a.less_zero().astype(np.float32) * b.less_zero().astype(np.float32)
    return _saturated(np.rint(products * scale + np.float32(out.zero_point)), out)


def _fused(a: Any, b: Any, c: Any) -> Float32:
    """Multiply and add with one rounding; double precision holds the products exactly."""
    wide = np.asarray(a, np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)
    return np.asarray(wide, np.float64).astype(np.float32)
