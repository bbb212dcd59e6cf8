"""Reads the tensors of a ``.tflite`` file: shapes, element types, quantisation and constants."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import UnsupportedError
from celosia.sw.compiler.frontends.tflite.reader import FlatModel
from celosia.sw.compiler.frontends.tflite.schema import tensor_type
from celosia.sw.compiler.ir import DType, Tensor

__all__ = ["TensorReader"]

MAX_ELEMENTS = 1 << 28
"""More elements than any tensor of a microcontroller network; a larger shape is damage."""
MAX_RANK = 8


class TensorReader:
    """Makes a `Tensor` of a table of the file, or refuses it.

    Parameters
    ----------
    flat : FlatModel
        The file.
    anything : bool
        Read also what the NPU does not run, and remember it.

    Attributes
    ----------
    host_only : dict of str to str
        With `anything`: tensors that are for the host alone, and why.
    """

    def __init__(self, flat: FlatModel, *, anything: bool) -> None:
        self._flat = flat
        self._file = flat.file
        self._anything = anything
        self.host_only: dict[str, str] = {}

    def tensor(self, table: Any, index: int, taken: dict[str, Tensor]) -> Tensor:
        """Return a tensor of a subgraph.

        Parameters
        ----------
        table
            Of the file.
        index : int
            Its number in the subgraph.
        taken : dict
            The tensors before it, whose names it may not have.

        Raises
        ------
        ModelError, ValueError
            If it is damaged.
        UnsupportedError
            If it is none for the NPU, and only those are read.
        """
        flat = self._flat
        name = self._unique(flat.name(table) or f"tensor_{index}", index, taken)
        shape = flat.ints(table, "Shape")
        # A free batch is usual: converters write -1 into the signature and 1 into the shape
        # beside it, or -1 into both.
        if shape[:1] == (-1,):
            shape = (1, *shape[1:])
        self._check_shape(shape, index, name)
        if self._anything:
            shape = tuple(max(size, 1) for size in shape)
        code = int(table.Type())
        dtype = tensor_type(code)
        if dtype is None:
            raise ValueError(f"unknown element type {code}")
        if table.Sparsity() is not None:
            self._for_host(
                UnsupportedError(
                    f"cannot compile model {self._file}",
                    f"tensor {index} {name!r} is stored sparse",
                    "convert without the EXPERIMENTAL_SPARSITY optimisation",
                    file=self._file,
                    tensor=name,
                )
            )
        scales, zero_points, axis = self._quantization(table, shape, dtype)
        per_channel = len(scales) > 1
        return Tensor(
            name=name,
            shape=shape,
            dtype=dtype,
            index=index,
            scale=float(scales[0]) if len(scales) == 1 else None,
            zero_point=next((z for z in zero_points if z), 0),
            channel_scales=scales if per_channel else None,
            channel_axis=axis if per_channel else None,
            data=self._constant(int(table.Buffer()), shape, dtype, name),
        )

    def _check_shape(self, shape: tuple[int, ...], index: int, name: str) -> None:
        # What is free in the signature only has a size in the shape: TFLite takes that.
        if any(d == -1 for d in shape) or (self._anything and 0 in shape):
            self._for_host(
                UnsupportedError(
                    f"cannot compile model {self._file}",
                    f"tensor {index} {name!r} has a dynamic shape {list(shape)}",
                    "convert with a fixed input shape, for example tf.TensorSpec([1, 96, 96, 3])",
                    file=self._file,
                    tensor=name,
                )
            )
            shape = tuple(1 if d in (-1, 0) else d for d in shape)
        if len(shape) > MAX_RANK or any(d < 1 for d in shape) or prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"impossible shape {list(shape)[:12]}")

    def _quantization(
        self, table: Any, shape: tuple[int, ...], dtype: DType
    ) -> tuple[npt.NDArray[np.float32], tuple[int, ...], int]:
        quantization = table.Quantization()
        if quantization is None:
            return np.zeros(0, np.float32), (), 0
        scales = self._flat.floats(quantization, "Scale")
        zero_points = self._flat.ints(quantization, "ZeroPoint")
        # A vector has one axis, whatever the file says: some converters copy the axis of the
        # weights to the bias.
        axis = int(quantization.QuantizedDimension()) if len(shape) != 1 else 0
        # Nothing is computed with the scales of a bias, which is what int32 tensors are.
        bad = not np.all(np.isfinite(scales)) or bool(np.any(scales < 0))
        if bad and dtype is not DType.INT32:
            raise ValueError("a scale is negative or not finite")
        if len(scales) == 0:
            zero_points = ()
        elif len(scales) > 1:
            if not 0 <= axis < len(shape) or shape[axis] != len(scales):
                raise ValueError(f"{len(scales)} scales along axis {axis} of {list(shape)}")
        elif len(zero_points) > 1:
            raise ValueError(f"{len(zero_points)} zero points for {len(scales)} scales")
        if any(abs(z) > 1 << 31 for z in zero_points):
            raise ValueError("a zero point does not fit in 32 bits")
        if len(scales) == 1 and scales[0] == 0:
            # Some converters write 0 for tensors without quantisation, such as shapes.
            scales = scales[:0]
        return scales, zero_points, axis

    def _constant(
        self, buffer: int, shape: tuple[int, ...], dtype: DType, name: str
    ) -> npt.NDArray[Any] | None:
        # Buffer 0 is empty by convention, and activations have empty buffers of their own.
        content = self._flat.buffer(buffer)
        if content is None:
            return None
        numpy_type = dtype.numpy
        if numpy_type is None:
            self._for_host(
                UnsupportedError(
                    f"cannot compile model {self._file}",
                    f"it has a constant of type {dtype}, shape {list(shape)}",
                    "quantise weights to int8",
                    file=self._file,
                    tensor=name,
                )
            )
        if numpy_type is None or name in self.host_only:
            return np.frombuffer(content, np.uint8)  # nobody but the host reads it
        expected = prod(shape) * numpy_type.itemsize
        if len(content) != expected:
            raise ValueError(f"{len(content)} bytes of data for {list(shape)} {dtype}")
        array = np.frombuffer(content, numpy_type).reshape(shape)
        array.flags.writeable = False
        return array

    @staticmethod
    def _unique(name: str, index: int, taken: dict[str, Tensor]) -> str:
        if name not in taken:
            return name
        candidate = f"{name}#{index}"
        while candidate in taken:
            candidate += "'"
        return candidate

    def _for_host(self, error: UnsupportedError) -> None:
        """Refuse a tensor that the NPU cannot have to do with, or leave it to the host."""
        if not self._anything:
            raise error
        self.host_only.setdefault(error.tensor, error.cause)
