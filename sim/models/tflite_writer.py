"""Serialises the tensors and operators of one graph as a ``.tflite`` flatbuffer.

The format is the TensorFlow Lite schema, version 3 (``schema.fbs``), through the classes that
the ``tflite`` package generates from it.  :mod:`celosia.sim.models.tflite_builder` is the way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import tflite  # type: ignore[import-untyped]

__all__ = ["OperatorRecord", "TensorRecord", "serialise"]

_TENSOR_TYPES = {
    np.dtype(np.bool_): tflite.TensorType.BOOL,
    np.dtype(np.float16): tflite.TensorType.FLOAT16,
    np.dtype(np.float32): tflite.TensorType.FLOAT32,
    np.dtype(np.uint8): tflite.TensorType.UINT8,
    np.dtype(np.int8): tflite.TensorType.INT8,
    np.dtype(np.int16): tflite.TensorType.INT16,
    np.dtype(np.int32): tflite.TensorType.INT32,
    np.dtype(np.int64): tflite.TensorType.INT64,
}
# The operator version that introduced int8 (or, for fully connected, per-channel weights): the
# interpreter refuses a model whose operator has a version it does not know.
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "ADD": 2,
    "SUB": 2,
    "MUL": 2,
    "AVERAGE_POOL_2D": 2,
    "MAX_POOL_2D": 2,
    "SOFTMAX": 2,
    "LOGISTIC": 2,
    "TANH": 2,
    "RELU": 2,
    "RELU6": 2,
    "LEAKY_RELU": 2,
    "QUANTIZE": 2,
    "DEQUANTIZE": 2,
    "MEAN": 2,
    "PAD": 2,
    "BROADCAST_TO": 2,
}


@dataclass(frozen=True)
class TensorRecord:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    data: bytes | None


@dataclass(frozen=True)
class OperatorRecord:
    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[str, dict[str, Any]] | None


def serialise(
    tensors: Sequence[TensorRecord],
    operators: Sequence[OperatorRecord],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    old_codes: bool = True,
) -> bytes:
    """Return the flatbuffer, file identifier ``TFL3``, of a model with one subgraph.

    Parameters
    ----------
    tensors, operators
        The graph; operators in order of execution.
    inputs, outputs
        Indices of the model's inputs and outputs.
    old_codes
        Whether operator codes have the schema's old field, a byte, beside the new one.
    """
    fb = flatbuffers.Builder(1 << 16)
    codes = sorted({op.code for op in operators})
    # Buffer 0 is the schema's empty one, shared by every tensor without constant data.
    constants = [t.data for t in tensors if t.data is not None]
    buffers = [_write_buffer(fb, data) for data in [b"", *constants]]
    buffer_of: list[int] = []
    for tensor in tensors:
        buffer_of.append(0 if tensor.data is None else 1 + sum(b > 0 for b in buffer_of))
    tensor_offsets = [_write_tensor(fb, t, b) for t, b in zip(tensors, buffer_of, strict=True)]
    operator_offsets = [_write_operator(fb, op, codes.index(op.code)) for op in operators]
    subgraph = _write_table(
        fb,
        "SubGraph",
        {
            "Tensors": _offsets(fb, tensor_offsets),
            "Inputs": _ints(fb, inputs),
            "Outputs": _ints(fb, outputs),
            "Operators": _offsets(fb, operator_offsets),
            "Name": fb.CreateString("main"),
        },
    )
    model = _write_table(
        fb,
        "Model",
        {
            "Version": 3,
            "OperatorCodes": _offsets(fb, [_write_code(fb, code, old_codes) for code in codes]),
            "Subgraphs": _offsets(fb, [subgraph]),
            "Description": fb.CreateString("made by celosia.sim.models.tflite_builder"),
            "Buffers": _offsets(fb, buffers),
        },
    )
    fb.Finish(model, file_identifier=b"TFL3")
    return bytes(fb.Output())


def _write_table(fb: Any, table: str, fields: dict[str, Any]) -> int:
    """Write one schema table; vectors and strings among `fields` are offsets already written."""
    getattr(tflite, f"{table}Start")(fb)
    for name, value in fields.items():
        getattr(tflite, f"{table}Add{name}")(fb, value)
    return int(getattr(tflite, f"{table}End")(fb))


def _offsets(fb: Any, offsets: Sequence[int]) -> int:
    fb.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        fb.PrependUOffsetTRelative(offset)
    return int(fb.EndVector())


def _ints(fb: Any, values: Sequence[int]) -> int:
    return int(fb.CreateNumpyVector(np.asarray(values, np.int32)))


def _write_buffer(fb: Any, data: bytes) -> int:
    if not data:
        return _write_table(fb, "Buffer", {})
    # The schema forces 16-byte alignment on a buffer's data; CreateByteVector would give one.
    fb.StartVector(1, len(data), 16)
    fb.head = fb.head - len(data)
    fb.Bytes[fb.head : fb.head + len(data)] = data
    return _write_table(fb, "Buffer", {"Data": fb.EndVector()})


def _write_tensor(fb: Any, tensor: TensorRecord, buffer: int) -> int:
    fields: dict[str, Any] = {
        "Shape": _ints(fb, tensor.shape),
        "Type": _TENSOR_TYPES[tensor.dtype],
        "Buffer": buffer,
        "Name": fb.CreateString(tensor.name),
    }
    if tensor.scales:
        quantization = {
            "Scale": fb.CreateNumpyVector(np.asarray(tensor.scales, np.float32)),
            "ZeroPoint": fb.CreateNumpyVector(np.asarray(tensor.zero_points, np.int64)),
            "QuantizedDimension": tensor.axis,
        }
        fields["Quantization"] = _write_table(fb, "QuantizationParameters", quantization)
    return _write_table(fb, "Tensor", fields)


def _write_operator(fb: Any, op: OperatorRecord, code_index: int) -> int:
    fields: dict[str, Any] = {
        "OpcodeIndex": code_index,
        "Inputs": _ints(fb, op.inputs),
        "Outputs": _ints(fb, op.outputs),
    }
    if op.options is not None:
        table, values = op.options
        written = {k: _ints(fb, v) if isinstance(v, list) else v for k, v in values.items()}
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, table)
        fields["BuiltinOptions"] = _write_table(fb, table, written)
    return _write_table(fb, "Operator", fields)


def _write_code(fb: Any, code: str, old_codes: bool) -> int:
    fields: dict[str, Any] = {}
    custom = code.removeprefix("CUSTOM:")
    if custom != code:
        fields["CustomCode"] = fb.CreateString(custom)
        code = "CUSTOM"
    number = getattr(tflite.BuiltinOperator, code)
    if old_codes:
        fields["DeprecatedBuiltinCode"] = min(number, 127)  # 127: "look at the wide field"
    fields |= {"BuiltinCode": number, "Version": _VERSIONS.get(code, 1)}
    return _write_table(fb, "OperatorCode", fields)
