"""The elements that an operator moves, told apart by numbers.

What an operator does to an array of these numbers is what it does to the elements; so a movement
can be found out by doing it once to the numbers (`celosia.sw.compiler.ops.arrangements`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.ir import Graph, SourceOp
from celosia.sw.compiler.passes.rewrite import constant_numbers, contradiction, unsupported

__all__ = ["MAX_MOVED", "Elements", "IndexArray"]

MAX_MOVED = 1 << 22
"""Elements of the largest tensor whose map is worked out."""

IndexArray = npt.NDArray[np.int64]


class Elements:
    """The elements that an operator may choose from, by number.

    Attributes
    ----------
    graph, op
        The operator.
    arrays : list of ndarray
        The numbers of the elements of each of its activations, in their shape.
    sources : list of str
        Its activations that are computed, each once: their elements come first.
    constants : bytearray
        The values of all other elements, which come behind them.
    """

    def __init__(self, graph: Graph, op: SourceOp, names: Sequence[str]) -> None:
        self.graph, self.op = graph, op
        self.arrays: list[IndexArray] = []
        self.sources: list[str] = []
        self.constants = bytearray()
        self._firsts: list[int] = []
        self._constant_first = sum(graph.tensors[name].elements for name in names)
        first = 0
        for name in names:
            tensor = graph.tensors[name]
            if tensor.data is not None:
                start = self._constant_first + len(self.constants)
                self.constants += tensor.data.astype(np.int8).tobytes()
            else:
                if name not in self.sources:
                    self.sources.append(name)
                    self._firsts.append(first)
                    first += tensor.elements
                start = self._firsts[self.sources.index(name)]
            self.arrays.append(np.arange(start, start + tensor.elements).reshape(tensor.shape))

    def value(self, value: int) -> int:
        """Return the number of an element of this value."""
        self.constants.append(value & 0xFF)
        return self._constant_first + len(self.constants) - 1

    def numbers(self, operand: int) -> list[int]:
        """Return the values of an operand that has to be constant whole numbers."""
        numbers = constant_numbers(self.graph, self.op, operand)
        if numbers is None:
            raise unsupported(
                self.op, f"its operand {operand} is not constant", "use constant whole numbers"
            )
        return numbers

    def option(self, name: str) -> int:
        """Return an option that is a whole number."""
        value = self.op.options.get(name)
        if not isinstance(value, int):
            raise contradiction(self.op, f"{name} is {value}")
        return value

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the first."""
        if not -rank <= axis < rank:
            raise contradiction(self.op, f"axis {axis} of a tensor of rank {rank}")
        return axis % rank

    def split(self, elements: IndexArray) -> tuple[IndexArray, IndexArray]:
        """Return the source of each element and its number there; the constants come last."""
        firsts = np.array([*self._firsts, self._constant_first], np.int64)
        source = np.searchsorted(firsts, elements, side="right") - 1
        return source, elements - firsts[source]
