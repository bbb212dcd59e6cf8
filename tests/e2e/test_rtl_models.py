"""Whole models on the RTL: every tensor against the golden model and the reference interpreter.

What the tests do with a few inputs, this does with many::

    python -m tests.e2e.test_rtl_models --random 20
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.inputs import quantize_array
from celosia.sw.driver.sim import SimDevice
from celosia.sw.program.file import Program
from celosia.sw.reference.check import CheckReport, check_model
from celosia.sw.reference.interpreter import ReferenceModel
from celosia.sw.report.bench.record import read_record
from celosia.sw.report.samples import Sample, random_samples

from tests.kit.places import (
    DIGITS,
    FLOAT_INPUTS,
    KWS_INPUT,
    ROOT,
    SAMPLES,
    benchmark_input,
    benchmark_model,
)
from tests.kit.tools import needs_simulator

RECORD = read_record(ROOT / "docs/figures/cycles.json")
MODELS = {
    "nano": ("kws", "sww"),
    "tiny": ("kws", "sww", "ad01", "resnet8", "vww_96"),
    "base": ("kws", "sww", "ad01", "resnet8", "vww_96"),
    "wide": ("kws", "sww", "ad01", "resnet8", "vww_96"),
    "large": ("kws", "sww", "ad01", "resnet8", "vww_96"),
}
REAL_SAMPLES = 2
"""Of the models that have more; `main` takes all."""
RANDOM_SAMPLES = 2
FIRMWARE_SPREAD = 1.01
"""Cycles of an inference on the firmware machine, the most by the least."""
SEED = 2026
KWS_CLASS, KWS_CLASSES = 5, 12
SWW_RIGHT, SWW_SAMPLES = 41, 45

pytestmark = needs_simulator


def on(config: str) -> Any:
    """Return a configuration as a parameter of `device`; one process builds and keeps it."""
    return pytest.param(config, marks=pytest.mark.xdist_group(f"rtl-{config}"), id=config)


@pytest.fixture(scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[SimDevice]:
    """The RTL of a preset, built or from the cache."""
    with celosia.open("sim", request.param) as opened:
        assert isinstance(opened, SimDevice)
        yield opened


@pytest.fixture(autouse=True)
def ordinary_memory(device: SimDevice) -> None:
    """Begin every test with memory as the device opens with it."""
    from celosia.sim.rtl.rtl import MemoryModel

    device.rtl.set_memory_model(MemoryModel())


@cache
def program_of(path: Path, config: str) -> Program:
    # As the record measures it: all weights come with each run.
    return compile_model(path, preset(config), resident=False)


def real_samples(name: str, program: Program) -> list[Sample]:
    """Return what real inputs of a benchmark model there are, made as the data's README says."""
    info = program.inputs[0]
    if name == "kws":
        batch = np.load(KWS_INPUT)
    elif not FLOAT_INPUTS.is_dir():
        return []
    elif name == "sww":
        batch = quantize_array(info, np.load(benchmark_input("sww_specs_float.npz"))["specs"])
    elif name == "ad01":
        batch = quantize_array(info, np.load(benchmark_input("ad_windows_float.npy")))
    elif name == "vww_96":
        grey = np.load(benchmark_input("vww_gray_float.npy")).reshape(96, 96, 1)
        batch = quantize_array(info, (np.repeat(grey, 3, axis=2) + 1) / 2)
    else:
        return []  # resnet8 comes without inputs
    assert batch.dtype == np.int8
    return [{info.name: sample} for sample in batch.reshape(-1, *info.shape)]


def check(
    name: str, path: Path, config: str, device: SimDevice, samples: list[Sample]
) -> CheckReport:
    """Run samples on the plain and the instrumented program; assert that nothing differs.

    The first sample is run again at the end, on a slow memory that stalls.
    """
    from celosia.sim.rtl.rtl import MemoryModel

    def slow_memory(done: int) -> None:
        if done == len(samples):
            device.rtl.set_memory_model(
                MemoryModel(
                    latency_cycles=23, stall_probability=0.3, delay_probability=0.2, seed=SEED
                )
            )

    program = program_of(path, config)
    assert {layer.runs_on for layer in program.layers} == {"npu"}
    report = check_model(
        path,
        preset(config),
        device,
        [*samples, samples[0]],
        program=program,
        progress=slow_memory,
    )
    assert report.equal, f"{name} at {config}: {report.difference}"
    operators = len(ReferenceModel(path, interpreter=False).operators)
    assert report.tensors + len(report.absent) == operators
    # What is folded away is a pad or a reshape or two, never the bulk of a network.
    assert len(report.absent) <= operators // 4, report.absent
    assert device.rtl.statistics.violations == 0
    *cycles, slow_cycles = (result.cycles or 0 for result in report.results)
    assert len(cycles) == len(samples)
    # Firmware takes another way for a value that is negative, or beyond a limit.
    spread = FIRMWARE_SPREAD if preset(config).firmware else 1
    assert max(cycles) <= spread * min(cycles), f"cycles depend on the data: {cycles}"
    assert slow_cycles > cycles[0] > 0
    recorded = RECORD.cycles(path.stem, config)
    assert recorded / spread <= cycles[0] <= recorded * spread, (
        f"{cycles[0]:,} cycles, the documents say {recorded:,}: celosia bench --config {config}"
        " --record docs/figures/cycles.json, then make docs"
    )
    return report


@pytest.mark.parametrize(
    ("device", "config", "name"),
    [
        pytest.param(config, config, name, marks=pytest.mark.xdist_group(f"rtl-{config}"))
        for config, names in MODELS.items()
        for name in names
    ],
    indirect=["device"],
    ids=lambda value: str(value),
)
def test_every_tensor_of_a_benchmark_model_is_exact(
    device: SimDevice, config: str, name: str
) -> None:
    path = benchmark_model(name)
    program = program_of(path, config)
    samples = real_samples(name, program)[:REAL_SAMPLES]
    samples += random_samples(program, RANDOM_SAMPLES, SEED)
    check(name, path, config, device, samples)


@pytest.mark.parametrize("device", [on(config) for config in MODELS], indirect=True)
def test_keyword_is_recognised(device: SimDevice) -> None:
    program = program_of(benchmark_model("kws"), device.config.name)
    (sample,) = real_samples("kws", program)
    scores = device.run(program, sample).output.reshape(-1)
    expected = np.full(KWS_CLASSES, -128, np.int8)
    expected[KWS_CLASS] = 127
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("device", [on("tiny")], indirect=True)
def test_wake_words_are_recognised_as_by_the_reference(device: SimDevice) -> None:
    path = benchmark_model("sww")
    program = program_of(path, device.config.name)
    reference = ReferenceModel(path, interpreter=False)
    labels = np.load(benchmark_input("sww_specs_float.npz"))["labels"]
    samples = real_samples("sww", program)
    assert len(samples) == len(labels) == SWW_SAMPLES
    right = 0
    for sample, label in zip(samples, labels, strict=True):
        scores = device.run(program, sample).output
        (expected,) = reference.run(sample)
        wanted: npt.NDArray[Any] = expected.tensors[program.outputs[0].name]
        np.testing.assert_array_equal(scores, wanted)
        right += int(scores.argmax()) == int(label)
    assert right == SWW_RIGHT


@pytest.mark.parametrize("device", [on(config) for config in MODELS], indirect=True)
def test_shipped_example_is_exact(device: SimDevice) -> None:
    program = program_of(DIGITS, device.config.name)
    info = program.inputs[0]
    with np.load(SAMPLES) as content:
        inputs, labels = content["inputs"], content["labels"]
    samples = [{info.name: image.reshape(info.shape)} for image in inputs]
    report = check("digits", DIGITS, device.config.name, device, samples)
    right = sum(
        int(result.output.argmax()) == int(label)
        for result, label in zip(report.results[: len(labels)], labels, strict=True)
    )
    assert right >= len(labels) - 1  # the network is wrong about one of its samples


def main() -> int:
    """Check all real inputs and many random ones; return the process's exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--random", type=int, default=20, help="random inputs of each model")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--configs", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--models", nargs="+", default=list(MODELS["base"]))
    options = parser.parse_args()
    failures = 0
    for config in options.configs:
        with celosia.open("sim", config) as opened:
            assert isinstance(opened, SimDevice)
            for name in (name for name in MODELS[config] if name in options.models):
                started = time.monotonic()
                path = benchmark_model(name)
                program = program_of(path, config)
                samples = real_samples(name, program)
                samples += random_samples(program, options.random, options.seed)
                report = check_model(path, preset(config), opened, samples, program=program)
                failures += not report.equal
                print(
                    f"{config:6} {name:8} {len(report.results):3} inputs, {report.tensors} tensors"
                    f" each, {report.results[0].cycles or 0:,} cycles:"
                    f" {report.difference or 'all equal'}"
                    f" ({time.monotonic() - started:.0f} s)",
                    flush=True,
                )
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
