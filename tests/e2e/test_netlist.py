"""The netlist of `nano` after synthesis, simulated: the same tensors in as many cycles as the RTL.

`main` runs more models and inputs::

    python -m tests.e2e.test_netlist --models kws sww --random 2
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import celosia
import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sim.rtl import netlist
from celosia.sim.rtl.netlist import build_netlist, missing_netlist_tools
from celosia.sim.rtl.rtl import MemoryModel
from celosia.sw.cli.app import app
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.netlist import NetlistDevice
from celosia.sw.driver.result import Result
from celosia.sw.driver.sim import SimDevice
from celosia.sw.program.file import Program
from celosia.sw.reference.check import check_model
from celosia.sw.report.samples import Sample, random_samples
from celosia.toolchain import BuildError
from typer.testing import CliRunner

from tests.kit.places import DIGITS, SAMPLES, benchmark_model

CONFIG = "nano"
SEED = 2026
UNSTEADY = MemoryModel(latency_cycles=25, stall_probability=0.3, delay_probability=0.2, seed=SEED)

MISSING = missing_netlist_tools()
needs_tools = pytest.mark.skipif(bool(MISSING), reason=MISSING or "all tools are there")
on_netlist = pytest.mark.xdist_group("netlist")


@pytest.fixture(scope="module")
def devices() -> Iterator[tuple[NetlistDevice, SimDevice]]:
    """The netlist, built or from the cache, and the RTL."""
    with celosia.open("netlist", CONFIG) as gates, celosia.open("sim", CONFIG) as rtl:
        assert isinstance(gates, NetlistDevice)
        assert isinstance(rtl, SimDevice)
        yield gates, rtl


def compare(
    path: Path, program: Program, devices: tuple[NetlistDevice, SimDevice], samples: list[Sample]
) -> Result:
    """Assert that nothing differs; return what the netlist made of the first sample."""
    gates, rtl = devices
    report = check_model(path, preset(CONFIG), gates, samples, program=program)
    assert report.equal, str(report.difference)
    for sample, found in zip(samples, report.results, strict=True):
        expected = rtl.run(program, sample)
        assert found.cycles == expected.cycles
        assert found.counters == expected.counters
        for name, values in expected.outputs.items():
            np.testing.assert_array_equal(found.outputs[name], values)
    assert gates.rtl.statistics.violations == 0
    return report.results[0]


@needs_tools
@on_netlist
def test_shipped_example_is_exact(devices: tuple[NetlistDevice, SimDevice]) -> None:
    program = compile_model(DIGITS, preset(CONFIG))
    info = program.inputs[0]
    with np.load(SAMPLES) as content:
        images, labels = content["inputs"], content["labels"]
    samples: list[Sample] = [{info.name: images[0].reshape(info.shape)}]
    output = compare(DIGITS, program, devices, samples).output
    assert int(output.argmax()) == int(labels[0])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A model that takes the netlist a moment only: convolution, table look-up, softmax."""
    rng = np.random.default_rng(SEED)
    builder = ModelBuilder()
    x = builder.input((1, 5, 5, 3), scale=0.05, zero_point=-3)
    weights = rng.integers(-127, 128, (6, 3, 3, 3), np.int8)
    y = builder.conv2d(x, weights, scale=0.2, zero_point=4, w_scales=0.01)
    y = builder.logistic(y)
    y = builder.reshape(y, (1, 150))
    path = tmp_path / "small.tflite"
    path.write_bytes(builder.finish([builder.softmax(y)]))
    return path


@needs_tools
@on_netlist
def test_memory_that_stalls(devices: tuple[NetlistDevice, SimDevice], small: Path) -> None:
    program = compile_model(small, preset(CONFIG))
    samples = random_samples(program, 2, SEED)
    steady = compare(small, program, devices, samples).cycles
    for device in devices:
        device.rtl.set_memory_model(UNSTEADY)
    unsteady = compare(small, program, devices, samples).cycles
    for device in devices:
        device.rtl.set_memory_model(MemoryModel())
    assert steady is not None
    assert unsteady is not None
    assert unsteady > steady


@needs_tools
@on_netlist
def test_what_is_simulated_is_cells(devices: tuple[NetlistDevice, SimDevice]) -> None:
    """No process and no operator is left: nothing but cells of the FPGA, and wires."""
    source = (build_netlist(preset(CONFIG)).library.parent / "npu.v").read_text()
    top = re.search(r"^module npu\(.*?^endmodule", source, re.M | re.S)
    assert top is not None
    cells = re.findall(r"^  (\w+) (?:#\(|_\d+_ \()", top[0], re.M)
    assert len(cells) > 1000
    kinds = set(cells)
    assert kinds >= {"SB_LUT4", "SB_RAM40_4K", "SB_MAC16"}
    assert all(kind.startswith("SB_") for kind in kinds)
    assert "always" not in top[0]
    assigned = [line.partition(" = ")[2] for line in top[0].splitlines() if "assign " in line]
    assert assigned
    assert not any(set("-+*&|^?~") & set(value) for value in assigned)


@needs_tools
@on_netlist
def test_a_command_runs_on_it(
    devices: tuple[NetlistDevice, SimDevice], small: Path, tmp_path: Path
) -> None:
    target = tmp_path / "run.json"
    arguments = ["--config", CONFIG, "--device", "netlist", "--latency", "3", "--check"]
    result = CliRunner().invoke(app, ["run", str(small), *arguments, "--json", str(target)])
    assert result.exit_code == 0, result.output
    assert "small on netlist, configuration nano" in result.output
    assert "tensors equal" in result.output
    figures = json.loads(target.read_text(encoding="utf-8"))
    assert figures["equal"] is True
    assert figures["device"] == "netlist"


def test_a_missing_tool_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = pytest.importorskip("celosia.boards.fpga.tools")
    monkeypatch.setattr(tools, "YOSYS", ("no-such-yosys",))
    with pytest.raises(BuildError, match=r"no-such-yosys is not installed.*pip install"):
        celosia.open("netlist", CONFIG)
    assert "no-such-yosys" in missing_netlist_tools()


def test_missing_cell_models_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yosys = tmp_path / "bin" / "yosys"
    monkeypatch.setattr(netlist, "_find_yosys", lambda title: str(yosys))
    with pytest.raises(BuildError, match=r"has no cells_sim\.v.*share/yosys"):
        celosia.open("netlist", CONFIG)


def main() -> int:
    """Compare several models; return the process's exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", default=["kws", "sww"])
    parser.add_argument("--random", type=int, default=1, help="random inputs of each model")
    options = parser.parse_args()
    with celosia.open("netlist", CONFIG) as gates, celosia.open("sim", CONFIG) as rtl:
        assert isinstance(gates, NetlistDevice)
        assert isinstance(rtl, SimDevice)
        for name in options.models:
            path = benchmark_model(name)
            program = compile_model(path, preset(CONFIG))
            started = time.monotonic()
            samples = random_samples(program, options.random, SEED)
            cycles = compare(path, program, (gates, rtl), samples).cycles or 0
            seconds = time.monotonic() - started
            print(f"{name:8} {cycles:,} cycles, all equal ({seconds:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
