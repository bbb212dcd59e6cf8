"""The ONNX project's own tests of operators: quantised ones as they are, others in QDQ form.

By operator, with where they ran, on the RTL::

    python -m tests.sw.compiler.frontends.test_onnx_nodes --device sim
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import CelosiaError
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.onnx.convert import convert
from celosia.sw.compiler.frontends.onnx.opsets import computable
from celosia.sw.compiler.ir import UNPROVEN
from celosia.sw.driver.device import Device
from celosia.sw.driver.opening import open_device
from celosia.sw.reference.graph import UnsupportedModelError
from celosia.sw.reference.onnx_golden import OnnxGolden
from celosia.sw.runtime.session import Session

from tests.kit.onnx_models import needs_whole_sums, onnxruntime_results
from tests.kit.onnx_nodes import (
    FLOAT_KINDS,
    NodeTest,
    float_tests,
    quantised_form,
    quantised_tests,
    with_constants,
)

onnx = pytest.importorskip("onnx")
pytestmark = needs_whole_sums

Array = npt.NDArray[Any]
CONFIG = preset("base")
WHERE = ("npu", "host", "both")
LEAST_TESTS = 17
ON_NPU = frozenset({"QLinearConv", "QLinearMatMul"})
ON_THE_HOST = frozenset(
    {"BatchNormalization", "ConvTranspose", "LayerNormalization", "PRelu", "Softmax"}
)
"""Of these ONNX has only tests that the host computes: the first and PRelu in other
forms are the NPU's."""
IN_THE_GOLDEN_MODEL = frozenset(
    {
        *("Add", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool"),
        *("MatMul", "MaxPool", "Mul", "Relu", "Reshape", "Transpose"),
    }
)
REFUSED_BY_ITSELF = {
    "test_convinteger_with_padding": "onnxruntime has no zero point a channel for it",
    **dict.fromkeys(
        (
            "test_averagepool_2d_dilations",
            *(
                f"test_averagepool_3d_dilations_{which}"
                for which in (
                    "small",
                    *(
                        f"large_count_include_pad_is_{counted}_ceil_mode_is_{ceil}"
                        for counted in (0, 1)
                        for ceil in (True, False)
                    ),
                )
            ),
        ),
        "onnxruntime fuses it to an operator without dilation, and refuses that",
    ),
}
"""Tests that the reference does not run, and why."""


def compared(model: bytes, inputs: Mapping[str, Array], wanted: list[Array], device: Device) -> str:
    """Run a model on a device, hold it to what it must be, and to the golden model if that has it.

    Returns
    -------
    str
        Where it ran: NPU, host or both.
    """
    program = compile_model(model, CONFIG)
    with Session(program, device) as session:
        found = session.run(
            {i.name: np.asarray(inputs[i.name]).reshape(i.shape) for i in program.inputs}
        ).outputs
    steps = int(any(UNPROVEN in layer.reason for layer in program.layers))
    values = golden_values(model, [inputs[info.name] for info in program.inputs])
    for info, expected in zip(program.outputs, wanted, strict=True):
        for other in (expected, values.get(info.name)):
            if other is not None:
                _equal(found[info.name], other, steps)
    kinds = {layer.runs_on for layer in program.layers if layer.op not in ("Input", "Output")}
    return "both" if len(kinds) > 1 else next(iter(kinds), "npu")


def golden_values(model: bytes, inputs: list[Array]) -> dict[str, Array]:
    """Return what the golden model computes; nothing if it does not have an operator."""
    try:
        return OnnxGolden(convert(model)).run(inputs)
    except UnsupportedModelError:
        return {}


def _equal(found: Array, wanted: Array, steps: int) -> None:
    got = found.reshape(np.shape(wanted))
    assert got.dtype == wanted.dtype
    if steps and got.dtype.kind in "iu":
        assert np.abs(got.astype(int) - wanted.astype(int)).max() <= steps
    else:
        np.testing.assert_array_equal(got, wanted)


def as_it_is(test: NodeTest, device: Device) -> str:
    """Run a test of a quantised operator."""
    names = [value.name for value in test.model.graph.input]
    given = dict(zip(names, test.inputs, strict=True))
    return compared(test.model.SerializeToString(), given, list(test.outputs), device)


def in_quantised_form(test: NodeTest, device: Device) -> str:
    """Run the quantised form of an operator in floating point."""
    model, given = quantised_form(test)
    proto = computable(onnx.load_model_from_string(model), "test")
    wanted = onnxruntime_results(proto.SerializeToString(), given)
    return compared(model, given, list(wanted.values()), device)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with open_device("emu", CONFIG) as opened:
        yield opened


def test_quantised_operators(device: Device) -> None:
    """Scales, zero points and weights as inputs, as they are, and as constants."""
    tests = quantised_tests()
    assert len(tests) >= LEAST_TESTS
    for test in tests:
        if test.name in REFUSED_BY_ITSELF:
            with pytest.raises(CelosiaError, match="refused the model"):
                as_it_is(test, device)
            continue
        assert as_it_is(test, device) == "host", test.name
        where = as_it_is(with_constants(test), device)
        if test.kind in ON_NPU and "3D" not in test.name:
            assert where == "npu", test.name


@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_an_operator_in_quantised_form(kind: str, device: Device) -> None:
    tests = [test for test in float_tests(kind) if test.name not in REFUSED_BY_ITSELF]
    where = [in_quantised_form(test, device) for test in tests]
    assert where
    assert ("npu" in where) == (kind not in ON_THE_HOST), where


@pytest.mark.parametrize("kind", sorted(IN_THE_GOLDEN_MODEL))
def test_the_golden_model_has_an_operator(kind: str) -> None:
    """So what is compared with it is compared."""
    forms = [quantised_form(test) for test in float_tests(kind)]
    assert any(golden_values(model, list(given.values())) for model, given in forms)


def main() -> int:
    """Run all on a device; print where they ran."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="emu", choices=("emu", "sim"))
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    print("| operator | tests | NPU | host | both |\n|---|--:|--:|--:|--:|")
    with open_device(arguments.device, CONFIG) as opened:
        ran: dict[str, Counter[str]] = {}
        for test in quantised_tests():
            if test.name not in REFUSED_BY_ITSELF:
                found = as_it_is(with_constants(test), opened)
                ran.setdefault(test.kind, Counter())[found] += 1
        for kind in FLOAT_KINDS:
            for test in float_tests(kind):
                if test.name not in REFUSED_BY_ITSELF:
                    ran.setdefault(kind, Counter())[in_quantised_form(test, opened)] += 1
    for kind, found in ran.items():
        total.update(found)
        row = (kind, sum(found.values()), *(found[name] for name in WHERE))
        print("| " + " | ".join(map(str, row)) + " |")
    row = ("all", sum(total.values()), *(total[name] for name in WHERE))
    print("| " + " | ".join(map(str, row)) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
