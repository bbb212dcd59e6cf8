"""From what the user hands over to the arrays that a program takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.program.tensors import TensorInfo

__all__ = ["Inputs", "centre_pixels", "prepare_inputs", "quantize_array"]

Array: TypeAlias = npt.NDArray[Any]
Inputs: TypeAlias = Mapping[str, Array] | Sequence[Array] | Array
"""Arrays by tensor name, or in the model's order; one array alone for a model with one input."""
PIXEL_OFFSET = 128


def prepare_inputs(
    tensors: Sequence[TensorInfo],
    inputs: Inputs,
    *,
    quantize: bool = False,
    what: str = "input",
) -> dict[str, Array]:
    """Check a program's inputs and return them by name.

    Parameters
    ----------
    tensors : sequence of TensorInfo
        The program's inputs.
    inputs : Inputs
        What the user gave.
    quantize : bool
        Convert floating-point arrays with each tensor's scale and zero point.
    what : str
        What errors call a tensor.

    Raises
    ------
    InputError
        For an input that is missing, unknown, or of the wrong shape or dtype.
    """
    by_name = _by_name(tensors, inputs, what)
    return {
        tensor.name: _checked(tensor, by_name[tensor.name], quantize, what) for tensor in tensors
    }


def quantize_array(tensor: TensorInfo, values: Array) -> Array:
    """Return real values as the tensor's integers.

    ``clamp(round(value / scale) + zero_point)`` in float32, halves away from zero (TFLite
    ``AffineQuantize``).

    Parameters
    ----------
    tensor : TensorInfo
        The tensor, quantised with one scale.
    values : ndarray of float
        Any shape.

    Raises
    ------
    InputError
        If the tensor has no scale, or a value is not a number.
    """
    what = f"input {tensor.name!r}"
    if tensor.scale <= 0:
        raise InputError(what, "the tensor has no scale to quantise with", "give integers")
    ratio = np.asarray(values, np.float32) / np.float32(tensor.scale)
    if np.isnan(ratio).any():
        raise InputError(what, "a value is not a number (NaN)", "look at the preprocessing")
    limits = np.iinfo(tensor.dtype)
    # In double precision: half a step more is not always a float32.
    wide = ratio.astype(np.float64)
    whole = np.trunc(wide + np.copysign(0.5, wide)) + tensor.zero_point
    quantized: Array = np.clip(whole, limits.min, limits.max).astype(tensor.item)
    return quantized


def centre_pixels(values: Array) -> npt.NDArray[np.int8]:
    """Return uint8 pixels less 128, as int8 models that were trained on pixels take them."""
    return (values.astype(np.int16) - PIXEL_OFFSET).astype(np.int8)


def _by_name(tensors: Sequence[TensorInfo], inputs: Inputs, kind: str) -> dict[str, Array]:
    names = [tensor.name for tensor in tensors]
    listed = ", ".join(map(repr, names))
    if isinstance(inputs, Mapping):
        for name in inputs:
            if name not in names:
                raise InputError(
                    f"{kind} {name!r}", f"the model has no such {kind}", f"use {listed}"
                )
        for name in names:
            if name not in inputs:
                raise InputError(f"{kind} {name!r}", "missing", "add it to the mapping")
        return dict(inputs)
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) != len(names):
        raise InputError(
            "inputs", f"got {len(arrays)}, the model has {len(names)}", f"give {listed}"
        )
    return dict(zip(names, arrays, strict=True))


def _checked(tensor: TensorInfo, values: Array, quantize: bool, kind: str) -> Array:
    what = f"{kind} {tensor.name!r}"
    values = np.asarray(values)
    if values.shape != tensor.shape:
        raise InputError(
            what,
            f"its shape is {list(values.shape)}, the model takes {list(tensor.shape)}",
            f"reshape it to {list(tensor.shape)}"
            if values.size == int(np.prod(tensor.shape))
            else "look at the preprocessing",
        )
    if values.dtype == tensor.item:
        return values
    if np.issubdtype(values.dtype, np.floating):
        if np.issubdtype(tensor.item, np.floating):
            return values.astype(tensor.item)
        if quantize:
            return quantize_array(tensor, values)
    if values.dtype != tensor.item:
        real = np.issubdtype(values.dtype, np.floating)
        raise InputError(
            what,
            f"its dtype is {values.dtype}, the model takes {tensor.dtype}",
            f"pass quantize=True (scale {tensor.scale:g}, zero point {tensor.zero_point})"
            if real
            else f"convert it with .astype(numpy.{tensor.dtype})",
        )
    return values
