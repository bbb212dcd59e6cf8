"""A program on a device: segments in order, tensors by name, and what outlasts a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia import toolchain
from celosia.errors import DeviceError, InputError, ProgramError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import End, Engine, Load, Region, Space, Store
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.cli.app import app
from celosia.sw.driver.device import Device
from celosia.sw.program.file import Program
from celosia.sw.program.segments import MemoryPlan, NpuSegment
from celosia.sw.program.tensors import PlacedTensor, TensorInfo
from celosia.sw.program.verify import check_program
from celosia.sw.runtime.session import Session
from typer.testing import CliRunner

MISSING = toolchain.missing_tools()
CONFIG = preset("nano")
Int8 = npt.NDArray[np.int8]


@pytest.fixture(params=["emu", "sim"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param == "sim" and MISSING:
        pytest.skip(MISSING)
    with celosia.open(request.param, CONFIG) as opened:
        yield opened


@pytest.fixture
def emu() -> Iterator[Device]:
    with celosia.open("emu", CONFIG) as opened:
        yield opened


def convolution(seed: int, channels: int, taken: int) -> Program:
    """A convolution whose output has the shape and scale that the next one takes."""
    weights = np.random.default_rng(seed).integers(-127, 128, (channels, 3, 3, taken), np.int8)
    builder = ModelBuilder()
    x = builder.input((1, 5, 5, taken), scale=0.1, zero_point=-5)
    y = builder.conv2d(x, weights, None, w_scales=0.002, scale=0.1, zero_point=-5)
    return celosia.compile(builder.finish([y]), CONFIG)


def renamed(segment: NpuSegment, **names: str) -> NpuSegment:
    """Return a segment whose only input and output are called otherwise."""
    changed: dict[str, Any] = {}
    for kind, name in names.items():
        (tensor,) = getattr(segment, kind)
        changed[kind] = (replace(tensor, info=replace(tensor.info, name=name)),)
    return replace(segment, **changed)


def joined(first: Program, second: Program) -> Program:
    """The second program behind the first one, and the tensor between them an output too."""
    before = renamed(first.npu, inputs="x", outputs="between")
    between = before.outputs[0].info
    after = renamed(second.npu, inputs="between", outputs="y")
    after = replace(after, inputs=(replace(after.inputs[0], info=between),))
    return Program(
        config=CONFIG,
        model="joined",
        inputs=(before.inputs[0].info,),
        outputs=(after.outputs[0].info, between),
        segments=(replace(before, name="before"), replace(after, name="after")),
    )


def values(seed: int, shape: tuple[int, ...] = (1, 5, 5, 3)) -> Int8:
    return np.random.default_rng(seed).integers(-128, 128, shape, np.int8)


def test_segments_run_in_order_and_hand_tensors_on(device: Device) -> None:
    first, second = convolution(1, 6, 3), convolution(2, 4, 6)
    program = Program.from_bytes(joined(first, second).to_bytes())
    check_program(program)
    session = Session(program, device)
    for seed in range(2):
        result = session.run(values(seed))
        between = device.run(first, values(seed))
        alone = device.run(second, between.output)
        assert list(result.outputs) == ["y", "between"]
        np.testing.assert_array_equal(result.outputs["between"], between.output)
        np.testing.assert_array_equal(result.outputs["y"], alone.output)
        assert np.unique(alone.output).size > 10
        assert [part.name for part in result.segments] == ["before", "after"]
        if not device.timed:
            assert result.cycles is None
            assert result.counters == {}
            continue
        assert [part.cycles for part in result.segments] == [between.cycles, alone.cycles]
        assert result.cycles == (between.cycles or 0) + (alone.cycles or 0)
        for name, count in result.counters.items():
            assert count == between.counters[name] + alone.counters[name]


def test_inputs_are_checked_before_anything_runs(emu: Device) -> None:
    program = joined(convolution(1, 6, 3), convolution(2, 4, 6))
    session = Session(program, emu)
    with pytest.raises(InputError, match="'between': the model has no such input"):
        session.run({"between": values(0, (1, 5, 5, 6))})
    with pytest.raises(InputError, match="its dtype is uint8"):
        session.run(values(0).astype(np.uint8))
    with pytest.raises(ProgramError, match="rows is 8"), celosia.open("emu", "base") as base:
        Session(program, base)
    real = (values(3).astype(np.float32) + 5) * np.float32(0.1)
    quantised = session.run(real, quantize=True).outputs["y"]
    np.testing.assert_array_equal(quantised, session.run(values(3)).outputs["y"])


def test_what_runs_is_loaded(emu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    program = convolution(1, 6, 3)
    loaded: list[int] = []
    upload = emu._upload
    monkeypatch.setattr(emu, "_upload", lambda c: (loaded.append(len(c)), upload(c)))
    session = Session(program, emu)
    session.load()
    session.run(values(0))
    emu.run(program, values(1))
    assert loaded == [2]


def test_the_command_line_runs_segments(tmp_path: Path) -> None:
    path, figures = tmp_path / "joined.celosia", tmp_path / "r.json"
    joined(convolution(1, 6, 3), convolution(2, 4, 6)).save(path)
    arguments = ["run", str(path), "--device", "emu", "--json", str(figures)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    said = json.loads(figures.read_text())
    assert [part["name"] for part in said["segments"]] == ["before", "after"]
    assert sorted(said["runs"][0]["outputs"]) == ["between", "y"]
    assert len(said["layers"]) == 2
    result = CliRunner().invoke(app, ["disasm", str(path), "--json", str(figures)])
    assert result.exit_code == 0
    assert "; segment 1, on the NPU: takes 'between', gives 'y'" in result.output
    commands = json.loads(figures.read_text())["commands"]
    assert {(entry["segment"], entry["layer"]) for entry in commands} == {
        (0, 0), (0, None), (1, 1), (1, None)
    }  # fmt: skip


# What outlasts a run ----------------------------------------------------------------------------


def delay(initial: bytes = b"\x01\x02\x03\x04") -> Program:
    """Gives what it was given the time before: the state goes out, the input becomes the state."""
    x, y = (TensorInfo(name=name, shape=(1, 4)) for name in ("x", "y"))
    state = TensorInfo(name="state", shape=(1, 4), persistent=True)
    places = {
        info.name: PlacedTensor(info=info, offset=offset, row_pitch=4, pixel_pitch=4)
        for info, offset in ((x, 0), (state, 8), (y, 16))
    }
    to_store, to_load = 1 << Engine.STORE, 1 << Engine.LOAD
    commands = [
        Load(region=Region.IO, space=Space.ACT, mem_addr=0, row_bytes=4, tag=0),
        Load(
            region=Region.IO,
            space=Space.ACT,
            mem_addr=8,
            sram_addr=8,
            row_bytes=4,
            tag=1,
            signal=to_store,
        ),
        Store(region=Region.IO, mem_addr=16, sram_addr=8, row_bytes=4, tag=2, wait=to_load),
        Store(region=Region.IO, mem_addr=8, sram_addr=0, row_bytes=4, tag=3),
        End(tag=4),
    ]
    segment = NpuSegment(
        name="delay",
        commands=b"".join(command.encode() for command in commands),
        inputs=(places["x"], places["state"]),
        outputs=(places["y"], places["state"]),
        memory=MemoryPlan(region_bytes={"IO": 24}),
    )
    return Program.of(segment, CONFIG, model="delay", initial_state=initial)


def row(*numbers: int) -> Int8:
    return np.array([numbers], np.int8)


def test_persistent_tensors_outlast_a_run(device: Device) -> None:
    program = Program.from_bytes(delay().to_bytes())
    check_program(program)
    assert [info.name for info in program.inputs] == ["x"]
    assert [info.name for info in program.outputs] == ["y"]
    session = Session(program, device)
    assert session.run(row(5, 6, 7, 8)).output.tolist() == [[1, 2, 3, 4]]
    assert session.run(row(-1, -2, -3, -4)).output.tolist() == [[5, 6, 7, 8]]
    kept = session.state
    assert kept["state"].tolist() == [[-1, -2, -3, -4]]
    assert session.run(row(9, 9, 9, 9)).output.tolist() == [[-1, -2, -3, -4]]
    session.restore(kept)
    assert session.run(row(0, 0, 0, 0)).output.tolist() == [[-1, -2, -3, -4]]
    session.reset()
    assert session.run(row(0, 0, 0, 0)).output.tolist() == [[1, 2, 3, 4]]


def test_sessions_on_one_device_keep_their_own(emu: Device) -> None:
    program = delay()
    one, other = Session(program, emu), Session(program, emu)
    for number in range(4):
        assert one.run(row(*[number] * 4)).output[0, 3] == (number - 1 if number else 4)
        assert other.run(row(*[-number] * 4)).output[0, 3] == (1 - number if number else 4)


def test_runs_of_a_device_are_one_session(emu: Device) -> None:
    program = delay()
    emu.run(program, row(1, 1, 1, 1))
    assert emu.run(program, row(2, 2, 2, 2)).output.tolist() == [[1, 1, 1, 1]]
    # Another program begins anew, and so does this one after it.
    assert emu.run(delay(b"abcd"), row(3, 3, 3, 3)).output.tobytes() == b"abcd"
    assert emu.run(program, row(0, 0, 0, 0)).output.tolist() == [[1, 2, 3, 4]]


def test_a_run_that_fails_leaves_the_state(emu: Device) -> None:
    program = delay()
    broken = NpuSegment(name="broken", commands=b"\x77" * 64)
    session = Session(replace(program, segments=(*program.segments, broken)), emu)
    with pytest.raises(DeviceError, match="program 'broken'.*ILLEGAL_OPCODE"):
        session.run(row(5, 5, 5, 5))
    assert session.state["state"].tolist() == [[1, 2, 3, 4]]
    with pytest.raises(InputError):
        session.run(row(5, 5))
    assert session.state["state"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "variable 'state': missing"),
        ({"state": row(1)}, r"its shape is \[1, 1\]"),
        ({"state": row(1, 2, 3, 4).astype(np.int16)}, "its dtype is int16"),
        ({"state": row(1, 2, 3, 4), "x": row(1)}, "variable 'x': the model has no such variable"),
    ],
)
def test_a_state_of_another_program_is_refused(
    emu: Device, state: dict[str, npt.NDArray[np.generic]], message: str
) -> None:
    session = Session(delay(), emu)
    with pytest.raises(InputError, match=message):
        session.restore(state)
    assert session.state["state"].tolist() == [[1, 2, 3, 4]]


def test_a_program_without_a_state_has_none(emu: Device) -> None:
    session = Session(convolution(1, 6, 3), emu)
    session.run(values(0))
    assert session.state == {}
    session.restore({})
    session.reset()
