"""Random uint8 models of one operator, as the first converter wrote them, with inputs.

Weights have a zero point anywhere, so that many exceed eight bits when it is taken off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.random_models import RandomModel

__all__ = ["UNSIGNED_OPERATORS", "random_unsigned"]

Rng = np.random.Generator
UInt8 = npt.NDArray[np.uint8]
Options = tuple[str, dict[str, Any]]


class _Draw:
    """A model under construction."""

    def __init__(self, rng: Rng) -> None:
        self.rng, self.builder = rng, ModelBuilder()
        self.inputs: list[UInt8] = []

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def scale(self, low: float, high: float) -> float:
        return float(np.float32(low * (high / low) ** self.rng.random()))

    def zero_point(self) -> int:
        return (0, 128, 255, self.whole(0, 255), self.whole(0, 255))[self.whole(0, 4)]

    def values(self, shape: tuple[int, ...]) -> UInt8:
        return self.rng.integers(0, 256, shape).astype(np.uint8)

    def input(self, shape: tuple[int, ...], like: TensorHandle | None = None) -> TensorHandle:
        scale, zero_point = self.scale(0.01, 0.1), self.zero_point()
        if like is not None:
            scale, zero_point = like.scale, like.zero_point
        self.inputs.append(self.values(shape))
        return self.builder.input(shape, scale=scale, zero_point=zero_point, dtype=np.uint8)

    def image(self) -> TensorHandle:
        shape = (1, self.whole(2, 9), self.whole(2, 9), self.whole(1, 20))
        return self.input(shape)

    def result(
        self,
        code: str,
        inputs: list[TensorHandle],
        shape: tuple[int, ...],
        options: Options | None = None,
        *,
        scale: float | None = None,
        like: TensorHandle | None = None,
    ) -> TensorHandle:
        zero_point = self.zero_point() if like is None else like.zero_point
        if like is not None:
            scale = like.scale
        elif scale is None:
            scale = self.scale(0.01, 0.1)
        return self.builder.operator(
            code, inputs, shape, scale=scale, zero_point=zero_point, options=options, dtype=np.uint8
        )

    def weighted(
        self, code: str, x: TensorHandle, weights: UInt8, shape: tuple[int, ...], options: Options
    ) -> None:
        """An operator with weights, whose scale of the output lets sums neither vanish nor clip."""
        w_scale, channels = self.scale(0.002, 0.02), shape[-1]
        filter_ = self.builder.constant(weights, scales=w_scale, zero_point=self.zero_point())
        bias = self.builder.constant(
            self.rng.integers(-5000, 5000, channels).astype(np.int32),
            scales=float(np.float32(x.scale) * np.float32(w_scale)),
        )
        taps = weights.size / channels
        natural = x.scale * w_scale * 80 * taps**0.5
        scale = float(np.float32(natural * self.scale(0.3, 4)))
        self.result(code, [x, filter_, bias], shape, options, scale=scale)


def _window(d: _Draw, x: TensorHandle) -> tuple[tuple[int, int], tuple[int, int], dict[str, int]]:
    """Kernel, size of the output, and the options that windows share."""
    kernel = tuple(min(d.whole(1, 4), size) for size in x.shape[1:3])
    strides, padding = (d.whole(1, 2), d.whole(1, 2)), d.whole(0, 1)
    out = tuple(
        -(-size // step) if padding == 0 else (size - k) // step + 1
        for size, k, step in zip(x.shape[1:3], kernel, strides, strict=True)
    )
    fields = {"Padding": padding, "StrideH": strides[0], "StrideW": strides[1]}
    return (kernel[0], kernel[1]), (out[0], out[1]), fields


def _convolution(d: _Draw) -> None:
    x, cout = d.image(), d.whole(1, 20)
    kernel, out, fields = _window(d, x)
    fields |= {"DilationHFactor": 1, "DilationWFactor": 1, "FusedActivationFunction": d.whole(0, 1)}
    weights = d.values((cout, *kernel, x.shape[3]))
    d.weighted("CONV_2D", x, weights, (1, *out, cout), ("Conv2DOptions", fields))


def _depthwise(d: _Draw) -> None:
    x, multiplier = d.image(), d.whole(1, 2)
    kernel, out, fields = _window(d, x)
    cout = x.shape[3] * multiplier
    fields |= {"DilationHFactor": 1, "DilationWFactor": 1, "DepthMultiplier": multiplier}
    weights, options = d.values((1, *kernel, cout)), ("DepthwiseConv2DOptions", fields)
    d.weighted("DEPTHWISE_CONV_2D", x, weights, (1, *out, cout), options)


def _fully_connected(d: _Draw) -> None:
    rows, depth, units = d.whole(1, 4), d.whole(1, 200), d.whole(1, 30)
    x = d.input((rows, depth))
    weights = d.values((units, depth))
    d.weighted("FULLY_CONNECTED", x, weights, (rows, units), ("FullyConnectedOptions", {}))


def _pool(d: _Draw) -> None:
    x = d.image()
    kernel, out, fields = _window(d, x)
    fields |= {"FilterHeight": kernel[0], "FilterWidth": kernel[1]}
    shape = (1, *out, x.shape[3])
    d.result("AVERAGE_POOL_2D", [x], shape, ("Pool2DOptions", fields), like=x)


def _concatenation(d: _Draw) -> None:
    parts = [d.image()]
    shape = parts[0].shape
    for _ in range(d.whole(1, 2)):
        like = parts[0] if d.whole(0, 1) else None
        parts.append(d.input((*shape[:3], d.whole(1, 9)), like=like))
    out = (*shape[:3], sum(part.shape[3] for part in parts))
    like = parts[0] if d.whole(0, 1) else None
    d.result("CONCATENATION", parts, out, ("ConcatenationOptions", {"Axis": 3}), like=like)


def _add(d: _Draw) -> None:
    x = d.image()
    d.result("ADD", [x, d.input(x.shape)], x.shape, ("AddOptions", {}), scale=d.scale(0.02, 0.4))


def _softmax(d: _Draw) -> None:
    x = d.input((d.whole(1, 5), d.whole(2, 40)))
    options = ("SoftmaxOptions", {"Beta": 1.0})
    d.builder.operator(
        "SOFTMAX", [x], x.shape, scale=1 / 256, zero_point=0, options=options, dtype=np.uint8
    )


def _logistic(d: _Draw) -> None:
    x = d.image()
    d.builder.operator("LOGISTIC", [x], x.shape, scale=1 / 256, zero_point=0, dtype=np.uint8)


def _mean(d: _Draw) -> None:
    x = d.image()
    axes = d.builder.constant(np.array([1, 2], np.int32))
    d.result("MEAN", [x, axes], (1, 1, 1, x.shape[3]), ("ReducerOptions", {"KeepDims": True}))


_MAKERS: dict[str, Callable[[_Draw], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concatenation,
    "ADD": _add,
    "SOFTMAX": _softmax,
    "LOGISTIC": _logistic,
    "MEAN": _mean,
}
UNSIGNED_OPERATORS = tuple(_MAKERS)
"""The schema's names of the operators that `random_unsigned` can make."""


def random_unsigned(code: str, rng: Rng) -> RandomModel:
    """Make a model of one operator.

    Parameters
    ----------
    code
        One of :data:`UNSIGNED_OPERATORS`.
    rng
        Where every choice comes from.
    """
    draw = _Draw(rng)
    _MAKERS[code](draw)
    return RandomModel(draw.builder.finish(), draw.inputs)
