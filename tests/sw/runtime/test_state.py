"""Models with variables on devices: many steps, saving and restoring, sharing, failing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import CompileError, DeviceError, InputError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Region
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.driver.device import Device
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.driver.uart.device import UartDevice
from celosia.sw.program.file import Program
from celosia.sw.reference.check import check_model
from celosia.sw.report.samples import Sample, random_samples
from celosia.sw.runtime.session import Session

from tests.kit.command_line import run_cli
from tests.kit.device_machine import emulated_board
from tests.kit.places import SHARED
from tests.kit.stateful_models import STATEFUL, window_model
from tests.kit.tools import needs_simulator

CONFIG = preset("tiny")
STEPS = {"window": 50}
"""Of a model in the comparison with the reference; of the others a few."""
WAKE_WORDS = ("esphome.v2_hey_jarvis", "esphome.v2_choo_choo_homie")
Outputs = list[npt.NDArray[Any]]


@pytest.fixture(scope="module")
def program() -> Program:
    return Program.from_bytes(celosia.compile(window_model(), CONFIG).to_bytes())


@pytest.fixture
def emu() -> Iterator[Device]:
    with celosia.open("emu", CONFIG) as opened:
        yield opened


@pytest.fixture(scope="module")
def steps(program: Program) -> list[Sample]:
    return random_samples(program, 8, 3)


@pytest.fixture(scope="module")
def expected(program: Program, steps: list[Sample]) -> Outputs:
    """What the steps give; `test_many_steps_equal_the_reference` says that it is right."""
    with celosia.open("emu", CONFIG) as device:
        outputs = run(Session(program, device), steps)
    assert len({output.tobytes() for output in outputs}) > 1
    return outputs


def run(session: Session, steps: list[Sample]) -> Outputs:
    return [session.run(step).output for step in steps]


def assert_equal(got: Outputs, wanted: Outputs) -> None:
    np.testing.assert_array_equal(np.stack(got), np.stack(wanted))


@pytest.mark.parametrize("kind", STATEFUL)
def test_many_steps_equal_the_reference(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.tflite"
    path.write_bytes(STATEFUL[kind]())
    with celosia.open("emu", CONFIG) as device:
        report = check_steps(path, device, STEPS.get(kind, 6))
    assert report.program.npu.exchanges
    assert len(report.state) == len(report.program.persistent) > 0


def check_steps(path: Path, device: Device, steps: int) -> Any:
    program = celosia.compile(path, device.config)
    samples = random_samples(program, steps, 0)
    report = check_model(path, device.config, device, samples, program=program)
    assert report.equal, report.difference
    assert report.unconfirmed is None
    assert len(report.results) == steps
    return report


@pytest.mark.parametrize("name", WAKE_WORDS)
def test_wake_words_of_the_field(name: str) -> None:
    path = SHARED / f"models/field/{name}.tflite"
    if not path.is_file():
        pytest.skip("needs ../shared/models/field")
    with celosia.open("emu", CONFIG) as device:
        report = check_steps(path, device, 3)
    assert {layer.runs_on for layer in report.program.layers} == {"npu"}
    assert len(report.program.persistent) == 6


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
def test_the_gateware_keeps_variables(
    program: Program, steps: list[Sample], expected: Outputs
) -> None:
    with celosia.open("sim", CONFIG) as device:
        assert_equal(run(Session(program, device), steps[:3]), expected[:3])


@pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals")
def test_a_board_keeps_variables(program: Program, steps: list[Sample], expected: Outputs) -> None:
    with emulated_board(CONFIG) as device:
        assert isinstance(device, UartDevice)
        session = Session(program, device)
        outputs = run(session, steps[:1])
        moved: list[int] = []
        for direction in ("read", "write"):
            count(device, direction, moved)
        outputs += run(session, steps[1:4])
        state = session.state
        assert moved[-2:] == [info.size_bytes for info in program.persistent]
        sizes = [info.size_bytes for info in (*program.inputs, *program.outputs)]
        assert moved[:-2] == 3 * sizes, "only inputs and outputs go over the link"
        outputs += run(session, steps[4:6])
    assert_equal(outputs, expected[:6])
    with celosia.open("emu", CONFIG) as other:
        session = Session(program, other)
        session.restore(state)
        assert_equal(run(session, steps[4:]), expected[4:])


def count(device: Device, direction: str, moved: list[int]) -> None:
    """Put the bytes of each transfer of tensors into a list."""
    name = f"_{direction}_memory"
    function = getattr(device, name)

    def counting(address: int, what: Any) -> Any:
        moved.append(what if isinstance(what, int) else what.size)
        return function(address, what)

    setattr(device, name, counting)


def test_a_state_is_saved_restored_and_reset(
    program: Program, steps: list[Sample], expected: Outputs, emu: Device
) -> None:
    session = Session(program, emu)
    assert all((values == -128).all() for values in session.state.values())
    outputs = run(session, steps[:3])
    saved = session.state
    assert_equal(outputs + run(session, steps[3:]), expected)
    session.restore(saved)
    for values in saved.values():
        values[:] = 0  # it was copied
    assert_equal(run(session, steps[3:]), expected[3:])
    session.reset()
    assert_equal(run(session, steps), expected)


def test_sessions_take_turns_on_a_device(
    program: Program, steps: list[Sample], expected: Outputs, emu: Device
) -> None:
    other = Session(celosia.compile(STATEFUL["sum"](), CONFIG), emu)
    same, session = Session(program, emu), Session(program, emu)
    outputs: Outputs = []
    for number, step in enumerate(steps):
        outputs += run(session, [step])
        if number % 2:
            other.run(random_samples(other.program, 1, number)[0])
        if number < 5:
            assert_equal(run(same, [step]), expected[number : number + 1])
    assert_equal(outputs, expected)


def test_a_run_that_fails_changes_nothing(
    program: Program, steps: list[Sample], expected: Outputs, emu: Device
) -> None:
    assert isinstance(emu, EmuDevice)
    session = Session(program, emu)
    outputs = run(session, steps[:2])
    before = session.state
    # The last command but one becomes illegal: all variables have been written by then.
    place = emu._place(program.npu)[Region.CODE]
    assert emu._loaded is not None
    last = place.end - 64
    kept = emu.emulator.memory[last]
    emu.emulator.memory[last] = 0x77
    with pytest.raises(DeviceError, match="ILLEGAL_OPCODE"):
        session.run(steps[2])
    emu.emulator.memory[last] = kept
    for name, values in session.state.items():
        np.testing.assert_array_equal(values, before[name])
    with pytest.raises(InputError):
        session.run({})
    assert_equal(outputs + run(session, steps[2:]), expected)


def test_whoever_overwrites_memory_moves_the_variables_out(
    program: Program, steps: list[Sample], expected: Outputs, emu: Device
) -> None:
    session = Session(program, emu)
    outputs = run(session, steps[:3])
    emu.write_memory(0, bytes(emu._place(program.npu).end))
    assert_equal(outputs + run(session, steps[3:]), expected)


def test_a_device_keeps_the_variables_of_what_it_runs(
    program: Program, steps: list[Sample], expected: Outputs, emu: Device
) -> None:
    def go(some: list[Sample]) -> Outputs:
        return [emu.run(program, step).output for step in some]

    assert emu.state == {}
    outputs = go(steps[:3])
    saved = emu.state
    assert_equal(outputs + go(steps[3:]), expected)
    emu.restore_state(program, saved)
    assert_equal(go(steps[3:]), expected[3:])
    emu.reset_state()
    assert_equal(go(steps), expected)
    again = replace(program, model="again")
    assert_equal([emu.run(again, step).output for step in steps[:2]], expected[:2])
    assert {name: values.tolist() for name, values in program.state.items()} == {
        info.name: np.full(info.shape, -128).tolist() for info in program.persistent
    }


def test_samples_of_a_model_with_variables_are_no_batch() -> None:
    with pytest.raises(CompileError, match="batch of 2: the model has variables"):
        celosia.compile(window_model(), CONFIG, batch=2)


# The command line ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Sample]) -> Path:
    """Return a folder with a model, and a recording of the steps with a row too many."""
    monkeypatch.chdir(tmp_path)
    Path("m.tflite").write_bytes(window_model())
    rows = np.concatenate([next(iter(step.values())).reshape(3, 10) for step in steps])
    np.save("all.npy", np.concatenate([rows, rows[:1]]))
    np.save("first.npy", rows[:9])
    np.save("rest.npy", rows[9:].reshape(1, -1, 1, 10))
    return tmp_path


def test_a_recording_is_run_window_by_window(folder: Path, expected: Outputs) -> None:
    command = ("run", "m.tflite", "--device", "emu", "--config", "tiny", "--stream")
    result = run_cli(*command, "all.npy", "--check", "--save", "y.npz", "--json", "r.json")
    assert result.exit_code == 0, result.output
    assert "step 7: " in result.output
    assert "1 at the end of all.npy make no window" in result.output
    assert "equal in each of 8 inferences (golden model and reference" in result.output
    assert_equal(list(next(iter(np.load("y.npz").values()))), expected)
    # In two parts, over a file; a window may begin before the last one ends.
    assert run_cli(*command, "first.npy", "--state-out", "s.npz").exit_code == 0
    options = ("--state-in", "s.npz", "--save", "z.npz")
    result = run_cli(*command, "rest.npy", "--check", *options)
    assert result.exit_code == 0, result.output
    assert "cannot begin with a given state" in result.output
    assert_equal(list(next(iter(np.load("z.npz").values()))), expected[3:])
    result = run_cli(*command, "first.npy", "--hop", "2")
    assert "step 3: " in result.output
    assert "step 4: " not in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stream", "all.npy", "--random", "1"), "--stream: it is the input"),
        (("--hop", "2"), "--hop: it is about the windows of a --stream"),
        (("--stream", "short.npy"), "it has 2 entries along time, a window of input 'input_0'"),
        (("--stream", "wide.npy"), "a window of input 'input_0' is [3, 10], the array [6, 11]"),
        (("--state-in", "short.npy"), "state file short.npy: it holds one array"),
        (
            ("--state-in", "other.npz"),
            "state file other.npz: variable 'x': the model has no such variable Give one that"
            " --state-out wrote for m",
        ),
        (("--state-in", "none.npz"), "there is no such file"),
    ],
)
def test_what_does_not_fit_a_stream_is_refused(
    folder: Path, options: tuple[str, ...], message: str
) -> None:
    np.save("short.npy", np.zeros((2, 10), np.int8))
    np.save("wide.npy", np.zeros((6, 11), np.int8))
    np.savez("other.npz", x=np.zeros(3))
    result = run_cli("run", "m.tflite", "--device", "emu", "--config", "tiny", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_a_model_without_variables_has_no_state_to_save(folder: Path) -> None:
    b = ModelBuilder()
    x = b.input((1, 2, 2, 8), scale=0.1)
    Path("plain.tflite").write_bytes(b.finish([b.relu(x)]))
    for option in ("--state-in", "--state-out"):
        result = run_cli("run", "plain.tflite", "--device", "emu", option, "s.npz")
        assert result.exit_code == 2
        assert "plain has no variables" in " ".join(result.stderr.split())
    assert not Path("s.npz").exists()


def test_the_report_lists_variables(folder: Path) -> None:
    result = run_cli("compile", "m.tflite", "-o", "m.celosia", "--config", "tiny")
    lines = [line.split() for line in result.output.splitlines()]
    assert ["stream_0/states", "[1,", "5,", "1,", "10]", "50"] in lines
    assert ["total:", "2", "variables", "130"] in lines
