"""The same trained network takes as many cycles from an ONNX file as from a TFLite one::

python -m tests.e2e.test_onnx_twins
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.driver.device import Device
from celosia.sw.driver.opening import open_device
from celosia.sw.runtime.session import Session

from tests.kit.onnx_models import needs_whole_sums, onnxruntime_results
from tests.kit.onnx_twins import without_softmax
from tests.kit.places import benchmark_model
from tests.kit.tools import skip_without_simulator

pytestmark = needs_whole_sums

NETWORKS = ("ad01", "resnet8", "kws", "vww_96", "sww")
WITHIN = 0.02


def cycles_of(name: str, device: Device) -> tuple[int, int]:
    """Run both files of a network; return their cycles, without the Softmax.

    Raises
    ------
    AssertionError
        If the ONNX file's outputs are not onnxruntime's.
    """
    path = benchmark_model(name)
    model = without_softmax(load(path))
    found: list[int] = []
    for source in (path, model):
        program = compile_model(source, device.config)
        rng = np.random.default_rng(7)
        inputs = {
            info.name: rng.integers(-128, 128, info.shape).astype(np.int8)
            for info in program.inputs
        }
        with Session(program, device) as session:
            result = session.run(inputs)
        assert result.cycles is not None
        softmax = sum(one.predicted_cycles for one in program.layers if one.op == "SOFTMAX")
        found.append(result.cycles - softmax)
    for output, wanted in onnxruntime_results(model, inputs).items():
        np.testing.assert_array_equal(result.outputs[output], wanted)
    return found[0], found[1]


@pytest.mark.parametrize("name", ["ad01", "kws", "sww"])
def test_both_files_take_as_many_cycles(name: str) -> None:
    skip_without_simulator()
    with open_device("sim", preset("base")) as device:
        tflite, onnx = cycles_of(name, device)
    assert abs(onnx / tflite - 1) <= WITHIN, (tflite, onnx)


def main() -> int:
    """Run all networks on the RTL of two presets; print the cycles."""
    print("| network | TFLite, base | ONNX, base | TFLite, large | ONNX, large |")
    print("|---|--:|--:|--:|--:|")
    with open_device("sim", preset("base")) as base, open_device("sim", preset("large")) as large:
        for name in NETWORKS:
            found = (*cycles_of(name, base), *cycles_of(name, large))
            print(f"| {name} | " + " | ".join(f"{cycles:,}" for cycles in found) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
