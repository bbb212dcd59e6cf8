"""Cuts operators out of a ``.tflite`` file: a small file with the same operators and tensors.

Everything that the operators say is copied as it is: options, versions, custom options,
quantisation, constants. Only numbers (of tensors, buffers, operator codes) are others, and what
nobody needs is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tflite  # type: ignore[import-untyped]
from celosia.sw.compiler.frontends.tflite.copying import TableCopier
from celosia.sw.compiler.frontends.tflite.reader import FlatModel, guard

__all__ = ["cut_operators"]

WITH_SUBGRAPHS = frozenset({"CALL", "CALL_ONCE", "IF", "WHILE", "STABLEHLO_COMPOSITE"})
"""Operators whose options name other subgraphs by number."""
EXTRA_BYTES = 1 << 20
"""What a cut may be larger than its file: names and tables are written anew."""


def cut_operators(
    flat: FlatModel,
    operators: Sequence[int],
    inputs: Sequence[int],
    outputs: Sequence[int],
    shapes: Mapping[int, tuple[int, ...]],
) -> bytes:
    """Return a model of some operators of the first subgraph.

    Parameters
    ----------
    flat : FlatModel
        The file.
    operators : sequence of int
        Their numbers, in the order in which they run.
    inputs, outputs : sequence of int
        Numbers of the tensors that the new model takes and gives, in its order.
    shapes : mapping of int to tuple of int
        Tensors that are written as constants: int32 vectors, shapes for RESHAPE that the file
        computes.

    Returns
    -------
    bytes
        A ``.tflite`` file. Equal arguments give equal bytes.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    with guard(flat.file, "what the host is to run"):
        return _Cutter(flat, shapes).cut(operators, inputs, outputs)


class _Cutter:
    def __init__(self, flat: FlatModel, shapes: Mapping[int, tuple[int, ...]]) -> None:
        self._flat = flat
        self._shapes = shapes
        self._copier = TableCopier(flat, 2 * len(flat.data) + EXTRA_BYTES)
        self._buffers = [self._copier.write("Buffer", {})]
        self._buffer_of: dict[int, int] = {}
        self._codes: dict[int, int] = {}

    def cut(self, operators: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        copier, flat = self._copier, self._flat
        main = flat.model.Subgraphs(0)
        tables = [main.Operators(index) for index in operators]
        tensors = self._tensors(tables, inputs, outputs)
        subgraphs = [self._subgraph(main, tables, tensors, inputs, outputs, self._shapes)]
        names = [flat.opcode(int(table.OpcodeIndex())) for table in tables]
        if WITH_SUBGRAPHS.intersection(names):
            # All of them: their numbers stay what the options say.
            for index in range(1, flat.length(flat.model, "Subgraphs")):
                other = flat.model.Subgraphs(index)
                subgraphs.append(
                    self._subgraph(
                        other,
                        [other.Operators(i) for i in range(flat.length(other, "Operators"))],
                        {i: i for i in range(flat.length(other, "Tensors"))},
                        flat.ints(other, "Inputs"),
                        flat.ints(other, "Outputs"),
                        {},
                    )
                )
        codes = [copier.copy(flat.model.OperatorCodes(index)) for index in self._codes]
        model = copier.write(
            "Model",
            {
                "Version": flat.model.Version(),
                "OperatorCodes": copier.offsets(codes),
                "Subgraphs": copier.offsets(subgraphs),
                "Buffers": copier.offsets(self._buffers),
            },
        )
        copier.fb.Finish(model, file_identifier=b"TFL3")
        return bytes(copier.fb.Output())

    def _tensors(
        self, tables: Sequence[Any], inputs: Iterable[int], outputs: Iterable[int]
    ) -> dict[int, int]:
        """Number the tensors that operators and the interface name, in the file's order."""
        used = {*inputs, *outputs}
        for table in tables:
            for field in ("Inputs", "Outputs", "Intermediates"):
                used.update(self._flat.ints(table, field))
        return {index: number for number, index in enumerate(sorted(used - {-1}))}

    def _subgraph(
        self,
        subgraph: Any,
        tables: Sequence[Any],
        tensors: Mapping[int, int],
        inputs: Iterable[int],
        outputs: Iterable[int],
        shapes: Mapping[int, tuple[int, ...]],
    ) -> int:
        copier = self._copier
        count = self._flat.length(subgraph, "Tensors")
        wrong = next((index for index in tensors if not 0 <= index < count), None)
        if wrong is not None:
            raise ValueError(f"an operator names tensor {wrong}; there are {count}")
        written = [self._tensor(subgraph.Tensors(index), shapes.get(index)) for index in tensors]
        operators = [self._operator(table, tensors) for table in tables]
        return copier.write(
            "SubGraph",
            {
                "Tensors": copier.offsets(written),
                "Inputs": copier.ints([tensors[index] for index in inputs]),
                "Outputs": copier.ints([tensors[index] for index in outputs]),
                "Operators": copier.offsets(operators),
            },
        )

    def _tensor(self, table: Any, shape: tuple[int, ...] | None) -> int:
        copier = self._copier
        if shape is None:
            return copier.copy(table, {"Buffer": self._buffer(int(table.Buffer()))})
        data = copier.data(np.asarray(shape, "<i4").tobytes())
        self._buffers.append(copier.write("Buffer", {"Data": data}))
        changes = {
            "Buffer": len(self._buffers) - 1,
            "Shape": copier.ints([len(shape)]),
            "Type": tflite.TensorType.INT32,
            "ShapeSignature": None,
        }
        return copier.copy(table, changes)

    def _buffer(self, index: int) -> int:
        if index not in self._buffer_of:
            content = self._flat.buffer(index)
            if content is None:
                self._buffer_of[index] = 0
            else:
                data = self._copier.data(content)
                self._buffer_of[index] = len(self._buffers)
                self._buffers.append(self._copier.write("Buffer", {"Data": data}))
        return self._buffer_of[index]

    def _operator(self, table: Any, tensors: Mapping[int, int]) -> int:
        copier, flat = self._copier, self._flat
        changes: dict[str, Any] = {
            "OpcodeIndex": self._codes.setdefault(int(table.OpcodeIndex()), len(self._codes)),
            "DebugMetadataIndex": None,
            "LargeCustomOptionsOffset": None,
            "LargeCustomOptionsSize": None,
        }
        for field in ("Inputs", "Outputs", "Intermediates"):
            numbers = flat.ints(table, field)
            if numbers:
                changes[field] = copier.ints([-1 if n == -1 else tensors[n] for n in numbers])
        start, size = int(table.LargeCustomOptionsOffset()), int(table.LargeCustomOptionsSize())
        if start > 1:  # custom options of models above 2 GB lie behind the flatbuffer
            if start + size > len(flat.data):
                raise ValueError("custom options run past the end of the file")
            changes["CustomOptions"] = copier.data(flat.data[start : start + size])
        return copier.copy(table, changes)
