"""Serialises the tensors and operators of a model as a ``.tflite`` flatbuffer.

The format is the TensorFlow Lite schema, version 3 (``schema.fbs``), through the classes that
the ``tflite`` package generates from it.  :mod:`celosia.sim.models.tflite_builder` is the way in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import tflite  # type: ignore[import-untyped]

__all__ = ["OperatorRecord", "SubgraphRecord", "TensorRecord", "serialise"]

_TENSOR_TYPES = {
    np.dtype(np.bool_): tflite.TensorType.BOOL,
    np.dtype(np.float16): tflite.TensorType.FLOAT16,
    np.dtype(np.float32): tflite.TensorType.FLOAT32,
    np.dtype(np.uint8): tflite.TensorType.UINT8,
    np.dtype(np.int8): tflite.TensorType.INT8,
    np.dtype(np.int16): tflite.TensorType.INT16,
    np.dtype(np.int32): tflite.TensorType.INT32,
    np.dtype(np.int64): tflite.TensorType.INT64,
    np.dtype(np.void): tflite.TensorType.RESOURCE,
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
    variable: bool = False


@dataclass(frozen=True)
class OperatorRecord:
    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[str, dict[str, Any]] | None


@dataclass(frozen=True)
class SubgraphRecord:
    """Tensors, operators in order of execution, and indices of inputs and outputs."""

    tensors: Sequence[TensorRecord]
    operators: Sequence[OperatorRecord]
    inputs: Sequence[int] = ()
    outputs: Sequence[int] = ()


def serialise(subgraphs: Sequence[SubgraphRecord], *, old_codes: bool = True) -> bytes:
    """Return the flatbuffer, file identifier ``TFL3``, of a model.

    Parameters
    ----------
    subgraphs
        The first one is the model's.
    old_codes
        Whether operator codes have the schema's old field, a byte, beside the new one.
    """
    fb = flatbuffers.Builder(1 << 16)
    codes = sorted({op.code for subgraph in subgraphs for op in subgraph.operators})
    # Buffer 0 is the schema's empty one, shared by every tensor without constant data.
    constants = [t.data for s in subgraphs for t in s.tensors if t.data is not None]
    buffers = [_write_buffer(fb, data) for data in [b"", *constants]]
    numbers = iter(range(1, len(buffers)))
    written = [
        _write_subgraph(fb, subgraph, codes, numbers, "main" if index == 0 else f"once_{index}")
        for index, subgraph in enumerate(subgraphs)
    ]
    model = _write_table(
        fb,
        "Model",
        {
            "Version": 3,
            "OperatorCodes": _offsets(fb, [_write_code(fb, code, old_codes) for code in codes]),
            "Subgraphs": _offsets(fb, written),
            "Description": fb.CreateString("made by celosia.sim.models.tflite_builder"),
            "Buffers": _offsets(fb, buffers),
        },
    )
    fb.Finish(model, file_identifier=b"TFL3")
    return bytes(fb.Output())


def _write_subgraph(
    fb: Any, subgraph: SubgraphRecord, codes: list[str], buffers: Iterator[int], name: str
) -> int:
    """Write one graph; `buffers` are the numbers of its constants and those behind."""
    tensors = [
        _write_tensor(fb, tensor, 0 if tensor.data is None else next(buffers))
        for tensor in subgraph.tensors
    ]
    operators = [_write_operator(fb, op, codes.index(op.code)) for op in subgraph.operators]
    return _write_table(
        fb,
        "SubGraph",
        {
            "Tensors": _offsets(fb, tensors),
            "Inputs": _ints(fb, subgraph.inputs),
            "Outputs": _ints(fb, subgraph.outputs),
            "Operators": _offsets(fb, operators),
            "Name": fb.CreateString(name),
        },
    )


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
    if tensor.variable:
        fields["IsVariable"] = True
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
        written = {k: _option(fb, value) for k, value in values.items()}
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, table)
        fields["BuiltinOptions"] = _write_table(fb, table, written)
    return _write_table(fb, "Operator", fields)


def _option(fb: Any, value: Any) -> Any:
    """Write what of an option is not in its table: lists and text."""
    if isinstance(value, list):
        return _ints(fb, value)
    return fb.CreateString(value) if isinstance(value, str) else value


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
