"""Reads tensors and operators from a ``.tflite`` file for :mod:`celosia.sim.golden_model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite  # type: ignore[import-untyped]

__all__ = [
    "GoldenOperator",
    "TensorInfo",
    "UnsupportedModelError",
    "read_operator",
    "read_tensor",
]

Array = npt.NDArray[Any]

_DTYPES: dict[int, type[np.generic]] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.UINT8: np.uint8,
    tflite.TensorType.INT64: np.int64,
    tflite.TensorType.BOOL: np.bool_,
    tflite.TensorType.INT16: np.int16,
    tflite.TensorType.INT8: np.int8,
}
_OPERATOR_NAMES = {
    number: name for name, number in vars(tflite.BuiltinOperator).items() if name.isupper()
}
_OPTIONS = {
    "CONV_2D": tflite.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
    "FULLY_CONNECTED": tflite.FullyConnectedOptions,
    "ADD": tflite.AddOptions,
    "SUB": tflite.SubOptions,
    "MUL": tflite.MulOptions,
    "AVERAGE_POOL_2D": tflite.Pool2DOptions,
    "MAX_POOL_2D": tflite.Pool2DOptions,
    "SOFTMAX": tflite.SoftmaxOptions,
    "LEAKY_RELU": tflite.LeakyReluOptions,
    "MEAN": tflite.ReducerOptions,
    "RESHAPE": tflite.ReshapeOptions,
}


class UnsupportedModelError(ValueError):
    """The model has something the golden model does not compute; the message names it."""


@dataclass(frozen=True)
class TensorInfo:
    """What the file says about one tensor.

    Attributes
    ----------
    index, name, shape, dtype
        As in the file; names may repeat, indices do not.
    scales, zero_points
        Quantisation, one entry (per tensor) or one for each channel; empty for none.
    data
        The value of a constant tensor, None for one that is computed.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    data: Array | None

    @property
    def scale(self) -> float:
        """The scale of a per-tensor quantised tensor (0.0 when it has none)."""
        return float(self.scales[0]) if self.scales.size else 0.0

    @property
    def zero_point(self) -> int:
        """The zero point of a per-tensor quantised tensor (0 when it has none)."""
        return int(self.zero_points[0]) if self.zero_points.size else 0


@dataclass(frozen=True)
class GoldenOperator:
    """One operator: its name in the schema and the indices of its tensors (-1 for none)."""

    position: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


def read_tensor(model: Any, tensor: Any, index: int) -> TensorInfo:
    """Read one entry of the graph's tensor table, and its buffer if it is constant."""
    dtype = np.dtype(_dtype_of(tensor.Type(), index))
    shape = tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))
    buffer = model.Buffers(tensor.Buffer())
    data = None
    if buffer.DataLength():
        data = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype).reshape(shape)
    quantization = tensor.Quantization()
    scales, zero_points = np.zeros(0, np.float32), np.zeros(0, np.int64)
    if quantization is not None and quantization.ScaleLength():
        scales = np.array(quantization.ScaleAsNumpy(), np.float32)
        zero_points = np.array(quantization.ZeroPointAsNumpy(), np.int64).reshape(-1)
    name = (tensor.Name() or b"").decode()
    return TensorInfo(index, name, shape, dtype, scales, zero_points, data)


def _dtype_of(tensor_type: int, index: int) -> type[np.generic]:
    if tensor_type not in _DTYPES:
        raise UnsupportedModelError(f"tensor {index} has unsupported type number {tensor_type}")
    return _DTYPES[tensor_type]


def read_operator(model: Any, operator: Any, position: int) -> GoldenOperator:
    """Read one operator; its name is the schema's, or a description when it has none."""
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Codes above 127 do not fit the old byte field; the larger of the two is the real one.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _OPERATOR_NAMES.get(number, f"builtin operator {number}")
    if name == "CUSTOM":
        name = f"CUSTOM {(code.CustomCode() or b'').decode()!r}"
    options = None
    table = operator.BuiltinOptions()
    if table is not None and name in _OPTIONS:
        options = _OPTIONS[name]()
        options.Init(table.Bytes, table.Pos)
    return GoldenOperator(
        position=position,
        name=name,
        inputs=tuple(int(operator.Inputs(i)) for i in range(operator.InputsLength())),
        outputs=tuple(int(operator.Outputs(i)) for i in range(operator.OutputsLength())),
        options=options,
    )
