"""The four tests of MLPerf Tiny: what arrives for each, and what is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.driver.inputs import centre_pixels, quantize_array
from celosia.sw.program.tensors import TensorInfo

__all__ = ["TASKS", "Task"]

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Task:
    """A test.

    Attributes
    ----------
    name : str
        As the command line has it.
    profile : str
        As the benchmark's runner has it.
    file : str
        The reference model.
    item : dtype name
        What the host sends, little-endian.
    decode : callable
        Takes the elements that arrived, as an array of `item`, and the model's input; returns an
        int8 array of its shape.
    score : callable
        Takes the elements that arrived, the output's integers and its tensor; returns floats.
    """

    name: str
    profile: str
    file: str
    item: str
    decode: Callable[[Array, TensorInfo], Array]
    score: Callable[[Array, Array, TensorInfo], list[float]]

    def input_bytes(self, tensor: TensorInfo) -> int:
        """Return how many bytes the host has to send for an input."""
        return int(np.prod(tensor.shape)) * np.dtype(self.item).itemsize

    def input_array(self, content: bytes, tensor: TensorInfo) -> Array:
        """Return the model's input.

        Raises
        ------
        InputError
            If `content` has another size, or a value that cannot be quantised.
        """
        return self.decode(self._elements(content, tensor), tensor).reshape(tensor.shape)

    def results(self, content: bytes, source: TensorInfo, values: Array, out: TensorInfo) -> str:
        """Return the scores as the runner reads them."""
        scores = self.score(self._elements(content, source), values, out)
        return ",".join(f"{score:.6f}" for score in scores)

    def _elements(self, content: bytes, tensor: TensorInfo) -> Array:
        wanted = self.input_bytes(tensor)
        if len(content) != wanted:
            raise InputError(
                f"{self.profile} input",
                f"{len(content)} bytes have arrived, the model takes {wanted}",
                "load all of them with 'db load' and 'db'",
            )
        return np.frombuffer(content, self.item)


def _as_is(elements: Array, tensor: TensorInfo) -> Array:
    return elements


def _pixels(elements: Array, tensor: TensorInfo) -> Array:
    return centre_pixels(elements)


def _real(values: Array, tensor: TensorInfo) -> Array:
    return (values.astype(np.float64).ravel() - tensor.zero_point) * tensor.scale


def _scores(elements: Array, values: Array, out: TensorInfo) -> list[float]:
    return [float(value) for value in _real(values, out)]


def _reconstruction_error(elements: Array, values: Array, out: TensorInfo) -> list[float]:
    return [float(np.mean((elements.astype(np.float64) - _real(values, out)) ** 2))]


def _quantized(elements: Array, tensor: TensorInfo) -> Array:
    return quantize_array(tensor, elements)


TASKS = {
    task.name: task
    for task in (
        Task("kws", "kws01", "kws_int8.tflite", "<i1", _as_is, _scores),
        Task("ic", "ic01", "resnet8_int8.tflite", "<u1", _pixels, _scores),
        Task("vww", "vww01", "vww_96_int8.tflite", "<u1", _pixels, _scores),
        Task("ad", "ad01", "ad01_int8.tflite", "<f4", _quantized, _reconstruction_error),
    )
}
