"""Reads a ``.tflite`` file into the compiler's graph.

`load` accepts any bytes: the result is a verified graph of `SourceOp`, or a `ModelError` that
says what is wrong with the file and what to do about it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from celosia.errors import ModelError, UnsupportedError, printable
from celosia.sw.compiler.frontends.tflite.arithmetic import arithmetic_of
from celosia.sw.compiler.frontends.tflite.check import check_model
from celosia.sw.compiler.frontends.tflite.reader import FlatModel, damaged, guard
from celosia.sw.compiler.frontends.tflite.schema import COMPILED
from celosia.sw.compiler.frontends.tflite.state import ALTERING, Part, call_once, resolve_state
from celosia.sw.compiler.frontends.tflite.tensors import TensorReader
from celosia.sw.compiler.ir import DType, Graph, Origin, SourceOp, State, Tensor, with_state
from celosia.sw.compiler.verify import verify, verify_order

__all__ = ["load", "open_model"]

CONTROL_FLOW = frozenset({"CALL", "IF", "STABLEHLO_COMPOSITE", "WHILE"})
MAX_TENSORS = 1 << 15
MAX_OPERATORS = 1 << 12
"""More than any network of a microcontroller has; the tables of a small file can be shared, so
that its size is no bound on how many it lists."""
MAX_ACTIVATIONS = 1 << 25
"""Elements of all computed tensors together: eight times those of the largest model known."""
MAX_CONSTANTS = 1 << 28
"""Bytes of all constants as the operators read them, each time anew."""


def load(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    anything: bool = False,
    follow: bool = True,
) -> Graph:
    """Read a TensorFlow Lite model.

    Parameters
    ----------
    source : path or bytes
        The file, or its contents.
    name : str, optional
        Name of the graph; by default the file's stem, or ``model``.
    anything : bool
        Read also what the NPU does not run: any element type, variables, several subgraphs. The
        graph is that of the first subgraph, and `Graph.host_only` names tensors that are for the
        host alone.
    follow : bool
        With `anything`, whether variables are followed where they can be (`Graph.state`); else
        their operators are left as they are, for the host to keep them.

    Returns
    -------
    Graph
        Operators of the source level, in execution order; constants hold read-only arrays that
        may share the file's memory.

    Raises
    ------
    ModelError
        If the file cannot be read, is damaged, or contradicts itself.
    UnsupportedError
        If the model as a whole is of a kind the NPU does not run: not int8, several subgraphs,
        a batch, dynamic shapes. With `anything` only if its size forbids it, or it has been
        compiled for another NPU.
    """
    data, file, stem = _contents(source)
    flat = FlatModel.open(data, file)
    graph = _Converter(
        flat, name if name is not None else stem, anything=anything, follow=follow
    ).convert()
    if anything:
        verify_order(graph, file)
    else:
        check_model(graph, file)
        verify(graph, file)
    return graph


def open_model(source: str | os.PathLike[str] | bytes) -> FlatModel:
    """Return the tables of a model's file.

    Raises
    ------
    ModelError
        If the file cannot be read, or is no model.
    """
    data, file, _ = _contents(source)
    return FlatModel.open(data, file)


def _contents(source: str | os.PathLike[str] | bytes) -> tuple[bytes, str, str]:
    """Return a model's bytes, what messages call the file, and the model's name."""
    if isinstance(source, bytes):
        return source, "<bytes>", "model"
    path = Path(source)
    return _read(path), printable(str(path)), printable(path.stem)


def _read(path: Path) -> bytes:
    remedy = "check the path and its permissions"
    what = f"cannot read model {printable(str(path))}"
    try:
        if not path.is_file():
            cause = "it is not a regular file" if path.exists() else "there is no such file"
            raise ModelError(what, cause, remedy, file=str(path))
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ModelError(what, printable(str(error)), remedy, file=str(path)) from error


class _Converter:
    """Builds a `Graph` from the tables of one file."""

    def __init__(self, flat: FlatModel, name: str, *, anything: bool, follow: bool) -> None:
        self._flat = flat
        self._file = flat.file
        self._graph_name = name
        self._names: list[str] = []
        self._tensors_read = self._operators_read = 0
        self._anything = anything
        self._follow = follow
        self._tensors = TensorReader(flat, anything=anything)
        self._unsigned: set[str] = set()

    def convert(self) -> Graph:
        flat = self._flat
        with guard(self._file, "the model table"):
            subgraphs = flat.length(flat.model, "Subgraphs")
            opcodes = flat.length(flat.model, "OperatorCodes")
            # Read once: many operators share one code.
            self._opcodes = [flat.opcode(index) for index in range(opcodes)]
        self._refuse_compiled()
        if subgraphs == 0:
            raise damaged(self._file, "it has no subgraph")
        # CALL_ONCE prepares variables; other operators that run subgraphs are control flow.
        prepares = "CALL_ONCE" in self._opcodes and not CONTROL_FLOW.intersection(self._opcodes)
        if subgraphs > 1 and not self._anything and not prepares:
            self._refuse_subgraphs(subgraphs)
        main = self._part(0)
        part, state = self._resolved(main, subgraphs)
        tensors = part.tensors
        graph = with_state(
            Graph(
                name=self._graph_name,
                tensors=tensors,
                ops=list(part.ops),
                inputs=part.inputs,
                # A tensor listed twice is one output: outputs are told apart by their names.
                outputs=list(dict.fromkeys(part.outputs)),
            ),
            state,
        )
        graph = replace(_drop_unused(graph), host_only=self._tensors.host_only)
        written = {name for op in graph.ops for name in op.outputs}
        activations = sum(tensors[name].elements for name in written.union(graph.inputs))
        self._limit(activations, MAX_ACTIVATIONS, "elements in its activations")
        constants = sum(
            tensors[name].size_bytes
            for op in graph.ops
            for name in op.inputs
            if tensors[name].is_constant
        )
        self._limit(constants, MAX_CONSTANTS, "bytes of constants, counting each use,")
        return graph

    def _resolved(self, main: Part, subgraphs: int) -> tuple[Part, tuple[State, ...]]:
        """Return what an inference computes, and its variables as far as they are followed."""
        if not self._anything:
            self._check_calls(main, subgraphs)
            return resolve_state(main, self._part, self._file)
        own = dict(self._tensors.host_only)
        resolved = self._followed(main, subgraphs) if self._follow else None
        # Tensors of other subgraphs may have the same names.
        self._tensors.host_only = own
        if resolved is not None:
            return resolved
        for name in main.variables:
            self._tensors.host_only.setdefault(
                name, f"tensor {name!r} keeps state between inferences"
            )
        return main, ()

    def _followed(self, main: Part, subgraphs: int) -> tuple[Part, tuple[State, ...]] | None:
        """Follow variables that both the NPU and the host can have to do with; None if not so."""
        own = set(self._tensors.host_only)
        if main.variables:
            return None  # of one number in the file, before and after they are written
        try:
            self._check_calls(main, subgraphs)
            part, state = resolve_state(main, self._part, self._file)
        except UnsupportedError:
            return None
        names = {name for variable in state for name in (variable.before, variable.after)}
        return None if names & own else (part, state)

    def _check_calls(self, main: Part, subgraphs: int) -> None:
        """Refuse subgraphs that are more than what CALL_ONCE runs."""
        called = {call_once(op) for op in main.ops if op.name == "CALL_ONCE"}
        for number in called:
            if not 0 < number < subgraphs:
                raise damaged(self._file, f"CALL_ONCE names subgraph {number} of {subgraphs}")
        if len(called) < subgraphs - 1:
            self._refuse_subgraphs(subgraphs)

    def _refuse_subgraphs(self, count: int) -> NoReturn:
        raise UnsupportedError(
            f"cannot compile model {self._file}",
            f"it has {count} subgraphs (control flow or several signatures)",
            "export one inference function without IF, WHILE or CALL",
            file=self._file,
        )

    def _part(self, number: int) -> Part:
        """Read a subgraph."""
        flat = self._flat
        what = "the subgraph" if number == 0 else f"subgraph {number}"
        with guard(self._file, what):
            subgraph = flat.model.Subgraphs(number)
            tensor_count = flat.length(subgraph, "Tensors")
            operator_count = flat.length(subgraph, "Operators")
            inputs = flat.ints(subgraph, "Inputs")
            outputs = flat.ints(subgraph, "Outputs")
        self._tensors_read += tensor_count
        self._operators_read += operator_count
        self._limit(self._tensors_read, MAX_TENSORS, "tensors")
        self._limit(self._operators_read, MAX_OPERATORS, "operators")
        tensors: dict[str, Tensor] = {}
        self._names = []
        variables: list[str] = []
        for index in range(tensor_count):
            with guard(self._file, f"tensor {index}"):
                table = subgraph.Tensors(index)
                tensor = self._tensors.tensor(table, index, taken=tensors)
                if table.IsVariable():
                    variables.append(tensor.name)
                    self._check_altering(tensor.name)
            tensors[tensor.name] = tensor
            self._names.append(tensor.name)
            if number == 0 and tensor.dtype is DType.UINT8:
                self._unsigned.add(tensor.name)
        ops: list[SourceOp] = []
        for index in range(operator_count):
            with guard(self._file, f"operator {index}"):
                table = subgraph.Operators(index)
                op_type = self._operator_type(table)
            where = f"operator {index} ({op_type})"
            with guard(self._file, where, op_index=index, op_type=op_type):
                ops.append(self._operator(table, index, op_type))
        return Part(
            tensors=tensors,
            ops=ops,
            inputs=[self._tensor_name(i, "the list of inputs") for i in inputs],
            outputs=[self._tensor_name(i, "the list of outputs") for i in outputs],
            variables=tuple(variables),
        )

    def _check_altering(self, name: str) -> None:
        """Refuse variable tensors of operators that change their inputs."""
        altering = ALTERING.intersection(self._opcodes)
        if altering and not self._anything:
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"{min(altering)} keeps state in tensor {name!r} between inferences",
                "use variables that are read and assigned to, or pass the state as an input and an"
                " output of the model",
                file=self._file,
                tensor=name,
            )

    def _limit(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"it has {count} {what}; at most {most} are supported",
                "give a network of a size that a microcontroller runs",
                file=self._file,
            )

    def _refuse_compiled(self) -> None:
        """Refuse a file that a compiler has already turned into another NPU's machine code."""
        for code in self._opcodes:
            name = code.removeprefix("CUSTOM(").removesuffix(")")
            if name != code and name in COMPILED:
                npu, compiler = COMPILED[name]
                raise UnsupportedError(
                    f"cannot compile model {self._file}",
                    f"it has already been compiled for {npu} by {compiler}: its operator {name!r} "
                    "is machine code of that NPU",
                    f"give the .tflite file from before {compiler}",
                    file=self._file,
                    op_type=code,
                )

    def _operator_type(self, table: Any) -> str:
        opcode_index = int(table.OpcodeIndex())
        if opcode_index >= len(self._opcodes):
            raise ValueError(f"operator code {opcode_index} does not exist")
        return self._opcodes[opcode_index]

    def _operator(self, table: Any, index: int, name: str) -> SourceOp:
        flat = self._flat
        where = f"operator {index} ({name})"
        operands = tuple(
            None if i == -1 else self._tensor_name(i, where) for i in flat.ints(table, "Inputs")
        )
        results = tuple(self._tensor_name(i, where) for i in flat.ints(table, "Outputs"))
        return SourceOp(
            origin=Origin("tflite", index, name),
            name=name,
            operands=operands,
            results=results,
            arithmetic=arithmetic_of(name, unsigned=not self._unsigned.isdisjoint(results)),
            options=MappingProxyType(flat.options(name, table)),
        )

    def _tensor_name(self, index: int, where: str) -> str:
        if not 0 <= index < len(self._names):
            raise damaged(self._file, f"{where} names tensor {index}; there are {len(self._names)}")
        return self._names[index]


def _drop_unused(graph: Graph) -> Graph:
    """Leave out tensors nothing refers to, which some converters and most fuzzers leave behind."""
    used = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        used.update(op.inputs, op.outputs)
    tensors = {name: t for name, t in graph.tensors.items() if name in used}
    return replace(graph, tensors=tensors)
