"""Functions of float32 tensors, as TFLite's kernels compute them, and how sure that is.

Most kernels do what IEEE 754 says, to the bit. Those that call the C library depend on it in the
last bits. So values have a first axis of five: a lower bound, what the value is taken to be, an
upper bound, and two bounds by the default kernels, which dequantise in single precision; whoever
rounds them sees whether that matters.

Sources: TensorFlow Lite `kernels/elementwise.cc`, `kernels/internal/reference/logistic.h`,
`.../gelu.h`, `.../hard_swish.h`, `.../round.h`, `.../quantize.h`, `.../dequantize.h`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import erfc, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.fixed import QuantizationError
from celosia.sw.compiler.ir import Float32Array

__all__ = [
    "BINARY",
    "BOUNDS",
    "BY_DEFAULT",
    "UNARY",
    "binary",
    "cast",
    "dequantised",
    "quantised",
    "quantised_to_even",
    "unary",
    "with_bounds",
]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
Options = Mapping[str, Any]

BOUNDS = np.array([-1, 0, 1, -1, 1], np.float32).reshape(5, 1, 1)
"""By how many errors of a library function the entries of the first axis are off."""
BY_DEFAULT = frozenset({"CEIL", "ELU", "ROUND"})
"""What the reference kernels lack, so that a model with it is held to the default ones."""
ULPS = 4
"""Units in the last place by which functions of C libraries are off, at most."""
INT32_LIMIT = 2.0**31


def dequantised(codes: Int64Array, scale: float, zero_point: int) -> Float32Array:
    """DEQUANTIZE: a product in double precision, rounded once."""
    return (scale * (codes - zero_point).astype(np.float64)).astype(np.float32)


def with_bounds(codes: Int64Array, scale: float, zero_point: int) -> Float32Array:
    """DEQUANTIZE of a tensor's own codes, shape [1, 1, 256], with a first axis of five."""
    value = dequantised(codes, scale, zero_point)
    # Of the default kernels: two products and their difference.
    parts = np.float32(scale) * (np.abs(codes) + abs(zero_point)).astype(np.float32)
    error = np.where(codes == zero_point, np.float32(0), 2 * np.spacing(parts))
    return np.concatenate([value, value, value, value - error, value + error]).astype(np.float32)


def quantised(
    values: Float32Array, scale: float, zero_point: int, limits: tuple[int, int]
) -> Int64Array:
    """QUANTIZE: divided in single precision, halves away from zero.

    What leaves 32 bits, or is not a number, becomes the least int32, to which the zero point is
    added in 32 bits: what the reference's conversion does on x86-64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        steps = (values / np.float32(scale)).astype(np.float64)
        rounded = np.trunc(steps + np.copysign(0.5, steps))
        inside = np.abs(rounded) < INT32_LIMIT
    whole = np.where(inside, rounded, -INT32_LIMIT).astype(np.int64) + zero_point
    wrapped = (whole + (1 << 31)) % (1 << 32) - (1 << 31)
    clipped: Int64Array = np.clip(wrapped, *limits)
    return clipped


def quantised_to_even(
    values: Float32Array, scale: float, zero_point: int, limits: tuple[int, int]
) -> Int64Array:
    """ONNX's QuantizeLinear: divided in single precision, halves to even."""
    with np.errstate(over="ignore"):
        steps = np.rint(values / np.float32(scale)).astype(np.float64)
    codes: Int64Array = np.clip(steps + zero_point, *limits).astype(np.int64)
    return codes


def cast(values: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    """CAST: floats lose their fraction, and what an integer type has no room for is its end.

    What is not a number becomes the greatest integer. Of integers a narrower type keeps the low
    bits.
    """
    if target.kind not in "iu" or values.dtype.kind != "f":
        return values.astype(target)
    limits = np.iinfo(target)
    whole = np.trunc(np.nan_to_num(values.astype(np.float64), nan=np.inf))
    # The greatest int64 is no float64.
    high = whole >= float(limits.max)
    inside = np.where(high, 0, np.maximum(whole, float(limits.min))).astype(target)
    return np.where(high, limits.max, inside).astype(target)


def unary(name: str, x: Float32Array, options: Options) -> Float32Array:
    """Return a function of one tensor, one of `UNARY`.

    Parameters
    ----------
    name : str
        TFLite's.
    x : ndarray of float32, shape [5, channels, entries]
        With bounds.
    options : mapping
        Of the operator.
    """
    with np.errstate(all="ignore"):
        return UNARY[name](x, options)


def binary(name: str, a: Float32Array, b: Float32Array, options: Options) -> Float32Array:
    """Return a function of two tensors that broadcast, one of `BINARY`, with its activation.

    Raises
    ------
    QuantizationError
        If it depends on whether a result of the C library is 0, or nearly.
    """
    if (name in ("DIV", "POW") and _may_be_zero(b)) or (name == "POW" and _may_be_zero(a)):
        raise QuantizationError("an operand is 0 or nearly, depending on the C library")
    with np.errstate(all="ignore"):
        result = BINARY[name](a, b).astype(np.float32)
    if name in CLAMPED:
        low, high = ACTIVATIONS[str(options.get("fused_activation_function", "NONE"))]
        result = np.minimum(np.maximum(result, np.float32(low)), np.float32(high))
    return result


def _may_be_zero(x: Float32Array) -> bool:
    low, high = x.min(axis=0), x.max(axis=0)
    return bool(np.any((low < high) & (low <= 0) & (high >= 0)))


CLAMPED = frozenset({"ADD", "DIV", "MUL", "SUB"})
"""What has a fused activation. Its kernels clamp without one, too: infinity becomes a number."""
MOST = float(np.finfo(np.float32).max)
ACTIVATIONS = {
    "NONE": (-MOST, MOST),
    "RELU": (0.0, MOST),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def _bounded(precise: Float64Array, error: Float32Array | None = None) -> Float32Array:
    """Round what a library function gives, and widen the bounds by its error.

    A function whose error is not given is exact where its result is a float32.
    """
    value = precise.astype(np.float32)
    margin = error
    if margin is None:
        margin = np.where(value == precise, np.float32(0), ULPS * np.spacing(np.abs(value)))
    margin = np.where(np.isfinite(value), margin, np.float32(0))
    return (value + BOUNDS * margin).astype(np.float32)


_Unary = Callable[[Float32Array, Options], Float32Array]


def _library(function: Callable[[Float64Array], Float64Array]) -> _Unary:
    return lambda x, options: _bounded(function(x.astype(np.float64)))


def _within(low: float, high: float) -> _Unary:
    return lambda x, options: np.minimum(np.maximum(x, np.float32(low)), np.float32(high))


def _logistic(x: Float32Array, options: Options) -> Float32Array:
    """1 / (1 + exp(-x)), and what stands for it far from 0 (`reference_ops::Logistic`)."""
    one = np.float32(1)
    middle = one / (one + _bounded(np.exp(-x.astype(np.float64))))
    # A greater exponential gives the smaller value.
    middle = middle[[2, 1, 0, 4, 3]]
    low = _bounded(np.exp(x.astype(np.float64)))
    return np.where(x > np.float32(16.619047164916992), one, np.where(x < -9, low, middle))


def _gelu(x: Float32Array, options: Options) -> Float32Array:
    wide = x.astype(np.float64)
    if options.get("approximate"):
        inner = sqrt(2 / pi) * (wide + 0.044715 * wide**3)
        precise = 0.5 * wide * (1 + np.tanh(inner))
    else:
        precise = (
            0.5 * wide * np.array([erfc(v) for v in (-wide * sqrt(0.5)).flat]).reshape(x.shape)
        )
    # Written with a sum that may cancel: the error is one of x.
    return _bounded(precise, np.abs(x) * np.float32(2.0**-20))


def _leaky_relu(x: Float32Array, options: Options) -> Float32Array:
    return np.where(x > 0, x, x * np.float32(options["alpha"]))


def _hard_swish(x: Float32Array, options: Options) -> Float32Array:
    three, six = np.float32(3), np.float32(6)
    result: Float32Array = x * np.minimum(np.maximum(x + three, np.float32(0)), six) / six
    return result


def _elu(x: Float32Array, options: Options) -> Float32Array:
    return np.where(x < 0, _bounded(np.expm1(x.astype(np.float64))), x)


def _ieee(function: Callable[[Float32Array], npt.NDArray[Any]]) -> _Unary:
    return lambda x, options: function(x).astype(np.float32)


UNARY: dict[str, _Unary] = {
    "ABS": _ieee(np.abs),
    "CEIL": _ieee(np.ceil),
    "COS": _library(np.cos),
    "ELU": _elu,
    "EXP": _library(np.exp),
    "FLOOR": _ieee(np.floor),
    "GELU": _gelu,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "LOG": _library(np.log),
    "LOGISTIC": _logistic,
    "NEG": _ieee(np.negative),
    "RELU": _within(0.0, np.inf),
    "RELU6": _within(0.0, 6.0),
    "RELU_0_TO_1": _within(0.0, 1.0),
    "RELU_N1_TO_1": _within(-1.0, 1.0),
    # To even. The kernel comes to 0 from below by adding 1 to -1, which is not -0.
    "ROUND": _ieee(lambda x: np.where(x < 0, np.rint(x) + np.float32(0), np.rint(x))),
    "RSQRT": _ieee(lambda x: np.float32(1) / np.sqrt(x)),
    "SIGN": _ieee(np.sign),
    "SIN": _library(np.sin),
    "SQRT": _ieee(np.sqrt),
    "SQUARE": _ieee(lambda x: x * x),
    "TANH": _library(np.tanh),
}
"""Functions of one tensor, by their TFLite names."""


def _power(a: Float32Array, b: Float32Array) -> Float32Array:
    return _bounded(np.power(a.astype(np.float64), b.astype(np.float64)))


BINARY: dict[str, Callable[[Float32Array, Float32Array], Float32Array]] = {
    "ADD": np.add,
    "DIV": np.divide,
    # The kernels compare: the second operand where one is not a number.
    "MAXIMUM": lambda a, b: np.where(a > b, a, b),
    "MINIMUM": lambda a, b: np.where(a < b, a, b),
    "MUL": np.multiply,
    "POW": _power,
    "SQUARED_DIFFERENCE": lambda a, b: (a - b) * (a - b),
    "SUB": np.subtract,
}
"""Functions of two tensors, by their TFLite names."""
