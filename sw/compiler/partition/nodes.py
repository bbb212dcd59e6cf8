"""The operators of a model as the partition sees them: what has to run before what, and together.

Some operators belong to no place. Their result is known from constants alone, or they convert an
input of the model, which the driver does for the NPU: whoever needs it has a copy of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from celosia.sw.compiler.ir import DType, Graph, SourceOp
from celosia.sw.compiler.partition.cluster import cluster
from celosia.sw.compiler.verify import WITHOUT_OUTPUT
from celosia.sw.program.tensors import DTYPES

__all__ = ["SourceModel", "strongly_connected"]

VARIABLES = frozenset({"ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"})
"""Operators of resource variables, which the host keeps in one interpreter."""
DRAWN = frozenset({"MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM"})
"""Operators whose results differ from run to run."""


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A source-level graph with what the partition asks of it.

    Parameters
    ----------
    graph : Graph
        As `celosia.sw.compiler.frontends.tflite.convert.load` reads anything.
    joined : frozenset of str
        Tensors that no segment can take or give.

    Attributes
    ----------
    ops : dict of int to SourceOp
        Those that the outputs, or what lasts, depend on, by their number in the file, in order.
    copied : frozenset of int
        Those that belong to no place.
    """

    graph: Graph
    joined: frozenset[str] = frozenset()
    ops: dict[int, SourceOp] = field(init=False)
    copied: frozenset[int] = field(init=False)
    _writer: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        ops = {op.origin.index: op for op in _live(self.graph)}
        object.__setattr__(self, "ops", ops)
        writer = {name: number for number, op in ops.items() for name in op.results}
        object.__setattr__(self, "_writer", writer)
        constant: set[int] = set()
        for number, op in ops.items():
            if self._is_constant(op, constant):
                constant.add(number)
        edges = {number for number, op in ops.items() if self._is_edge(op)}
        outputs = {self._writer.get(name) for name in self.graph.outputs}
        object.__setattr__(self, "copied", frozenset((constant | edges) - outputs))

    def _is_constant(self, op: SourceOp, constant: set[int]) -> bool:
        tensors = self.graph.tensors
        return (
            bool(op.inputs)
            and op.name not in DRAWN | VARIABLES
            and not op.name.startswith("CUSTOM(")
            and all(
                tensors[name].is_constant or self._writer.get(name) in constant
                for name in op.inputs
            )
        )

    def _is_edge(self, op: SourceOp) -> bool:
        tensors, source = self.graph.tensors, next(iter(op.inputs), "")
        return (
            op.name in ("CAST", "QUANTIZE")
            and source in self.graph.inputs
            and tensors[source].dtype is not DType.INT8
            and tensors[op.results[0]].dtype is DType.INT8
        )

    def writer(self, name: str) -> int | None:
        """Return the number of the operator that writes a tensor."""
        return self._writer.get(name)

    def with_copies(self, numbers: Iterable[int]) -> list[int]:
        """Return operators and the copies that they need, in the file's order."""
        found, left = set[int](), list(numbers)
        while left:
            number = left.pop()
            if number in found:
                continue
            found.add(number)
            for name in self.ops[number].inputs:
                writer = self._writer.get(name)
                if writer is not None and writer in self.copied:
                    left.append(writer)
        return sorted(found)

    def needs(self, number: int) -> frozenset[int]:
        """Return the operators, none of them copied, that one reads the results of."""
        found: set[int] = set()
        for own in self.with_copies([number]):
            for name in self.ops[own].inputs:
                writer = self._writer.get(name)
                if writer is not None and writer not in self.copied:
                    found.add(writer)
        return frozenset(found - {number})

    def reads(self, numbers: Sequence[int]) -> list[str]:
        """Return the tensors that some operators need from elsewhere, by their number."""
        tensors = self.graph.tensors
        made = {name for number in numbers for name in self.ops[number].results}
        read = {name for number in numbers for name in self.ops[number].inputs}
        outside = {
            name
            for name in read - made
            if not tensors[name].is_constant and (name in self._writer or name in self.graph.inputs)
        }
        return sorted(outside, key=lambda name: tensors[name].index)

    def gives(self, numbers: Sequence[int]) -> list[str]:
        """Return the tensors of some operators that others, or the user, need, by their number."""
        own = set(numbers)
        outside = set(self.graph.outputs)
        for number, op in self.ops.items():
            if number not in own and number not in self.copied:
                outside.update(op.inputs)
        made = {name for number in own - self.copied for name in self.ops[number].results}
        return sorted(made & outside, key=lambda name: self.graph.tensors[name].index)

    def groups(self, together: Iterable[int]) -> list[list[int]]:
        """Return the operators, but copied ones, as groups that have to run in one segment.

        Parameters
        ----------
        together : iterable of int
            Operators that have to run in one segment, with all that is between them.

        Returns
        -------
        list of list of int
            Most groups are one operator. Operators that hand on what no segment can take, as
            handles, are in one group. In the file's order, as far as it can be.
        """
        numbers = [number for number in self.ops if number not in self.copied]
        edges = {number: set(self.needs(number)) for number in numbers}
        links = [sorted(number for number in together if number in edges)]
        for name, writer in self._writer.items():
            bound = name in self.joined or self.graph.tensors[name].dtype.value not in DTYPES
            if bound and writer in edges:
                readers = [n for n in numbers if name in self.ops[n].inputs]
                links.append([writer, *readers])
        for link in links:
            for first, second in zip(link, link[1:], strict=False):
                edges[first].add(second)
                edges[second].add(first)
        return strongly_connected(edges)

    def turns(
        self, together: Iterable[int], place: Callable[[Sequence[int]], str]
    ) -> list[tuple[str, list[int]]]:
        """Order the operators, but copied ones, so that the place changes rarely.

        Parameters
        ----------
        together : iterable of int
            As of `groups`.
        place : callable
            Says where a group runs.

        Returns
        -------
        list of (str, list of int)
            Place and operators of each turn, these in the file's order.
        """
        groups = self.groups(together)
        home = {number: index for index, group in enumerate(groups) for number in group}
        needs = {
            index: frozenset(home[need] for number in group for need in self.needs(number))
            - {index}
            for index, group in enumerate(groups)
        }
        return [
            (where, sorted(number for index in turn for number in groups[index]))
            for where, turn in cluster([place(group) for group in groups], needs)
        ]

    def shapes(self, numbers: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """Return the shapes that some operators, RESHAPEs, read and neither make nor are given.

        Parameters
        ----------
        numbers : iterable of int
            Operators of one segment, with copies.

        Returns
        -------
        dict of int to tuple of int
            By the number of the tensor that holds the shape in the file.
        """
        own, tensors = list(numbers), self.graph.tensors
        known = {name for number in own for name in self.ops[number].results}
        known.update(self.reads(own))
        shapes = {}
        for op in self.graph.ops:
            if (
                not isinstance(op, SourceOp)
                or op.origin.index not in own
                or op.name != "RESHAPE"
                or len(op.operands) < 2
                or op.operands[1] is None
            ):
                continue
            shape = tensors[op.operands[1]]
            if not shape.is_constant and shape.name not in known:
                shapes[shape.index] = tensors[op.results[0]].shape
        return shapes


def strongly_connected(edges: dict[int, set[int]]) -> list[list[int]]:
    """Return the strongly connected components of a graph, each sorted, by their least node.

    Source: Tarjan, Depth-first search and linear graph algorithms, 1972; without recursion.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(sorted(edges[root])))]
        while work:
            node, rest = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                stack.append(node)
                on_stack.add(node)
            child = next(rest, None)
            if child is not None:
                if child not in index:
                    work.append((child, iter(sorted(edges[child]))))
                elif child in on_stack:
                    low[node] = min(low[node], index[child])
                continue
            work.pop()
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
            if low[node] == index[node]:
                component: list[int] = []
                while not component or component[-1] != node:
                    component.append(stack.pop())
                    on_stack.discard(component[-1])
                found.append(sorted(component))
    return sorted(found)


def _live(graph: Graph) -> list[SourceOp]:
    """Return what the outputs depend on, and what changes something that lasts.

    The shape that a RESHAPE reads, often computed by a chain of operators, is in the file as that
    of its result: only one that is not fixed needs it.
    """
    needed = set(graph.outputs)
    live: list[SourceOp] = []
    for op in reversed(graph.ops):
        if not isinstance(op, SourceOp):
            continue
        if not needed.intersection(op.results) and op.name not in WITHOUT_OUTPUT:
            continue
        if op.name == "RESHAPE" and op.results[0] not in graph.host_only:
            op = replace(op, operands=op.operands[:1])
        needed.update(op.inputs)
        live.append(op)
    return live[::-1]
