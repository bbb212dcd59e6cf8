"""Waveforms of the RTL: they name what the trace port says, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from celosia.errors import DeviceError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Engine
from celosia.hw.contract.trace import TAG_BITS, TRACE_STATES
from celosia.sim.rtl.rtl import NAME_BYTES
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.result import Result
from celosia.sw.driver.sim import SimDevice
from celosia.sw.program.file import Program
from celosia.sw.report.labels import command_label, layer_label
from celosia.sw.report.samples import random_samples
from celosia.sw.report.waves import Waveform, plan_waveform

from tests.kit.command_line import run_cli
from tests.kit.tools import skip_without_simulator
from tests.kit.waves import Changes, read_fst, read_vcd

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples/digits/digits_int8.tflite"
CONFIG = "tiny"
MEMORY_BYTES = 1 << 20
LAYER = "#1 DEPTHWISE_CONV_2D"
pytestmark = pytest.mark.xdist_group("rtl-tiny")


@pytest.fixture(scope="module")
def program() -> Program:
    skip_without_simulator()
    return compile_model(MODEL, preset(CONFIG))


class Traced:
    """A run in which a layer in the middle was written, and what the trace port showed."""

    def __init__(self, program: Program, path: Path) -> None:
        self.waveform: Waveform = plan_waveform(program, path, "1", LAYER)
        sample = random_samples(program, 1, 0)[0]
        with SimDevice(
            program.config, memory_bytes=MEMORY_BYTES, trace=self.waveform, profile=True
        ) as device:
            self.result: Result = device.run(program, sample)
            size = path.stat().st_size
            device.run(program, sample)  # only the first run is written
            assert device.samples is not None
            runs = device.profiles[0]
        assert path.stat().st_size - size < 1_000_000, "what was buffered"
        self.tags = np.repeat(runs["tags"], runs["cycles"], axis=0)
        self.state = np.repeat(runs["state"], runs["cycles"])
        self.sample = sample

    def bit(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return (self.state >> TRACE_STATES.index(name) & 1).astype(bool)


@pytest.fixture(scope="module")
def traced(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return Traced(program, tmp_path_factory.mktemp("waves") / "digits.vcd")


@pytest.fixture(scope="module")
def changes(traced: Traced) -> Changes:
    return read_vcd(traced.waveform.path)


def cycle_by_cycle(changes: list[tuple[int, int]], begin: int, end: int) -> Iterator[int]:
    """Yield a signal's value in every cycle from `begin` to `end`, both included."""
    place = -1
    for cycle in range(begin, end + 1):
        while place + 1 < len(changes) and changes[place + 1][0] <= cycle:
            place += 1
        yield changes[place][1]


def as_text(value: int) -> str:
    return value.to_bytes(NAME_BYTES).lstrip(b"\0").decode()


def window(program: Program, traced: Traced) -> tuple[int, int]:
    """Return the cycles that must be there, from what the trace port has shown."""
    segment = program.npu_segments[0]
    own = [segment.layers.index(layer) for layer in traced.waveform.layers]
    wanted = [tag for tag, layer in enumerate(segment.command_layers) if layer in own]
    active, busy = (
        np.stack([traced.bit(f"{engine.name.lower()}_{kind}") for engine in Engine], axis=1)
        for kind in ("active", "busy")
    )
    theirs = np.isin(traced.tags, wanted)
    first = int(np.flatnonzero((theirs & active).any(axis=1))[0])
    last = int(np.flatnonzero((theirs & busy).any(axis=1))[-1])
    return first, last + 1  # when it is seen that the last one is complete


def test_a_traced_run_is_the_run(program: Program, traced: Traced) -> None:
    with SimDevice(program.config, memory_bytes=MEMORY_BYTES) as device:
        plain = device.run(program, traced.sample)
    assert traced.result.cycles == plain.cycles
    assert traced.result.counters == plain.counters
    np.testing.assert_array_equal(traced.result.output, plain.output)


def test_signals_name_layer_and_command_of_every_cycle(
    program: Program, traced: Traced, changes: Changes
) -> None:
    segment = program.npu_segments[0]
    commands = segment.decode()
    begin, end = window(program, traced)
    times = [time for entry in changes.values() for time, _ in entry]
    assert (min(times), max(times)) == (begin, end)
    assert 0 < begin < end < len(traced.state) - 1000, "a layer in the middle"
    cycles = range(begin, end + 1)
    seen: set[str] = set()
    for engine in Engine:
        name = engine.name.lower()
        active = traced.bit(f"{name}_active")[begin : end + 1]
        tags = traced.tags[begin : end + 1, engine]
        for signal, label in (
            ("command", [command_label(command) for command in commands]),
            ("layer", [layer_label(segment.layers[i]) for i in segment.command_layers[:-1]] + [""]),
        ):
            expected = [label[t] if a else "" for t, a in zip(tags, active, strict=True)]
            got = cycle_by_cycle(changes[f"celosia.{name}.{signal}"], begin, end)
            assert [as_text(value) for value in got] == expected, f"{name} {signal}"
            seen |= {name} if len(set(expected)) > 1 else set()
        own = [state for state in TRACE_STATES if state.startswith(f"{name}_")]
        for state in own:
            got = cycle_by_cycle(
                changes[f"celosia.{name}.{state.removeprefix(f'{name}_')}"], begin, end
            )
            np.testing.assert_array_equal(list(got), traced.bit(state)[begin : end + 1])
    assert seen >= {"load", "array", "vector"}, "their commands change"
    # The RTL's own signals are those of the same cycles.
    got = cycle_by_cycle(changes["npu.trace__state"], begin, end)
    assert list(got) == [int(traced.state[cycle]) for cycle in cycles]
    got = cycle_by_cycle(changes["npu.trace__tags"], begin, end)
    assert list(got) == [
        sum(int(tag) << TAG_BITS * place for place, tag in enumerate(traced.tags[cycle]))
        for cycle in cycles
    ]


def test_the_layer_is_the_first_that_is_not_complete(
    program: Program, traced: Traced, changes: Changes
) -> None:
    segment = program.npu_segments[0]
    begin, end = window(program, traced)
    done = np.zeros(len(segment.layers), np.int64)
    for engine in Engine:
        busy = np.flatnonzero(traced.bit(f"{engine.name.lower()}_busy"))
        layers = np.array(segment.command_layers)[traced.tags[busy, engine]]
        np.maximum.at(done, layers, busy + 1)
    expected = []
    for cycle in range(begin, end + 1):
        layer = next(place for place, when in enumerate(done) if when > cycle)
        expected.append(layer_label(segment.layers[layer]))
    got = cycle_by_cycle(changes["celosia.layer"], begin, end)
    assert [as_text(value) for value in got] == expected
    assert len(set(expected)) >= 2


def test_fst_says_the_same(program: Program, traced: Traced, changes: Changes) -> None:
    path = traced.waveform.path.with_name("digits_too.fst")
    result = run_cli(
        *("run", MODEL, "--config", CONFIG, "--random", 1, "--trace", path),
        *("--from", 1, "--to", LAYER),
    )
    assert result.exit_code == 0, result.output
    assert f"digits_too.fst: layer {LAYER}, about" in result.output.replace("\n", "")
    packed = read_fst(path)
    assert packed.keys() == changes.keys()
    different = [name for name, entry in packed.items() if entry != changes[name]]
    assert not different, f"{len(different)} of {len(packed)}, for example {different[0]}"
    assert 5 * path.stat().st_size < traced.waveform.path.stat().st_size


def test_the_signal_list_names_signals_that_are_there(traced: Traced, changes: Changes) -> None:
    text = traced.waveform.list_path.read_text(encoding="ascii")
    lines = text.splitlines()
    assert f'[dumpfile] "{traced.waveform.path.name}"' in lines
    signals = [line.split(" ")[-1] for line in lines if not line.startswith(("@", "-", "[", "*"))]
    assert len(signals) > 60
    assert {signal.split("[")[0] for signal in signals} <= changes.keys()
    for group in (*(engine.name.lower() for engine in Engine), "bus", "dispatcher", "counters"):
        assert lines.count(f"-{group}") == 2, "it begins and ends"


def test_a_run_that_fails_leaves_a_whole_file(program: Program, tmp_path: Path) -> None:
    waveform = plan_waveform(program, tmp_path / "failed.vcd")
    with pytest.raises(DeviceError, match="watchdog"):
        with SimDevice(
            program.config, memory_bytes=MEMORY_BYTES, trace=waveform, watchdog_cycles=600
        ) as device:
            device.run(program, random_samples(program, 1, 0)[0])
    found = read_vcd(waveform.path)
    assert 500 < max(time for entry in found.values() for time, _ in entry) < 700
    assert waveform.list_path.is_file()


def test_a_run_that_ends_before_its_layers_leaves_none(program: Program, tmp_path: Path) -> None:
    waveform = plan_waveform(program, tmp_path / "none.vcd", "SOFTMAX")
    with pytest.raises(DeviceError, match="watchdog"):
        with SimDevice(
            program.config, memory_bytes=MEMORY_BYTES, trace=waveform, watchdog_cycles=600
        ) as device:
            device.run(program, random_samples(program, 1, 0)[0])
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_ends_the_run(program: Program, tmp_path: Path) -> None:
    waveform = plan_waveform(program, tmp_path / "full.vcd")
    waveform.path.symlink_to("/dev/full")
    with pytest.raises(DeviceError, match=r"full\.vcd: No space left on device"):
        with SimDevice(program.config, memory_bytes=MEMORY_BYTES, trace=waveform) as device:
            device.run(program, random_samples(program, 1, 0)[0])
