"""Checked access to the tables of a ``.tflite`` flatbuffer.

The generated readers of the `tflite` package are lazy and trust the file: lengths, offsets and
indices are whatever the bytes say. Here every length is held against the size of the file before
anything is allocated or iterated, and whatever a reader raises becomes a `ModelError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite  # type: ignore[import-untyped]
from celosia.errors import ModelError, printable
from celosia.sw.compiler.frontends.tflite import schema
from flatbuffers import number_types  # type: ignore[import-untyped]

__all__ = ["FlatModel", "damaged", "guard"]

IDENTIFIER = b"TFL3"
SUPPORTED_VERSION = 3
MAX_COPIES = 4
"""How many times its own size may be copied out of a file, apart from constants."""
FREE_COPIES = 1 << 16
"""Bytes that may be copied out of any file."""
MAX_CODE = 64
"""Bytes shown of the name of a custom operator."""
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
    _read: list[int] = field(default_factory=lambda: [0])

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

    def ints(self, table: Any, name: str) -> tuple[int, ...]:
        """Read a vector of integers; () when absent."""
        self.length(table, name, 1)
        vector = getattr(table, f"{name}AsNumpy")()
        # The generated readers return 0 for an absent vector.
        if isinstance(vector, int):
            return ()
        self._count(vector.nbytes)
        return tuple(int(v) for v in vector)

    def floats(self, table: Any, name: str) -> npt.NDArray[np.float32]:
        """Copy a vector of float32; empty when absent."""
        self.length(table, name, 4)
        vector = getattr(table, f"{name}AsNumpy")()
        if not isinstance(vector, int):
            self._count(vector.nbytes)
        return np.zeros(0, np.float32) if isinstance(vector, int) else vector.astype(np.float32)

    def length(self, table: Any, name: str, element_bytes: int = 4) -> int:
        """Length of a vector, refused when it cannot fit in the file."""
        count = int(getattr(table, f"{name}Length")())
        if count * element_bytes > len(self.data):
            raise ValueError(f"{name} has {count} entries in a file of {len(self.data)} bytes")
        return count

    def _count(self, read_bytes: int) -> None:
        """Add to what has been copied out of the file, refused when it is several times the file.

        Vectors of a file do not overlap, but for a few that a writer shares on purpose. A small
        file in which all tensors share one long vector would become a large graph.
        """
        self._read[0] += read_bytes
        if self._read[0] > MAX_COPIES * len(self.data) + FREE_COPIES:
            raise ValueError("its tables share vectors, which together are far larger than it")

    def name(self, tensor: Any) -> str:
        """Name of a tensor table; '' when absent."""
        if not tensor._tab.Offset(10):  # slot of Tensor.name
            return ""
        raw: bytes = tensor.Name()
        # Slicing hides a string that runs past the end of the file.
        if len(raw) != int(tensor._tab.VectorLen(tensor._tab.Offset(10))):
            raise ValueError("a name runs past the end of the file")
        self._count(len(raw))
        return _text(raw)

    def opcode(self, index: int) -> str:
        """Name of operator code `index`; custom operators as ``CUSTOM(name)``."""
        code = self.model.OperatorCodes(index)
        number = _builtin_code(code._tab)
        if number == schema.CUSTOM_OPERATOR:
            raw = code.CustomCode() or b""
            self._count(len(raw))
            return f"CUSTOM({_text(raw[:MAX_CODE])})"
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
            if required:
                raise ValueError(f"{table_name} expected, options of type {kind} found")
            # TFLite takes a table of another type for none, and none for zeros.
            return {field.name: schema.ABSENT[field.kind] for field in fields}
        reader = getattr(tflite, table_name)()
        reader.Init(table.Bytes, table.Pos)
        return {field.name: self._option(reader, field) for field in fields}

    def _option(self, reader: Any, field: schema.OptionField) -> Any:
        if field.kind == "ints":
            return self.ints(reader, field.getter)
        value = getattr(reader, field.getter)()
        if field.kind == "text":
            raw = bytes(value or b"")
            self._count(len(raw))
            return _text(raw)
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


def _text(raw: bytes) -> str:
    """Decode a name: bytes that are not UTF-8, and what a terminal would obey, become escapes."""
    return printable(raw.decode("utf-8", "backslashreplace"))


def _builtin_code(table: Any) -> int:
    """Return an operator's number: the greater of its two fields, as TFLite takes it.

    The old field is a byte; the newer one is not limited, and some writers leave the old one out.
    The generated `BuiltinCode` gives the old field where the newer one is below 127, which turns
    a file with only the newer field into one of ADD (number 0).
    """
    old, new = int(table.Offset(4)), int(table.Offset(10))
    old_code = int(table.Get(number_types.Int8Flags, old + table.Pos)) if old else 0
    new_code = int(table.Get(number_types.Int32Flags, new + table.Pos)) if new else 0
    return max(old_code, new_code)
