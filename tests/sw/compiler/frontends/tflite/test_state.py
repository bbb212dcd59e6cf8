"""Variables of a file as the reader turns them into values: order, initial contents, refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tflite  # type: ignore[import-untyped]
from celosia.errors import ModelError, UnsupportedError
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import SourceOp

from tests.kit.stateful_models import QUANTISED, SHAPE, STATEFUL, window_model

ONES = np.ones(SHAPE, np.int8)


def test_a_variable_is_an_input_and_an_output() -> None:
    graph = load(window_model())
    assert [variable.name for variable in graph.state] == ["stream_0/states", "stream_1/states"]
    first, _ = graph.state
    assert graph.inputs == ["input_0", *(variable.before for variable in graph.state)]
    assert set(graph.outputs[1:]) == {variable.after for variable in graph.state}
    assert graph.tensors[first.before].shape == (1, 5, 1, 10)
    assert (first.initial == -128).all()
    assert graph.interface is not None
    assert [tensor.name for tensor in graph.interface.inputs] == ["input_0"]
    names = {op.origin.name for op in graph.ops}
    assert not names & {"CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}


def test_each_read_gives_what_was_assigned_last() -> None:
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    handle = b.variable(ONES, **QUANTISED)
    reads, values = [b.read_variable(handle)], []
    for _ in range(2):
        values.append(b.relu(x))
        b.assign_variable(handle, values[-1])
        reads.append(b.read_variable(handle))
    graph = load(b.finish([b.add(reads[0], x, scale=0.3), *reads[1:]]))
    (variable,) = graph.state
    assert (variable.before, variable.after) == (reads[0].name, values[1].name)
    copies = [op for op in graph.ops if op.origin.name == "READ_VARIABLE"]
    assert [op.inputs + op.outputs for op in copies] == [
        (value.name, read.name) for value, read in zip(values, reads[1:], strict=True)
    ]
    assert all(isinstance(op, SourceOp) and op.name == "RESHAPE" for op in copies)


def test_a_variable_that_nothing_changes_is_a_constant() -> None:
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    read = b.read_variable(b.variable(ONES * 7, **QUANTISED))
    tensor = b.variable_tensor(SHAPE, **QUANTISED)
    graph = load(b.finish([b.add(read, x, scale=0.3), b.add(tensor, x, scale=0.3)]))
    assert graph.state == ()
    for name, value in ((read.name, 7), (tensor.name, 3)):
        data = graph.tensors[name].data
        assert data is not None
        assert (data == value).all()


def test_a_variable_that_is_assigned_first_is_no_state() -> None:
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    handle = b.variable(None, **QUANTISED)
    b.assign_variable(handle, b.relu(x))
    tensor = b.variable_tensor(SHAPE, **QUANTISED)
    b.into(tensor, "RELU", [x])
    read = b.read_variable(handle, SHAPE)
    graph = load(b.finish([read, b.add(tensor, x, scale=0.3)]))
    assert graph.state == ()
    assert graph.inputs == ["input_0"]


def test_variables_are_told_apart_by_their_names() -> None:
    graph = load(STATEFUL["exchanged"]())
    assert len({variable.name for variable in graph.state}) == len(graph.state) == 4
    one, other, early, late = graph.state
    assert (one.after, other.after) == (other.before, one.before)
    assert (early.after, late.after) == ("input_0", early.before)
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    first, second = (b.variable(ONES * n, name="same", **QUANTISED) for n in (1, 2))
    y = b.add(b.read_variable(first), x, scale=0.3)
    b.assign_variable(second, b.relu(x))
    (variable,) = load(b.finish([y])).state
    assert (variable.initial == 2).all(), "the last one to be assigned in the beginning"


# What is refused ----------------------------------------------------------------------------------

Describe = Callable[[ModelBuilder, TensorHandle], TensorHandle]


def _unset(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    return b.add(b.read_variable(b.variable(None, **QUANTISED), SHAPE), x, scale=0.3)


def _late(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    handle = b.variable(ONES, **QUANTISED)
    b.assign_variable(handle, x)
    b._operators.append(b._operators.pop(0))
    return b.relu(b.read_variable(handle))


def _larger(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    handle = b.variable(np.ones((1, 3, 6), np.int8), **QUANTISED)
    y = b.read_variable(handle)
    b.assign_variable(handle, x)
    return b.relu(y)


def _other_shape(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    return b.relu(b.read_variable(b.variable(ONES, **QUANTISED), (1, 5, 6)))


def _no_handle(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    return b.add(b.operator("READ_VARIABLE", [x], SHAPE, **QUANTISED), x, scale=0.3)


def _recurrent(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    options = ("SVDFOptions", {"Rank": 1})
    kept = b.variable_tensor(SHAPE, **QUANTISED)
    return b.operator("SVDF", [x, kept], SHAPE, options=options, **QUANTISED)


def _elsewhere(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    y = b.add(b.read_variable(b.variable(ONES, **QUANTISED)), x, scale=0.3)
    options = ("CallOnceOptions", {"InitSubgraphIndex": 3})
    b._operators[0] = b._operators[0].__class__("CALL_ONCE", (), (), options)
    return y


@pytest.mark.parametrize(
    ("describe", "error", "message"),
    [
        (_unset, ModelError, r"READ_VARIABLE #1 .*: nothing gives variable .* a value before"),
        (_late, UnsupportedError, r"CALL_ONCE #2: variables have been used before it"),
        (_larger, UnsupportedError, r"int8 \[1, 3, 6\] before an inference and int8 \[1, 2, 6\]"),
        (_other_shape, ModelError, r"is int8 \[1, 2, 6\] at the beginning, it reads int8 \[1, 5"),
        (
            _no_handle,
            UnsupportedError,
            "READ_VARIABLE #0 .*: its variable is not one that VAR",
        ),
        (_recurrent, UnsupportedError, "SVDF keeps state in tensor 'tensor_1'"),
        (_elsewhere, ModelError, "CALL_ONCE names subgraph 3 of 2"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    describe: Describe, error: type[ModelError], message: str
) -> None:
    b = ModelBuilder()
    y = describe(b, b.input(SHAPE, **QUANTISED))
    with pytest.raises(error, match=message):
        load(b.finish([y]))


def test_what_is_assigned_at_the_beginning_is_constant() -> None:
    content = bytearray(window_model())
    model = tflite.Model.GetRootAs(content, 0)
    once = model.Subgraphs(1)
    # Let the first ASSIGN_VARIABLE of the second subgraph assign the handle itself.
    once.Operators(1).InputsAsNumpy().flags.writeable = True
    once.Operators(1).InputsAsNumpy()[1] = 0
    with pytest.raises(UnsupportedError, match="ASSIGN_VARIABLE #1: what it assigns"):
        load(bytes(content))
