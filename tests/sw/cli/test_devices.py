"""The commands for boards, on a board in software behind a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.uart import Identity
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.program.segments import NpuSegment
from celosia.sw.report.example import load_digits
from celosia.sw.report.selftest import STEPS, self_test
from serial.tools import list_ports

from tests.kit.board_model import BoardModel, PtyBoard
from tests.kit.command_line import run_cli
from tests.kit.device_machine import DeviceMachine

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals")

CONFIG = "tiny"
IDENTITY = Identity(
    board="model",
    clock_hz=48_000_000,
    memory_bytes=1 << 20,
    build=0xABC,
    revision="0123456789abcdef",
    dirty=True,
)


@pytest.fixture
def emulator() -> EmuDevice:
    return EmuDevice(preset(CONFIG), memory_bytes=IDENTITY.memory_bytes)


@pytest.fixture
def board(emulator: EmuDevice) -> Iterator[PtyBoard]:
    with PtyBoard(BoardModel(IDENTITY, DeviceMachine(emulator))) as board:
        yield board


@pytest.fixture(autouse=True)
def ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Paths of the machine's serial ports: none, until a test adds some."""
    paths: list[str] = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.tflite").write_bytes(load_digits().model)
    monkeypatch.setattr(
        list_ports,
        "comports",
        lambda: [SimpleNamespace(device=path, description="USB serial") for path in paths],
    )
    return paths


def test_devices_are_listed_with_what_they_are(board: PtyBoard, ports: list[str]) -> None:
    ports.append("/dev/no-such-port")
    result = run_cli("devices", board.path, "--json", "devices.json")
    assert result.exit_code == 0
    text = " ".join(result.output.replace("│", " ").split())
    for words in ("emu", "sim", f"uart:{board.path}", "model, configuration tiny", "48 MHz"):
        assert words in text
    for words in ("1024 KiB", "00000abc", "0123456789abcdef", "there is no such port"):
        assert words in text
    (found,) = json.loads(Path("devices.json").read_text())["boards"]
    assert found["device"] == f"uart:{board.path}"
    assert found["config"] == CONFIG
    assert found["dirty"] is True


def test_a_model_runs_on_a_board(board: PtyBoard, ports: list[str]) -> None:
    ports.append(board.path)
    outputs = []
    for arguments in (
        ("--device", "uart:auto"),
        ("--device", f"uart:{board.path}", "--check"),
        ("--device", "emu", "--config", CONFIG),
    ):
        result = run_cli("run", "digits.tflite", "--random", 2, *arguments, "--json", "run.json")
        assert result.exit_code == 0, result.output
        assert ("ms at 48 MHz (model)" in result.output) == ("emu" not in arguments)
        figures = json.loads(Path("run.json").read_text())
        outputs.append([entry["outputs"] for entry in figures["runs"]])
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_program_for_another_board_is_refused(board: PtyBoard) -> None:
    assert (
        run_cli("compile", "digits.tflite", "--config", "base", "-o", "base.celosia").exit_code == 0
    )
    result = run_cli("run", "base.celosia", "--device", f"uart:{board.path}")
    assert result.exit_code == 2
    assert "not of configuration 'base'" in " ".join(result.stderr.split())


def test_a_good_board_passes_the_self_test(board: PtyBoard) -> None:
    result = run_cli(
        "selftest", "--device", f"uart:{board.path}", "--memory", 8, "--json", "t.json"
    )
    assert result.exit_code == 0, result.output
    steps = json.loads(Path("t.json").read_text())["steps"]
    assert [step["name"] for step in steps] == list(STEPS)
    assert all(step["passed"] for step in steps)


def test_the_self_test_without_a_board_says_so() -> None:
    result = run_cli("selftest")
    assert result.exit_code == 2
    assert "no serial port" in " ".join(result.stderr.split())


class Broken(EmuDevice):
    """An emulator of which one part does not work."""

    def __init__(self, part: str) -> None:
        super().__init__(preset(CONFIG), memory_bytes=1 << 20)
        self._part = part

    def samples_at_once(self, segment: NpuSegment) -> int:
        return 1  # what is spoiled is the memory of a single run

    def write_register(self, name: str, value: int) -> None:
        if self._part == "register bit" and name == "scratch":
            value |= 1 << 9
        super().write_register(name, value)
        if self._part == "DMA" and name == "doorbell":
            self._spoil("IO", 1000)
        if self._part == "array" and name == "doorbell":
            self._spoil("IO", 0)
            self._spoil("SCRATCH", 0)

    def _spoil(self, region: str, offset: int) -> None:
        from celosia.hw.contract.isa import Region

        number = Region[region].value
        base = self.read_register(f"region{number}_base") + offset
        end = base - offset + self.read_register(f"region{number}_size")
        if self._part == "array" and self.read_register("region1_size") == 0:
            return
        self.emulator.memory[base:end] ^= 1

    def _write_memory(self, address: int, data: Any) -> None:
        if self._part == "address line" and address & 0x4000:
            address ^= 0x4000
        super()._write_memory(address, data)
        if self._part == "stuck bit" and address <= 0x1234 < address + data.size:
            self.emulator.memory[0x1234] |= 0x10


@pytest.mark.parametrize(
    ("part", "step", "words"),
    [
        ("register bit", "registers", "register scratch"),
        ("address line", "memory", "was written"),
        ("stuck bit", "memory", "0x00001234"),
        ("DMA", "DMA", "bytes came out wrong"),
        ("array", "array", "differs from the golden model"),
    ],
)
def test_the_self_test_finds_what_is_broken(part: str, step: str, words: str) -> None:
    *before, last = self_test(Broken(part), march_bytes=1 << 20)
    assert all(result.passed for result in before)
    assert not last.passed
    assert last.name == step
    assert words in last.detail
