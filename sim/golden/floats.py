"""Operators on float32 tensors, and conversions from and to other types.

Written from the definitions of TFLite's kernels. Functions of the C library are computed in double
precision and rounded once: where a C library is off in the last bit, so is this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BINARY", "UNARY", "cast", "clamp", "gelu", "leaky_relu", "to_integers"]

Array = npt.NDArray[Any]
Float = np.float32


def to_integers(x: Array, *, scale: float, zero_point: int, dtype: npt.DTypeLike) -> Array:
    """QUANTIZE a float32 tensor: x / scale to the nearest integer, halves away from zero.

    The quotient becomes an int32 as x86-64 converts floats (``cvttss2si``): infinity, NaN and what
    is too large become -2**31; adding the zero point wraps.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        quotient = (x.astype(Float) / Float(scale)).astype(np.float64)
        nearest = np.sign(quotient) * np.floor(np.abs(quotient) + 0.5)
    fits = np.isfinite(nearest) & (nearest >= -(2.0**31)) & (nearest < 2.0**31)
    wide = np.full(x.shape, -(2**31), np.int64)
    wide[fits] = nearest[fits].astype(np.int64)
    moved = (wide + zero_point).astype(np.int32).astype(np.int64)
    limits = np.iinfo(np.dtype(dtype))
    result: Array = np.clip(moved, limits.min, limits.max).astype(dtype)
    return result


def cast(x: Array, *, dtype: npt.DTypeLike) -> Array:
    """CAST: floats to integers towards 0 and saturating, NaN above; integers keep the low bits."""
    target = np.dtype(dtype)
    if target.kind in "iu" and x.dtype.kind == "f":
        limits = np.iinfo(target)
        least, most = int(limits.min), int(limits.max)

        def one(value: float) -> int:
            if not math.isfinite(value):
                return least if value < 0 else most
            return min(max(math.trunc(value), least), most)

        return np.array([one(float(v)) for v in x.flat], target).reshape(x.shape)
    return x.astype(target)


def clamp(x: Array, activation: str) -> Array:
    """Apply a fused activation to a float32 tensor: none is one from -FLT_MAX to FLT_MAX."""
    most = float(np.finfo(Float).max)
    low, high = {
        "NONE": (-most, most),
        "RELU": (0.0, most),
        "RELU_N1_TO_1": (-1.0, 1.0),
        "RELU6": (0.0, 6.0),
    }[activation]
    x = np.where(x < Float(low), Float(low), x)
    return np.where(x > Float(high), Float(high), x)


def _rounded(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: function(x.astype(np.float64)).astype(Float)


def _logistic(x: Array) -> Array:
    exponential = np.exp(x.astype(np.float64)).astype(Float)
    inverse = np.exp(-x.astype(np.float64)).astype(Float)
    value = Float(1) / (Float(1) + inverse)
    value = np.where(x < Float(-9), exponential, value)
    return np.where(x > Float(16.619047164916992188), Float(1), value)


def _hard_swish(x: Array) -> Array:
    return x * clamp(x + Float(3), "RELU6") / Float(6)


def _elu(x: Array) -> Array:
    return np.where(x < 0, np.expm1(x.astype(np.float64)).astype(Float), x)


def gelu(x: Array, *, approximate: bool) -> Array:
    """GELU, by the error function or by the hyperbolic tangent."""

    def one(v: float) -> float:
        if approximate:
            return v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
        return v / 2 * math.erfc(-v / math.sqrt(2))

    return np.array([one(float(v)) for v in x.flat], Float).reshape(x.shape)


def leaky_relu(x: Array, *, alpha: float) -> Array:
    """LEAKY_RELU."""
    return np.where(x > 0, x, x * Float(alpha))


UNARY: dict[str, Callable[[Array], Array]] = {
    "ABS": np.abs,
    "CEIL": np.ceil,
    "COS": _rounded(np.cos),
    "ELU": _elu,
    "EXP": _rounded(np.exp),
    "FLOOR": np.floor,
    "HARD_SWISH": _hard_swish,
    "LOG": _rounded(np.log),
    "LOGISTIC": _logistic,
    "NEG": lambda x: -x,
    "RELU": lambda x: np.where(x < 0, Float(0), x),
    "RELU6": lambda x: clamp(x, "RELU6"),
    "RELU_0_TO_1": lambda x: np.where(x < 0, Float(0), np.where(x > 1, Float(1), x)),
    "RELU_N1_TO_1": lambda x: clamp(x, "RELU_N1_TO_1"),
    "ROUND": lambda x: np.where(x == 0, x, np.round(x) + Float(0)),
    "RSQRT": lambda x: Float(1) / np.sqrt(x),
    "SIGN": np.sign,
    "SIN": _rounded(np.sin),
    "SQRT": np.sqrt,
    "SQUARE": np.square,
    "TANH": _rounded(np.tanh),
}


def _power(a: Array, b: Array) -> Array:
    return np.power(a.astype(np.float64), b.astype(np.float64)).astype(Float)


def _squared_difference(a: Array, b: Array) -> Array:
    difference: Array = a - b
    return difference * difference


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "ADD": lambda a, b: a + b,
    "DIV": lambda a, b: a / b,
    "MAXIMUM": lambda a, b: np.where(a > b, a, b),
    "MINIMUM": lambda a, b: np.where(a < b, a, b),
    "MUL": lambda a, b: a * b,
    "POW": _power,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SUB": lambda a, b: a - b,
}
