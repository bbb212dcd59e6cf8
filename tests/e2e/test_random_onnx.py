"""Random ONNX graphs: every output equals onnxruntime's. The campaign::

python -m tests.e2e.test_random_onnx --seeds 0 200
python -m tests.e2e.test_random_onnx --seeds 0 50 --device sim
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.ir import UNPROVEN
from celosia.sw.driver.device import Device
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.runtime.session import Session

from tests.kit.onnx_models import needs_whole_sums, onnxruntime_results
from tests.kit.random_onnx import random_onnx
from tests.kit.tools import skip_without_simulator

pytestmark = needs_whole_sums

Array = npt.NDArray[Any]
SOUND = ("equal", "a step away where that is foreseen")
MOST_FORESEEN = 1 / 16
"""Of the outputs' elements: what a step on the way may change."""
CONFIGS = ("nano", "tiny", "base", "large")


def different(
    program: Program, device: Device, model: bytes, inputs: Mapping[str, Array]
) -> tuple[int, int]:
    """Run a model; return how many elements of its outputs are not onnxruntime's, of how many."""
    given = {info.name: inputs[info.name] for info in program.inputs}
    with Session(program, device) as session:
        found = session.run(given).outputs
    wanted = onnxruntime_results(model, inputs)
    wrong = sum(int(np.count_nonzero(found[name] != value)) for name, value in wanted.items())
    return wrong, sum(value.size for value in wanted.values())


def run_seed(seed: int, device: Device) -> tuple[str, str]:
    """Run the graph of a seed; return what came of it, and what there is to say."""
    graph = random_onnx(np.random.default_rng(seed))
    said = " ".join(graph.kinds)
    try:
        program = compile_model(graph.model, device.config)
        wrong, elements = different(program, device, graph.model, graph.inputs)
        unproven = any(UNPROVEN in layer.reason for layer in program.layers)
        if unproven and 0 < wrong <= max(1, elements * MOST_FORESEEN):
            program = compile_model(graph.model, device.config, exact=True)
            if not different(program, device, graph.model, graph.inputs)[0]:
                return SOUND[1], said
    except CelosiaError as error:
        return "REFUSED", f"{said}: {error}"
    except Exception as error:
        return "TRACEBACK", f"{said}: {type(error).__name__}: {error}"
    return ("WRONG", f"{said}: {wrong} elements differ") if wrong else (SOUND[0], said)


def run_seeds(seeds: range, configs: tuple[str, ...], kind: str = "emu") -> Counter[str]:
    """Run seeds, each on one of the configurations; print and raise what is wrong."""
    total: Counter[str] = Counter()
    faults: list[str] = []
    devices = {name: open_device(kind, preset(name)) for name in configs}
    try:
        for seed in seeds:
            name = configs[seed % len(configs)]
            outcome, text = run_seed(seed, devices[name])
            total[outcome] += 1
            if outcome not in SOUND:
                faults.append(f"seed {seed}, {name}: {outcome}: {text}")
                print(faults[-1], flush=True)
    finally:
        for device in devices.values():
            device.close()
    assert not faults, "\n".join(faults)
    return total


def test_random_onnx_graphs_equal_onnxruntime() -> None:
    total = run_seeds(range(40), CONFIGS)
    assert total[SOUND[0]] >= 30, dict(total)


def test_random_onnx_graphs_equal_onnxruntime_on_the_rtl() -> None:
    skip_without_simulator()
    total = run_seeds(range(100, 108), ("base",), "sim")
    assert total[SOUND[0]] >= 4, dict(total)


def main() -> int:
    """Run many seeds and say what came of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 200), metavar=("A", "B"))
    parser.add_argument("--config", nargs="*", default=CONFIGS, choices=CONFIGS)
    parser.add_argument("--device", default="emu", choices=["emu", "sim"])
    options = parser.parse_args()
    try:
        total = run_seeds(range(*options.seeds), tuple(options.config), options.device)
    except AssertionError:
        return 1
    print(dict(total))
    return 0


if __name__ == "__main__":
    sys.exit(main())
