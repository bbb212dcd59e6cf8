"""Many inferences at once: equal to one after the other, whatever the program does.

The campaign::

    python -m tests.sw.runtime.test_many 0 300
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import celosia
import numpy as np
import pytest
from celosia.errors import CompileError, UnsupportedError
from celosia.hw.contract.isa import Region
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.device import Device
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.program.verify import check_program
from celosia.sw.report.samples import random_samples
from celosia.sw.runtime.interpreter import interpreter_installed
from celosia.sw.runtime.session import Session

from tests.kit.divided import divided_model
from tests.kit.graph_runs import MEMORY_BYTES
from tests.kit.machines import MACHINES
from tests.kit.places import benchmark_model
from tests.kit.random_graphs import random_graph

SIX = ("small4", "small8", "nano", "tiny", "base", "large")
SAMPLES = 3


def one_by_one(
    program: Program, device: Device, samples: Sequence[Mapping[str, Any]]
) -> list[Result]:
    with Session(program, device) as session:
        return [session.run(sample) for sample in samples]


def assert_same(many: Sequence[Result], single: Sequence[Result], what: str) -> None:
    assert len(many) == len(single)
    for number, (got, want) in enumerate(zip(many, single, strict=True)):
        for tensors, wanted in ((got.outputs, want.outputs), (got.tensors, want.tensors)):
            assert list(tensors) == list(wanted)
            for name, values in tensors.items():
                np.testing.assert_array_equal(values, wanted[name], f"{what} {number} {name}")
                assert values.dtype == wanted[name].dtype
        assert [part.name for part in got.segments] == [part.name for part in want.segments]


def check_graph(seed: int) -> str:
    """Compare a random graph's runs; return how it came out."""
    config = MACHINES[SIX[seed % len(SIX)]]
    graph = random_graph(np.random.default_rng(seed))
    try:
        program = compile_model(graph.model, config, keep_tensors=seed % 3 == 0, host="refuse")
    except (CompileError, UnsupportedError):
        return "refused"
    names = [info.name for info in program.inputs]
    samples = [dict(zip(names, graph.inputs, strict=True))]
    samples += random_samples(program, SAMPLES - 1, seed)
    with celosia.open("emu", config, memory_bytes=MEMORY_BYTES) as device:
        single = one_by_one(program, device, samples)
        with Session(program, device) as session:
            assert_same(list(session.run_many(samples)), single, f"seed {seed}, sample")
    return "sequence" if program.persistent else "equal"


def test_random_graphs_run_many_at_once_as_one_by_one() -> None:
    found = [check_graph(seed) for seed in range(8)]
    assert found.count("equal") >= 4
    assert "sequence" in found


@pytest.mark.parametrize("name", ["kws"])
def test_benchmark_models_in_groups(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of full and of smaller size, and what is left of the group before is not read."""
    monkeypatch.setattr("celosia.sim.emulator.groups.MOST_SAMPLES", 4)
    program = compile_model(benchmark_model(name), MACHINES["base"])
    samples = random_samples(program, 9, 3)
    with celosia.open("emu", program.config) as device, Session(program, device) as session:
        assert device.samples_at_once(program.npu) == 4
        many = list(session.run_many(samples))
        assert_same(many, one_by_one(program, device, samples), name)
        # Samples differ, or nothing would be seen.
        assert len({result.output.tobytes() for result in many}) > 1


def test_what_runs_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    program = compile_model(divided_model(), MACHINES["base"], host="allow")
    segment = program.npu_segments[0]
    with celosia.open("emu", program.config) as device:
        assert device.samples_at_once(segment) == 128
        # The activation SRAM alone is 64 KiB of every sample.
        monkeypatch.setattr("celosia.sim.emulator.groups.GROUP_BYTES", 1 << 18)
        assert 1 <= device.samples_at_once(segment) <= 3
        monkeypatch.setattr("celosia.sim.emulator.groups.GROUP_BYTES", 1)
        assert device.samples_at_once(segment) == 1


def test_a_tensor_beside_the_constants_is_found_there() -> None:
    """No compiler writes such a program; a file may hold it, and it passes the check."""
    program = compile_model(benchmark_model("kws"), MACHINES["base"])
    output = replace(program.npu.outputs[0], region=Region.CONST.name, offset=0)
    program = program.with_npu(outputs=(output,))
    check_program(program)
    samples = random_samples(program, 3, 0)
    with celosia.open("emu", program.config) as device:
        single = one_by_one(program, device, samples)
        with Session(program, device) as session:
            assert_same(list(session.run_many(samples)), single, "sample")


@pytest.mark.skipif(not interpreter_installed(), reason="needs TFLite's interpreter")
def test_a_divided_program_runs_many_at_once() -> None:
    program = compile_model(divided_model(), MACHINES["base"])
    assert program.host_segments
    samples = random_samples(program, 3, 0)
    with celosia.open("emu", program.config) as device:
        single = one_by_one(program, device, samples)
        with Session(program, device) as session:
            assert_same(list(session.run_many(samples)), single, "sample")


def test_samples_of_a_batch_that_run_one_by_one() -> None:
    """A program of several samples a run, whose segments run once for each."""
    program = compile_model(benchmark_model("resnet8"), MACHINES["base"], batch=2)
    assert program.runs == 2
    samples = random_samples(program, 2, 0)
    with celosia.open("emu", program.config) as device:
        single = one_by_one(program, device, samples)
        with Session(program, device) as session:
            assert_same(list(session.run_many(samples)), single, "run")


if __name__ == "__main__":
    for number in range(*map(int, sys.argv[1:])):
        print(number, check_graph(number), flush=True)
