"""Checked access to the tables of a ``.tflite`` flatbuffer.

The generated readers of the `tflite` package are lazy and trust the file: lengths, offsets and
indices are whatever the bytes say. Here every length is held against the size of the file before
anything is allocated or iterated, and whatever a reader raises becomes a `ModelError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite  # type: ignore[import-untyped]
from celosia.sw.compiler import frontend_schema as schema
from celosia.sw.errors import ModelError

__all__ = ["FlatModel", "damaged", "guard"]

IDENTIFIER = b"TFL3"
SUPPORTED_VERSION = 3
_REMEDY = "copy or convert the file again; `flatc --json` or netron show whether others can read it"

# What struct, flatbuffers and numpy raise when an offset or a length is nonsense.
_READER_ERRORS = (
    struct.error,
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    AttributeError,
    UnicodeError,
    MemoryError,
)


def damaged(file: str, cause: str, **context: Any) -> ModelError:
    """Make the error for a file whose contents contradict the format."""
    return ModelError(f"cannot read model {file}", cause, _REMEDY, file=file, **context)


@contextmanager
def guard(file: str, part: str, **context: Any) -> Iterator[None]:
    """Turn any exception of the flatbuffer readers into a `ModelError` that names `part`."""
    try:
        yield
    except _READER_ERRORS as error:
        # Value errors say what is wrong; the others speak of struct formats.
        detail = str(error) if isinstance(error, ValueError) else "it points outside the file"
        raise damaged(file, f"{part} is damaged ({detail})", **context) from error


@dataclass(frozen=True)
class FlatModel:
    """A flatbuffer whose identifier, version and top-level vectors have been checked.

    Attributes
    ----------
    file : str
        Name for messages.
    data : bytes
        The whole file.
    model : object
        Generated reader of the root table.
    """

    file: str
    data: bytes
    model: Any

    @classmethod
    def open(cls, data: bytes, file: str) -> FlatModel:
        """Check the header of `data`.

        Raises
        ------
        ModelError
            If the bytes are not a version 3 TFLite model.
        """
        if not data:
            raise ModelError(f"cannot read model {file}", "the file is empty", _REMEDY, file=file)
        if len(data) < 8 or data[4:8] != IDENTIFIER:
            raise ModelError(
                f"cannot read model {file}",
                "it is not a TensorFlow Lite model (no 'TFL3' identifier at byte 4)",
                "give a .tflite file, as written by the TFLite converter",
                file=file,
            )
        with guard(file, "the header"):
            model = tflite.Model.GetRootAs(data, 0)
            version = model.Version()
        if version != SUPPORTED_VERSION:
            raise damaged(file, f"schema version {version}, expected {SUPPORTED_VERSION}")
        return cls(file, data, model)

    def ints(self, table: Any, field: str) -> tuple[int, ...]:
        """Read a vector of integers; () when absent."""
        self.length(table, field, 1)
        vector = getattr(table, f"{field}AsNumpy")()
        # The generated readers return 0 for an absent vector.
        return () if isinstance(vector, int) else tuple(int(v) for v in vector)

    def floats(self, table: Any, field: str) -> npt.NDArray[np.float32]:
        """Copy a vector of float32; empty when absent."""
        self.length(table, field, 4)
        vector = getattr(table, f"{field}AsNumpy")()
        return np.zeros(0, np.float32) if isinstance(vector, int) else vector.astype(np.float32)

    def length(self, table: Any, field: str, element_bytes: int = 4) -> int:
        """Length of a vector, refused when it cannot fit in the file."""
        count = int(getattr(table, f"{field}Length")())
        if count * element_bytes > len(self.data):
            raise ValueError(f"{field} has {count} entries in a file of {len(self.data)} bytes")
        return count

    def name(self, tensor: Any) -> str:
        """Name of a tensor table; '' when absent."""
        if not tensor._tab.Offset(10):  # slot of Tensor.name
            return ""
        raw: bytes = tensor.Name()
        # Slicing hides a string that runs past the end of the file.
        if len(raw) != int(tensor._tab.VectorLen(tensor._tab.Offset(10))):
            raise ValueError("a name runs past the end of the file")
        return raw.decode("utf-8", "replace")

    def opcode(self, index: int) -> str:
        """Name of operator code `index`; custom operators as ``CUSTOM(name)``."""
        code = self.model.OperatorCodes(index)
        # Codes above 126 do not fit the old byte field, which then holds a place-holder.
        number = max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))
        if number == schema.CUSTOM_OPERATOR:
            raw = code.CustomCode() or b""
            return f"CUSTOM({raw.decode('utf-8', 'replace')[:64]})"
        name = schema.operator_name(number)
        return name if name is not None else f"BUILTIN_{number}"

    def options(self, name: str, operator: Any) -> dict[str, Any]:
        """Options of an operator by field name; {} for operators whose options are not used."""
        if name not in schema.OPTIONS:
            return {}
        table_name, required, fields = schema.OPTIONS[name]
        kind = int(operator.BuiltinOptionsType())
        table = operator.BuiltinOptions()
        if kind != getattr(tflite.BuiltinOptions, table_name) or table is None:
            if required or kind != 0:
                raise ValueError(f"{table_name} expected, options of type {kind} found")
            return {}
        reader = getattr(tflite, table_name)()
        reader.Init(table.Bytes, table.Pos)
        return {field.name: self._option(reader, field) for field in fields}

    def _option(self, reader: Any, field: schema.OptionField) -> Any:
        if field.kind == "ints":
            return self.ints(reader, field.getter)
        value = getattr(reader, field.getter)()
        if field.kind == "float":
            return float(value)
        if field.kind == "bool":
            return bool(value)
        if field.kind == "int":
            return int(value)
        names = {"padding": schema.padding_name, "activation": schema.activation_name}
        name = names[field.kind](int(value))
        if name is None:
            raise ValueError(f"{field.name} has the unknown value {value}")
        return name

    def buffer(self, index: int) -> memoryview | None:
        """Contents of a buffer without copying; None for an empty one."""
        if not 0 <= index < self.length(self.model, "Buffers"):
            raise ValueError(f"buffer {index} does not exist")
        table = self.model.Buffers(index)
        start, size = int(table.Offset()), int(table.Size())
        if start > 1:  # data of models above 2 GB lies behind the flatbuffer
            if start + size > len(self.data):
                raise ValueError(f"buffer {index} runs past the end of the file")
            return memoryview(self.data)[start : start + size]
        if self.length(table, "Data", 1) == 0:
            return None
        return memoryview(table.DataAsNumpy()).cast("B")
