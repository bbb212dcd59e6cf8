"""The layer of every command: what the scheduler said is what is saved, and what readers say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.errors import ProgramError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Region
from celosia.hw.contract.regs import ErrorCause
from celosia.sw.compiler import build
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.faults import Fault, fault_error
from celosia.sw.driver.layout import Layout
from celosia.sw.program.file import Program
from celosia.sw.program.segments import NO_LAYER
from celosia.sw.report.example import load_digits

from tests.kit.places import benchmark_model
from tests.kit.random_models import random_network

NAMES = ("ad01", "kws", "resnet8", "sww", "vww_96")
PRESETS = ("tiny", "base", "large")


def compiled(
    model: Path | bytes, config: NpuConfig, monkeypatch: pytest.MonkeyPatch
) -> tuple[Program, list[str]]:
    """Return the program, read from its file, and the name of the layer of each command."""
    said: dict[int, list[str]] = {}
    schedule, emit = build.schedule_works, build.emit_program

    def spy(graph: Any, plan: Any, schedule: Any, commands: Any, *rest: Any, **named: Any) -> Any:
        # `Step.layer` is the number of a work, and a layer has the name of its work's output.
        names = {entry.work.index: entry.work.output for entry in plan.works}
        steps = schedule.steps
        program = emit(graph, plan, schedule, commands, *rest, **named)
        said[0] = [names[step.layer] for step in steps]
        assert [type(step.command) for step in steps] == [type(command) for command in commands]
        return program

    monkeypatch.setattr(build, "emit_program", spy)
    made = compile_model(model, config)
    monkeypatch.setattr(build, "emit_program", emit)
    assert build.schedule_works is schedule
    read = Program.from_bytes(made.to_bytes())
    assert read == made
    return read, said[0]


def assert_named_right(program: Program, names: list[str]) -> None:
    layout = Layout.of(program.npu, first=64, memory_bytes=1 << 26)
    for tag, name in enumerate(names):
        fault = Fault(cause=ErrorCause.ACT_RANGE, unit=0, tag=tag, address=0)
        said = re.search(r"layer '(.*?)' \(", str(fault_error(fault, program.npu, layout)))
        assert said is not None, tag
        assert said[1] == name, tag
    assert program.npu.command_layers[-1] == NO_LAYER
    assert program.npu.layer_of(len(names)) is None
    for number, layer in enumerate(program.layers):
        own = [tag for tag, owner in enumerate(program.npu.command_layers) if owner == number]
        assert (layer.first_tag, layer.last_tag) == ((own[0], own[-1]) if own else (-1, -1))


@pytest.mark.parametrize("config", PRESETS)
@pytest.mark.parametrize("name", NAMES)
def test_faults_name_the_layer_in_mlperf_tiny(
    name: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_named_right(*compiled(benchmark_model(name), preset(config), monkeypatch))


@pytest.mark.parametrize("config", ["nano", *PRESETS])
def test_faults_name_the_layer_in_the_example(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_named_right(*compiled(load_digits().model, preset(config), monkeypatch))


# The seeds between them make models that the compiler does not take.
@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 7, 8, 9, 11])
def test_faults_name_the_layer_in_random_networks(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_network(np.random.default_rng(seed)).model
    assert_named_right(*compiled(model, preset(("nano", "tiny", "base")[seed % 3]), monkeypatch))


def test_layers_that_do_not_fit_the_commands_are_refused() -> None:
    program = compile_model(load_digits().model, preset("nano"))
    layers = program.npu.command_layers
    with pytest.raises(ProgramError, match="entries of COMMAND_LAYERS"):
        Program.from_bytes(program.with_npu(command_layers=layers[:-1]).to_bytes())
    for wrong in (len(program.layers), -2):
        with pytest.raises(ProgramError, match=f"for layer {wrong}"):
            Program.from_bytes(program.with_npu(command_layers=(wrong, *layers[1:])).to_bytes())
    # Nobody knows: no layer is named, none is guessed.
    unknown = program.with_npu(command_layers=())
    layout = Layout.of(unknown.npu, first=64, memory_bytes=1 << 26)
    assert layout[Region.CODE].size
    fault = Fault(cause=ErrorCause.ACT_RANGE, unit=0, tag=1, address=0)
    assert "layer" not in fault_error(fault, unknown.npu, layout).what
