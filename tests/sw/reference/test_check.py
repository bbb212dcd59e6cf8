"""The check says "equal" only of equal tensors, and finds the command that got one wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import COMMAND_BYTES, Command, Conv, Softmax, Vector, VectorOp
from celosia.sw.cli.app import app
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import ConvOp
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.place.mapping import pack_parameters
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.driver.result import SegmentResult
from celosia.sw.program.file import Program
from celosia.sw.program.segments import NpuSegment
from celosia.sw.reference.check import CheckReport, check_model
from celosia.sw.reference.interpreter import interpreter_installed
from celosia.sw.report.example import load_digits
from celosia.sw.report.locate import find_origin
from typer.testing import CliRunner

CONFIG = preset("base")
DIGITS = load_digits()
ACC_OPS = (VectorOp.REQUANT, VectorOp.REQUANT_ADD)
Damage = Callable[[NpuSegment], NpuSegment]


class DamagedDevice(EmuDevice):
    """An emulator that runs another program than it was given: hardware with a defect."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(CONFIG, memory_bytes=1 << 20)
        self.damage = damage

    def samples_at_once(self, segment: NpuSegment) -> int:
        return 1  # so that a defect can strike one run and not the next

    def run_segment(self, segment: NpuSegment, inputs: Any, **options: Any) -> SegmentResult:
        return super().run_segment(self.damage(segment), inputs, **options)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "digits.tflite"
    path.write_bytes(DIGITS.model)
    return path


def sample(program: Program, number: int = 0) -> dict[str, Any]:
    return {program.inputs[0].name: DIGITS.inputs[number][None]}


def checked(model: Path, damage: Damage, **options: Any) -> CheckReport:
    plain = compile_model(model, CONFIG)
    return check_model(
        model, CONFIG, DamagedDevice(damage), [sample(plain), sample(plain, 1)], **options
    )


def with_command(segment: NpuSegment, index: int, command: Command) -> NpuSegment:
    code = bytearray(segment.commands)
    code[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES] = command.encode()
    return replace(segment, commands=bytes(code))


def accumulator_commands(segment: NpuSegment) -> list[int]:
    """Return the indices of the commands that empty accumulator tiles, one a convolution."""
    return [
        index
        for index, command in enumerate(segment.decode())
        if isinstance(command, Vector) and command.op in ACC_OPS
    ]


def test_sound_hardware_is_equal(model: Path) -> None:
    report = checked(model, lambda segment: segment)
    assert report.equal
    assert report.difference is None
    assert len(report.results) == 2
    assert report.tensors == 11
    assert not report.absent
    assert ("reference interpreter" in report.sources) == interpreter_installed()


@pytest.mark.parametrize("layer", range(8))
def test_a_wrong_bias_is_traced_to_layer_tile_and_command(model: Path, layer: int) -> None:
    """Channel `channel` of one convolution gets a wrong bias, in the instrumented program only."""
    instrumented = compile_model(model, CONFIG, keep_tensors=True)
    operators = [op for op in lower(load(model)).npu_ops if isinstance(op, ConvOp)]
    operator, size = operators[layer], CONFIG.rows
    channel = operator.cout - 1  # in the last tile of output channels
    block = pack_parameters(operator, size)[channel // size].tobytes()
    assert instrumented.npu.constants.count(block) == 1
    place = instrumented.npu.constants.index(block) + 4 * (channel % size)

    def damage(segment: NpuSegment) -> NpuSegment:
        if not segment.intermediates:
            return segment
        constants = bytearray(segment.constants)
        constants[place : place + 4] = (0x0FFF_FFFF).to_bytes(4, "little")
        return replace(segment, constants=bytes(constants))

    difference = checked(model, damage).difference
    assert difference is not None
    assert difference.tensor == operator.output
    assert difference.program == "instrumented"
    assert difference.index[:-1] == (0,) * (len(difference.index) - 1)
    assert difference.index[-1] == channel
    assert difference.got != difference.expected
    assert 1 <= difference.wrong <= difference.elements // operator.cout
    origin = difference.origin
    assert origin.layer is not None
    assert origin.layer.origin.index == operator.origin.index
    assert origin.command is not None
    command = instrumented.npu.decode()[origin.command]
    assert isinstance(command, Vector)
    assert command.op in ACC_OPS
    tiles_of_channels = -(-command.out_h // command.tile_rows)
    assert origin.tiles == command.n_oc * tiles_of_channels
    # The first row of the last channels.
    assert origin.tile == (command.n_oc - 1) * tiles_of_channels
    text = str(difference)
    for words in (operator.label.split()[0], f"tile {origin.tile} of", f"command {origin.command}"):
        assert words in text


def test_a_command_that_is_wrong_in_the_plain_program_only(model: Path) -> None:
    """Intermediate tensors are equal, and still the outputs are not."""

    def damage(segment: NpuSegment) -> NpuSegment:
        if segment.intermediates:
            return segment
        for index, command in enumerate(segment.decode()):
            if isinstance(command, Softmax):
                return with_command(segment, index, replace(command, channels=9))
        raise AssertionError("no softmax")

    difference = checked(model, damage).difference
    assert difference is not None
    assert difference.program == "plain"
    assert difference.sample == 0
    assert "Softmax" in str(difference)


def test_the_first_wrong_sample_ends_the_check(model: Path) -> None:
    runs: list[int] = []

    def damage(segment: NpuSegment) -> NpuSegment:
        runs.append(len(runs))
        if runs[-1] < 2:  # the first sample's two programs
            return segment
        vector = accumulator_commands(segment)[0]
        command = segment.decode()[vector]
        assert isinstance(command, Vector)
        return with_command(segment, vector, replace(command, act_max=command.act_min))

    report = checked(model, damage)
    assert report.difference is not None
    assert report.difference.sample == 1
    assert len(report.results) == 2
    assert not report.equal


def test_every_element_has_an_origin_that_computes_it(model: Path) -> None:
    """Changing the command that is named for an element changes the element."""
    program = compile_model(model, CONFIG, keep_tensors=True)
    commands = program.npu.decode()
    with EmuDevice(CONFIG, memory_bytes=1 << 20) as device:
        before = device.run(program, sample(program))
        for info in program.intermediates[:6]:
            index = tuple(size - 1 for size in info.shape)
            origin = find_origin(program, info.name, index)
            assert origin.command is not None
            command = commands[origin.command]
            assert isinstance(command, Vector)
            assert origin.conv is not None or command.op not in ACC_OPS
            # A value that the element does not have now.
            value = 100 if before.tensors[info.name][index] != 100 else 99
            changed = replace(command, act_min=value, act_max=value)
            segment = with_command(program.npu, origin.command, changed)
            after = device.run(replace(program, segments=(segment,)), sample(program))
            assert after.tensors[info.name][index] == value


def test_origin_of_a_conv_is_the_conv_before_its_vector(model: Path) -> None:
    program = compile_model(model, CONFIG, keep_tensors=True)
    commands = program.npu.decode()
    for info in program.intermediates:
        origin = find_origin(program, info.name, (0,) * len(info.shape))
        if origin.conv is None:
            continue
        conv, vector = commands[origin.conv], commands[origin.command or 0]
        assert isinstance(conv, Conv)
        assert isinstance(vector, Vector)
        assert (conv.n_oc, conv.out_h, conv.out_w) == (vector.n_oc, vector.out_h, vector.out_w)


def test_the_command_line_reports_a_difference(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(segment: NpuSegment) -> NpuSegment:
        vector = accumulator_commands(segment)[2]
        command = segment.decode()[vector]
        assert isinstance(command, Vector)
        return with_command(segment, vector, replace(command, act_max=command.act_min))

    monkeypatch.setattr(
        "celosia.sw.cli.run.open_device_for", lambda *_args, **_options: DamagedDevice(damage)
    )
    figures = tmp_path / "r.json"
    result = CliRunner().invoke(
        app, ["run", str(model), "--device", "emu", "--check", "--json", str(figures)]
    )
    assert result.exit_code == 1
    assert "NOT EQUAL" in result.output
    assert "layer #" in result.output
    assert '"equal": false' in figures.read_text(encoding="utf-8")


def test_without_the_interpreter_the_golden_model_serves(model: Path) -> None:
    report = checked(model, lambda segment: segment, interpreter=False)
    assert report.equal
    assert report.sources == ("golden model",)


def test_inputs_are_what_the_model_says() -> None:
    assert np.array_equal(DIGITS.inputs[..., 0].astype(int) + 128, DIGITS.images.astype(int))
