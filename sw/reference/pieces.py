"""What the reference interpreter runs of a model: the file, or pieces of it.

Where an operator has no reference kernel, or a wrong one, it is run by the default kernel, in a
piece of its own: the default kernels of other operators round differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from celosia.sw.compiler.frontends.tflite.cut import cut_operators
from celosia.sw.compiler.frontends.tflite.reader import FlatModel
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.partition.kernels import kernels_of
from celosia.sw.compiler.partition.nodes import VARIABLES, SourceModel
from celosia.sw.program.segments import REFERENCE_KERNELS
from celosia.sw.program.tensors import DTYPES
from celosia.sw.runtime.interpreter import InterpreterProcess, Opened

__all__ = ["Pieces"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Piece:
    """A model for the interpreter, and the names of the tensors that it takes and gives."""

    opened: Opened
    inputs: Sequence[str]
    outputs: Sequence[str]


class Pieces:
    """A model as the reference interpreter runs it.

    Parameters
    ----------
    graph : Graph
        As `celosia.sw.compiler.frontends.tflite.convert.load` reads anything, variables not
        followed.
    flat : FlatModel
        The same file.
    wanted : mapping of str to int
        Tensors that operators of the model write: what they are called here, and their number in
        the file.

    Attributes
    ----------
    others : tuple of str
        Operators that the default kernels compute.
    """

    elsewhere = 0
    """No element is another one on another processor."""

    def __init__(self, graph: Graph, flat: FlatModel, wanted: Mapping[str, int]) -> None:
        model = SourceModel(graph)
        kernels = {number: kernels_of(op, graph)[0] for number, op in model.ops.items()}
        self.others = tuple(
            dict.fromkeys(
                model.ops[number].name
                for number, kind in kernels.items()
                if kind != REFERENCE_KERNELS
            )
        )
        names = {tensor.index: tensor.name for tensor in graph.tensors.values()}
        self._wanted = {name: names[number] for name, number in wanted.items()}
        if not self.others:
            opened = Opened(
                model=flat.data,
                inputs=[graph.tensors[name].index for name in graph.inputs],
                outputs=list(wanted.values()),
            )
            self._pieces = [_Piece(opened, graph.inputs, list(self._wanted.values()))]
            return

        def place(group: Sequence[int]) -> str:
            return kernels[group[0]] if len(group) == 1 else REFERENCE_KERNELS

        together = [number for number, op in model.ops.items() if op.name in VARIABLES]
        self._pieces = [
            _cut(model, flat, kind, turn) for kind, turn in model.turns(together, place)
        ]

    @property
    def opened(self) -> list[Opened]:
        """What the interpreter's process opens."""
        return [piece.opened for piece in self._pieces]

    def run(self, process: InterpreterProcess, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one inference; return the tensors that were wanted, by name."""
        values = dict(inputs)
        for number, piece in enumerate(self._pieces):
            found = process.run(number, [values[name] for name in piece.inputs])
            values |= dict(zip(piece.outputs, found, strict=True))
        return {name: values[own] for name, own in self._wanted.items()}


def _cut(model: SourceModel, flat: FlatModel, kind: str, turn: Sequence[int]) -> _Piece:
    tensors = model.graph.tensors
    numbers = model.with_copies(turn)
    inputs = model.reads(numbers)
    outputs = [
        name
        for number in numbers
        for name in model.ops[number].results
        if tensors[name].dtype.value in DTYPES
    ]
    cut = cut_operators(
        flat,
        numbers,
        [tensors[name].index for name in inputs],
        [tensors[name].index for name in outputs],
        model.shapes(numbers),
    )
    return _Piece(Opened(model=cut, kernels=kind), inputs, outputs)
