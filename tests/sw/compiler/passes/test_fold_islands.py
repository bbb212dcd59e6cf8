"""What is computed in float32 of one int8 tensor is a table, equal to the reference's bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import UnsupportedError
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.arithmetic import floats
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import TableOp
from celosia.sw.compiler.lower import lower
from celosia.sw.reference.golden import GoldenModel

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the reference interpreter")

CHANNELS = 3
SHAPE = (256, CHANNELS)
EVERY = np.arange(256, dtype=np.uint8).view(np.int8)
OPTIONS: dict[str, list[tuple[str, dict[str, Any]] | None]] = {
    "ADD": [("AddOptions", {"FusedActivationFunction": 3})],
    "DIV": [("DivOptions", {})],
    "GELU": [("GeluOptions", {"Approximate": flag}) for flag in (False, True)],
    "LEAKY_RELU": [("LeakyReluOptions", {"Alpha": -0.3})],
    "MUL": [("MulOptions", {"FusedActivationFunction": 1})],
    "SUB": [("SubOptions", {"FusedActivationFunction": 2})],
}
CONSTANTS = (
    np.float32(1.7),
    np.array([-0.25], np.float32),
    np.array([[0.5, -2.0, 3.0]], np.float32),
)


class Island:
    """A model that dequantises its input, computes something and quantises the result.

    Parameters
    ----------
    steps : sequence of (str, object)
        Operators, each with an operand before or behind what comes from the one before it: a
        constant, ``"x"`` for what was dequantised, or None.
    quantisation : (float, int, float, int)
        Scale and zero point of input and output.
    """

    def __init__(
        self,
        steps: Sequence[tuple[str, Any]],
        quantisation: tuple[float, int, float, int],
        *,
        swapped: bool = False,
        option: int = 0,
    ) -> None:
        scale, zero, scale_out, zero_out = quantisation
        b = ModelBuilder()
        self.x = b.input(SHAPE, scale=scale, zero_point=zero)
        first = value = b.operator("DEQUANTIZE", [self.x], SHAPE, dtype=np.float32)
        for code, other in steps:
            operands: list[TensorHandle] = [value]
            if other is not None:
                operands.append(first if isinstance(other, str) else b.constant(other))
            options = OPTIONS.get(code, [None])[option]
            value = b.operator(
                code,
                operands[::-1] if swapped else operands,
                SHAPE,
                dtype=np.float32,
                options=options,
            )
        self.y = b.operator("QUANTIZE", [value], SHAPE, scale=scale_out, zero_point=zero_out)
        self.model = b.finish([self.y])
        self.codes = {code for code, _ in steps}

    def table(self) -> npt.NDArray[Any]:
        """Return what the compiler makes of all inputs, [256, CHANNELS]."""
        (op,) = lower(load(self.model)).ops
        assert isinstance(op, TableOp)
        return np.broadcast_to(op.table.T if op.per_channel else op.table[:, None], SHAPE)

    def reference(self) -> npt.NDArray[Any]:
        kinds = litert.OpResolverType
        kind = (
            kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            if self.codes & floats.BY_DEFAULT
            else kinds.BUILTIN_REF
        )
        interpreter = litert.Interpreter(
            model_content=self.model, experimental_op_resolver_type=kind
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(self.x.index, self.inputs)
        interpreter.invoke()
        result: npt.NDArray[Any] = interpreter.get_tensor(self.y.index)
        return result

    @property
    def inputs(self) -> npt.NDArray[np.int8]:
        return np.repeat(EVERY[:, None], CHANNELS, axis=1)

    def check(self) -> None:
        expected = self.reference()
        assert np.array_equal(self.table(), expected)
        assert np.array_equal(GoldenModel(self.model).run([self.inputs])[self.y.name], expected)


QUANTISATIONS = [(0.0503, -3, 0.0401, 5), (0.4, 60, 0.0071, -128), (0.00307, -128, 0.91, 0)]


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("code", sorted(floats.UNARY))
def test_a_function_of_one_tensor(code: str, quantisation: tuple[float, int, float, int]) -> None:
    for option in range(len(OPTIONS.get(code, [None]))):
        Island([(code, None)], quantisation, option=option).check()


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
@pytest.mark.parametrize("code", sorted(floats.BINARY))
def test_a_function_of_a_tensor_and_constants(
    code: str, quantisation: tuple[float, int, float, int]
) -> None:
    for other in CONSTANTS:
        for swapped in (False, True):
            Island([(code, other)], quantisation, swapped=swapped).check()


def test_chains_and_what_meets_again() -> None:
    half = np.float32(0.5)
    Island([("LOGISTIC", None), ("MUL", "x")], QUANTISATIONS[0]).check()  # swish
    Island([("EXP", None), ("ADD", np.float32(1)), ("LOG", None)], QUANTISATIONS[0]).check()
    Island([("SQUARE", None), ("MUL", half), ("COS", None), ("DIV", "x")], QUANTISATIONS[1]).check()


def test_the_layer_is_the_operator_that_computes() -> None:
    (op,) = lower(load(Island([("SIN", None)], QUANTISATIONS[0]).model)).ops
    assert op.label == "SIN #1"
    assert sorted(op.fused) == [0, 2]


def test_integers_between_are_requantised_as_by_the_reference() -> None:
    for kind, scale, zero in ((np.uint8, 0.03, 130), (np.int16, 0.0001, 0), (np.uint8, 0.05, 125)):
        b = ModelBuilder()
        x = b.input((256,), scale=0.05, zero_point=-3)
        between = b.operator("QUANTIZE", [x], (256,), scale=scale, zero_point=zero, dtype=kind)
        y = b.operator("QUANTIZE", [between], (256,), scale=0.07, zero_point=9)
        model = b.finish([y])
        (op,) = lower(load(model)).ops
        assert isinstance(op, TableOp)
        interpreter = litert.Interpreter(
            model_content=model, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(x.index, EVERY)
        interpreter.invoke()
        assert np.array_equal(op.table, interpreter.get_tensor(y.index))


def test_a_result_that_hangs_on_the_last_bit_is_refused() -> None:
    # exp(0.5) is 10.5 steps, as nearly as float32 can say it.
    scale = float(np.float32(np.exp(0.5) / 10.5))
    with pytest.raises(UnsupportedError, match=r"QUANTIZE #2 .*: .* on the last bit of EXP"):
        lower(load(Island([("EXP", None)], (0.5, 0, scale, 0)).model))
    # Halves of a step, which dequantising in double and in single precision rounds differently.
    with pytest.raises(UnsupportedError, match="depends on the last bit of ELU"):
        lower(load(Island([("ELU", None)], (0.003, -128, 0.9, 0)).model))
    with pytest.raises(UnsupportedError, match="0 or nearly, depending on the C library"):
        lower(load(Island([("GELU", None), ("DIV", "x")], (0.2, 0, 0.1, 0), swapped=True).model))


def test_two_tensors_are_no_island() -> None:
    b = ModelBuilder()
    values = [
        b.operator("DEQUANTIZE", [b.input((1, 4), scale=0.1)], (1, 4), dtype=np.float32)
        for _ in range(2)
    ]
    total = b.operator("MUL", values, (1, 4), dtype=np.float32, options=("MulOptions", {}))
    b.operator("QUANTIZE", [total], (1, 4), scale=0.1)
    with pytest.raises(UnsupportedError, match="computes in float32 in part"):
        load(b.finish())


def test_a_variable_beside_an_island_is_assigned() -> None:
    """Nothing is left of the file's operators but the table when the variable is copied."""
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1)
    kept = b.variable(np.zeros((1, 4), np.int8), scale=0.1, zero_point=0)
    value = b.operator("DEQUANTIZE", [b.read_variable(kept)], (1, 4), dtype=np.float32)
    value = b.operator("SQUARE", [value], (1, 4), dtype=np.float32)
    y = b.operator("QUANTIZE", [value], (1, 4), scale=0.5)
    b.assign_variable(kept, x)
    table, copy = lower(load(b.finish([y]))).ops
    assert isinstance(table, TableOp)
    assert copy.origin.name == "ASSIGN_VARIABLE"
