"""Copies tables of a ``.tflite`` flatbuffer into another one, whatever they are.

The generated classes of the `tflite` package say which fields a table has: each has a function that
adds it, and a method that reads it. So options of operators that the compiler knows nothing of are
copied as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import tflite  # type: ignore[import-untyped]
from celosia.sw.compiler.frontends.tflite.reader import FlatModel
from flatbuffers.table import Table  # type: ignore[import-untyped]

__all__ = ["TableCopier"]

_UNIONS = {
    "BuiltinOptions": "BuiltinOptions",
    "BuiltinOptions2": "BuiltinOptions2",
    "Details": "QuantizationDetails",
    "ArraySegments": "SparseIndexVector",
    "ArrayIndices": "SparseIndexVector",
}
"""Fields whose type another field says (of the same name and ``Type``), and the enumeration."""
DATA_ALIGNMENT = 16
"""The schema's, of a buffer's contents."""
MAX_TABLES = 1 << 17
"""That are copied: a small file can list one table many times."""


class TableCopier:
    """Copies tables of one file.

    Parameters
    ----------
    source : FlatModel
        Whose tables.
    limit_bytes : int
        The most that is written.
    """

    def __init__(self, source: FlatModel, limit_bytes: int) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._tables = 0
        self.fb = flatbuffers.Builder(1 << 12)

    def copy(self, table: Any, changes: Mapping[str, Any] | None = None) -> int:
        """Copy a table with all that it refers to; return its offset.

        Parameters
        ----------
        table : object
            Generated reader.
        changes : mapping, optional
            Values of fields by their name in the generated functions (``Inputs``): numbers and
            offsets; None leaves the field out. Fields that are not named are copied.

        Raises
        ------
        ValueError
            If it contradicts the format, or is larger than the limit.
        """
        self._tables += 1
        if self._tables > MAX_TABLES:
            raise ValueError("it lists too many tables")
        kind = type(table).__name__
        changes = changes or {}
        values: dict[str, Any] = {}
        for name in _fields(kind, type(table)):
            value = changes[name] if name in changes else self._field(table, name)
            if value is not None:
                values[name] = value
        return self.write(kind, values)

    def write(self, kind: str, values: Mapping[str, Any]) -> int:
        """Write a table; vectors, strings and tables among `values` are offsets."""
        if self.fb.Offset() > self._limit_bytes:
            raise ValueError("its tables share vectors, which together are far larger than it")
        getattr(tflite, f"{kind}Start")(self.fb)
        for name, value in values.items():
            getattr(tflite, f"{kind}Add{name}")(self.fb, value)
        return int(getattr(tflite, f"{kind}End")(self.fb))

    def offsets(self, offsets: list[int]) -> int:
        """Write a vector of tables or strings."""
        self.fb.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.fb.PrependUOffsetTRelative(offset)
        return int(self.fb.EndVector())

    def ints(self, values: list[int]) -> int:
        """Write a vector of 32-bit integers."""
        return int(self.fb.CreateNumpyVector(np.asarray(values, np.int32)))

    def data(self, content: bytes | memoryview) -> int:
        """Write the vector of bytes of a buffer."""
        if self.fb.Offset() + len(content) > self._limit_bytes:
            raise ValueError("its buffers are larger than the file")
        self.fb.StartVector(1, len(content), DATA_ALIGNMENT)
        self.fb.head = self.fb.head - len(content)
        self.fb.Bytes[self.fb.head : self.fb.head + len(content)] = content
        return int(self.fb.EndVector())

    def _field(self, table: Any, name: str) -> Any:
        """Return a scalar, or the offset of what a field refers to; None if it is absent."""
        if hasattr(table, f"{name}Length"):
            return self._vector(table, name)
        value = getattr(table, name)()
        if isinstance(value, bytes):
            return self.fb.CreateString(value)
        if isinstance(value, Table):
            return self._union(table, name, value)
        return self.copy(value) if hasattr(value, "_tab") else value

    def _vector(self, table: Any, name: str) -> int | None:
        count = self._source.length(table, name, 1)
        if hasattr(table, f"{name}AsNumpy"):
            vector = getattr(table, f"{name}AsNumpy")()
            # The generated readers return 0 for an absent vector.
            if isinstance(vector, int):
                return None
            if self.fb.Offset() + vector.nbytes > self._limit_bytes:
                raise ValueError("its vectors are larger than the file")
            return int(self.fb.CreateNumpyVector(vector))
        if count == 0:
            return None
        entries = [getattr(table, name)(index) for index in range(min(count, MAX_TABLES + 1))]
        return self.offsets(
            [
                self.fb.CreateString(entry) if isinstance(entry, bytes) else self.copy(entry)
                for entry in entries
            ]
        )

    def _union(self, table: Any, name: str, value: Table) -> int:
        number = int(getattr(table, f"{name}Type")())
        members = vars(getattr(tflite, _UNIONS[name]))
        kind = next((key for key, entry in members.items() if entry == number), "")
        reader_class = getattr(tflite, kind, None)
        if reader_class is None:
            raise ValueError(f"its {name} are of the unknown type {number}")
        reader = reader_class()
        reader.Init(value.Bytes, value.Pos)
        return self.copy(reader)


def _fields(kind: str, reader: type) -> list[str]:
    """Return the fields of a table, in a fixed order."""
    prefix = f"{kind}Add"
    names = [name.removeprefix(prefix) for name in dir(tflite) if name.startswith(prefix)]
    return sorted(name for name in names if hasattr(reader, name))
