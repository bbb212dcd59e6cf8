"""Variables of models of which a part runs on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.program.file import Program
from celosia.sw.program.segments import HostSegment
from celosia.sw.reference.check import check_model
from celosia.sw.report.samples import random_samples
from celosia.sw.runtime.interpreter import interpreter_installed
from celosia.sw.runtime.session import Session

from tests.kit.stateful_models import QUANTISED, joined, rows_of

pytestmark = pytest.mark.skipif(not interpreter_installed(), reason="nothing runs host segments")

CONFIG = preset("tiny")
SHAPE = (1, 8, 8, 16)
Outputs = Mapping[str, npt.NDArray[Any]]


def _values(seed: int, *shape: int) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-127, 128, shape, np.int8)


def _on_host(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    return b.operator("LOG_SOFTMAX", [x], x.shape, scale=16 / 256, zero_point=127)


def _convolution(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    weights = _values(9, 16, 3, 3, x.shape[-1])
    return b.conv2d(x, weights, w_scales=0.002, padding="SAME", **QUANTISED)


def _windows() -> bytes:
    """A window over time on each side of the host."""
    b = ModelBuilder()
    x = b.input((1, 3, 1, 16), **QUANTISED)
    for layer in range(2):
        kept = b.variable(_values(layer, 1, 5, 1, 16), name=f"kept {layer}", **QUANTISED)
        window = joined(b, [b.read_variable(kept), x])
        b.assign_variable(kept, rows_of(b, window, 3, 8))
        weights = _values(layer + 2, 16, 6, 1, 16)
        x = b.conv2d(window, weights, w_scales=0.002, padding="VALID", **QUANTISED)
        x = x if layer else _convolution(b, b.quantize(_on_host(b, x), **QUANTISED))
    return b.finish([x])


def _old_value() -> bytes:
    """What is assigned in front of the host, and needed behind it as it was before."""
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    kept = b.variable(_values(1, *SHAPE), **QUANTISED)
    old = b.read_variable(kept)
    y = _convolution(b, x)
    b.assign_variable(kept, y)
    return b.finish([b.add(_convolution(b, _on_host(b, y)), old, scale=0.3)])


def _of_host(*, needed: bool) -> bytes:
    """The host computes the next value, which the NPU may need in this inference, too."""
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    kept = b.variable(_values(1, *SHAPE), scale=16 / 256, zero_point=127)
    y = _convolution(b, b.add(x, b.read_variable(kept), **QUANTISED))
    z = _on_host(b, y)
    b.assign_variable(kept, z)
    return b.finish([_convolution(b, z if needed else y)])


def _constant() -> bytes:
    """The host reads what nothing assigns to."""
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    kept = b.variable(_values(1, *SHAPE), **QUANTISED)
    return b.finish([_convolution(b, x), _on_host(b, b.read_variable(kept))])


def _input() -> bytes:
    """What is assigned is the input, which no operator writes."""
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    kept = b.variable(_values(1, *SHAPE), **QUANTISED)
    old = b.read_variable(kept)
    b.assign_variable(kept, x)
    return b.finish([_on_host(b, _convolution(b, b.add(x, old, **QUANTISED)))])


@pytest.mark.parametrize(
    ("model", "variables", "places"),
    [
        (_windows, 2, "npu host npu"),
        (_old_value, 1, "npu host npu"),
        (lambda: _of_host(needed=False), 1, "npu host"),
        (lambda: _of_host(needed=True), 0, "host npu"),
        (_constant, 0, "host npu"),
        (_input, 0, "host npu host"),
    ],
    ids=["windows", "old value", "of the host", "of the host, needed", "constant", "input"],
)
def test_variables_outlast_the_inferences_of_a_divided_model(
    model: Callable[[], bytes], variables: int, places: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(model())
    program = Program.from_bytes(compile_model(path, CONFIG).to_bytes())
    assert len(program.persistent) == variables
    found = ["host" if isinstance(part, HostSegment) else "npu" for part in program.segments]
    assert found == places.split()
    steps = random_samples(program, 4, 1)
    with celosia.open("emu", CONFIG) as device, Session(program, device) as session:
        report = check_model(path, CONFIG, device, steps, program=program)
        assert report.equal, report.difference
        assert report.sources == ("reference interpreter",)
        for first in (0, 2):
            if first:
                session.reset()
            for step, expected in zip(steps, report.results, strict=True):
                _same(session.run(step).outputs, expected.outputs)
        if variables:
            session.restore(program.state)
            _same(session.run(steps[0]).outputs, report.results[0].outputs)


def _same(
    found: dict[str, npt.NDArray[np.int8]], expected: dict[str, npt.NDArray[np.int8]]
) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
