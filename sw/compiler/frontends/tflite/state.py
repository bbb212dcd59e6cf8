"""Variables of a TFLite model: what READ_VARIABLE and ASSIGN_VARIABLE do, as values of tensors.

A graph has no variables, only tensors that are written once. So the operators are followed in the
file's order: what the first READ_VARIABLE gives is the variable's value before the inference, each
further one gives what was assigned last, and what is assigned last of all is the value afterwards.
What a variable holds before the first inference is what the subgraph of CALL_ONCE assigns to it.
A variable that nothing assigns to later is a constant.

Variable tensors (``is_variable``) are the same without a name: an operator that has one as its
output assigns to it. The interpreter fills them with their zero point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from celosia.errors import ModelError, UnsupportedError
from celosia.sw.compiler.ir import DType, SourceOp, State, Tensor, fresh_name
from celosia.sw.compiler.passes.fold_constants import evaluate

__all__ = ["ALTERING", "FOLLOWED", "Part", "call_once", "resolve_state"]

FOLLOWED = ("ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE")
"""Operators of which nothing is left."""
ALTERING = frozenset(
    {
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
        "LSTM",
        "RNN",
        "SVDF",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
    }
)
"""Operators that write variable tensors which are among their inputs."""

Array = npt.NDArray[Any]
_Key = tuple[str, str]
"""Container and name of a variable."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A subgraph of the file.

    Attributes
    ----------
    tensors : dict of str to Tensor
        By name.
    ops : list of SourceOp
        In order of execution.
    inputs, outputs : list of str
        Of the subgraph.
    variables : tuple of str
        Variable tensors.
    """

    tensors: dict[str, Tensor]
    ops: list[SourceOp]
    inputs: list[str]
    outputs: list[str]
    variables: tuple[str, ...] = ()


def resolve_state(
    main: Part, once: Callable[[int], Part], file: str
) -> tuple[Part, tuple[State, ...]]:
    """Return what an inference computes without variables, and what these were.

    Parameters
    ----------
    main : Part
        What an inference computes.
    once : callable
        Returns a subgraph by its number.
    file : str
        Name for messages.

    Raises
    ------
    ModelError
        If a variable is read before it has a value, or the sizes of its values differ.
    UnsupportedError
        If an operator does with variables what cannot be followed.
    """
    resolver = _Resolver(main, file)
    done: set[int] = set()
    for op in main.ops:
        if op.name == "CALL_ONCE":
            number = call_once(op)
            if number not in done:
                done.add(number)
                resolver.initialise(op, once(number))
        else:
            resolver.follow(op)
    return resolver.finish()


def call_once(op: SourceOp) -> int:
    """Return the number of the subgraph that a CALL_ONCE runs."""
    number = op.options["init_subgraph_index"]
    assert isinstance(number, int), "the schema says so"
    return number


class _Variables:
    """The handles of one subgraph and what they stand for."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._keys: dict[str, _Key] = {}

    def follow(self, op: SourceOp) -> bool:
        """Return whether the operator makes a handle."""
        if op.name != "VAR_HANDLE":
            return False
        if len(op.results) != 1:
            raise self.contradiction(op, f"it has {len(op.results)} outputs")
        key = (str(op.options["container"]), str(op.options["shared_name"]))
        self._keys[op.results[0]] = key
        return True

    def key(self, op: SourceOp, operands: int, results: int) -> _Key:
        """Return the variable that an operator is about; check what else it has."""
        if len(op.inputs) != operands or len(op.results) != results:
            counts = f"{len(op.inputs)} inputs and {len(op.results)} outputs"
            raise self.contradiction(op, f"it has {counts}")
        key = self._keys.get(op.inputs[0])
        if key is None:
            self.refuse(op, "its variable is not one that VAR_HANDLE names")
        return key

    def check_unused(self, op: SourceOp) -> None:
        """Refuse an operator that does something else with a variable."""
        if not self._keys.keys().isdisjoint(op.inputs):
            self.refuse(op, "it is given a variable")

    def contradiction(self, op: SourceOp, cause: str) -> ModelError:
        """Make the error for an operator that contradicts the others."""
        return ModelError(
            f"cannot compile model {self._file}",
            f"{op.title}: {cause}",
            "the file contradicts itself: convert the model again",
            file=self._file,
            op_index=op.origin.index,
            op_type=op.origin.name,
        )

    def refuse(self, op: SourceOp, cause: str) -> NoReturn:
        """Raise the error for an operator that is sound, and beyond what is followed here."""
        raise UnsupportedError(
            f"cannot compile model {self._file}",
            f"{op.title}: {cause}",
            "set variables to constants before the first inference, and use them in the main"
            " subgraph only",
            file=self._file,
            op_index=op.origin.index,
            op_type=op.origin.name,
        )


class _Resolver:
    def __init__(self, main: Part, file: str) -> None:
        self._main = main
        self._file = file
        self._tensors = dict(main.tensors)
        self._ops: list[SourceOp] = []
        self._variables = _Variables(file)
        self._initial: dict[_Key, Array] = {}
        self._first: dict[_Key, str] = {}
        """Of each variable that is read before it is assigned to: the tensor of its value."""
        self._current: dict[_Key, str] = {}
        self._assigned: set[_Key] = set()
        self._touched = False
        self._renamed: dict[str, str] = {}
        """Variable tensors that have been written, and what holds their values."""
        self._read_before: set[str] = set()
        """Those that are read before they are written."""

    # The subgraph of CALL_ONCE -----------------------------------------------------------------

    def initialise(self, call: SourceOp, part: Part) -> None:
        """Run a subgraph whose operators have constant operands."""
        if self._touched:
            self._variables.refuse(call, "variables have been used before it")
        variables = _Variables(self._file)
        tensors = dict(part.tensors)
        for op in part.ops:
            if variables.follow(op):
                continue
            if op.name == "ASSIGN_VARIABLE":
                data = tensors[op.inputs[-1]].data if op.inputs else None
                key = variables.key(op, 2, 0)
                if data is None:
                    variables.refuse(op, "what it assigns at the beginning is not constant")
                self._initial[key] = data
                continue
            if op.name == "READ_VARIABLE":
                key = variables.key(op, 1, 1)
                if key not in self._initial:
                    raise variables.contradiction(op, f"variable {key[1]!r} has no value yet")
                value: Array | None = self._value(op, key, tensors[op.results[0]])
            else:
                value = evaluate(op, tensors) if len(op.results) == 1 else None
            if value is None:
                variables.refuse(op, "it is not computed before the first inference")
            tensors[op.results[0]] = replace(tensors[op.results[0]], data=value)

    def _value(self, op: SourceOp, key: _Key, tensor: Tensor) -> Array:
        """Return the initial value of a variable as a tensor that reads it."""
        value = self._initial[key]
        if value.size != tensor.elements or value.dtype != tensor.dtype.numpy:
            raise self._variables.contradiction(
                op,
                f"variable {key[1]!r} is {value.dtype} {list(value.shape)} at the beginning, it"
                f" reads {tensor.dtype} {list(tensor.shape)}",
            )
        return value.reshape(tensor.shape)

    # The main subgraph -------------------------------------------------------------------------

    def follow(self, op: SourceOp) -> None:
        """Take the next operator of an inference."""
        if self._variables.follow(op):
            return
        self._read_before.update(n for n in op.inputs if n not in self._renamed)
        operands = tuple(None if n is None else self._renamed.get(n, n) for n in op.operands)
        op = replace(op, operands=operands)
        if op.name == "READ_VARIABLE":
            self._touched = True
            self._read(op)
        elif op.name == "ASSIGN_VARIABLE":
            self._touched = True
            key = self._variables.key(op, 2, 0)
            self._assigned.add(key)
            self._current[key] = op.inputs[1]
        else:
            self._variables.check_unused(op)
            self._ops.append(self._write(op))

    def _read(self, op: SourceOp) -> None:
        key = self._variables.key(op, 1, 1)
        (result,) = op.results
        current = self._current.get(key)
        if current is None:
            if key not in self._initial:
                raise self._variables.contradiction(
                    op, f"nothing gives variable {key[1]!r} a value before"
                )
            self._first[key] = self._current[key] = result
            return
        # The bytes are taken as they are, whatever the scales say: that is a RESHAPE.
        source = self._tensors[current]
        if source.elements != self._tensors[result].elements:
            raise self._variables.contradiction(
                op,
                f"variable {key[1]!r} is {list(source.shape)}, it reads"
                f" {list(self._tensors[result].shape)}",
            )
        self._ops.append(replace(op, name="RESHAPE", operands=(current,)))

    def _write(self, op: SourceOp) -> SourceOp:
        """Return an operator that writes variable tensors with other tensors as its outputs."""
        written = [name for name in op.results if name in self._main.variables]
        if not written:
            return op
        results = []
        for name in op.results:
            if name in self._main.variables:
                tensor = self._tensors[name]
                made = fresh_name(self._tensors, f"{name}'")
                self._tensors[made] = replace(tensor, name=made, data=None)
                self._renamed[name] = name = made
            results.append(name)
        return replace(op, results=tuple(results))

    # The result --------------------------------------------------------------------------------

    def finish(self) -> tuple[Part, tuple[State, ...]]:
        """Return what is left of the subgraph, and its variables."""
        states: list[State] = []
        names: set[str] = set()
        for key, before in self._first.items():
            initial = self._value(self._reader(before), key, self._tensors[before])
            if key not in self._assigned:
                self._tensors[before] = replace(self._tensors[before], data=initial)
                continue
            name = fresh_name(names, key[1] or before)
            names.add(name)
            states.append(self._state(name, before, self._current[key], initial))
        for variable in self._main.variables:
            tensor = self._tensors[variable]
            if tensor.data is not None or tensor.dtype.numpy is None:
                continue
            filled = tensor.zero_point if tensor.dtype is DType.INT8 else 0
            initial = np.full(tensor.shape, filled, tensor.dtype.numpy)
            initial.flags.writeable = False
            if variable not in self._renamed:
                self._tensors[variable] = replace(tensor, data=initial)
                continue
            if variable not in self._read_before:
                continue
            name = fresh_name(names, variable)
            names.add(name)
            states.append(self._state(name, variable, self._renamed[variable], initial))
        part = Part(
            tensors=self._tensors,
            ops=self._ops,
            inputs=self._main.inputs,
            outputs=[self._renamed.get(name, name) for name in self._main.outputs],
        )
        return part, tuple(states)

    def _reader(self, before: str) -> SourceOp:
        return next(op for op in self._main.ops if before in op.results)

    def _state(self, name: str, before: str, after: str, initial: Array) -> State:
        first, last = self._tensors[before], self._tensors[after]
        if first.elements != last.elements or first.dtype is not last.dtype:
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"variable {name!r} is {first.dtype} {list(first.shape)} before an inference and"
                f" {last.dtype} {list(last.shape)} after it",
                "let it keep its size and its type",
                file=self._file,
                tensor=after,
            )
        return State(name=name, before=before, after=after, initial=initial)
