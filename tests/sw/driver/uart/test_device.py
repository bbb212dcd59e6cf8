"""Boards behind a terminal: results, uploads, and everything that can be wrong with a port."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celosia
import numpy as np
import pytest
from celosia.errors import DeviceError
from celosia.hw.contract.config import preset
from celosia.hw.contract.uart import Identity, Kind
from celosia.sim.board.line_faults import FaultRates
from celosia.sim.board.pty_line import PtyLine
from celosia.sw.driver.device import Device
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.driver.uart import find, session
from celosia.sw.driver.uart.channel import Patience
from celosia.sw.driver.uart.codec import request
from celosia.sw.driver.uart.device import UartDevice
from celosia.sw.driver.uart.link import Link
from celosia.sw.driver.uart.port import SerialPort
from celosia.sw.program.file import Program
from serial.tools import list_ports

from tests.kit.board_model import BoardModel, BusError, PtyBoard
from tests.kit.device_machine import DeviceMachine
from tests.kit.faulty_port import FaultyPort
from tests.kit.places import DIGITS, SAMPLES

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals")

CONFIG = "tiny"
MEMORY_BYTES = 1 << 20
IDENTITY = Identity(board="model", clock_hz=48_000_000, memory_bytes=MEMORY_BYTES, silence_ms=300)
HASTY = Patience(latency_s=0.05, hello_s=0.4, tries=6)
"""For boards that do not answer; one that should may take its time on a busy machine."""
PROBING = Patience(hello_s=2.0)


def make_model(identity: Identity = IDENTITY, config: str = CONFIG) -> BoardModel:
    device = EmuDevice(preset(config), memory_bytes=identity.memory_bytes)
    return BoardModel(identity, DeviceMachine(device))


@pytest.fixture
def board() -> Iterator[PtyBoard]:
    with PtyBoard(make_model()) as board:
        yield board


@pytest.fixture(scope="module")
def program() -> Program:
    return celosia.compile(DIGITS, CONFIG)


@pytest.fixture(scope="module")
def images() -> Any:
    samples = np.load(SAMPLES)
    name = next(name for name in samples.files if samples[name].dtype == np.int8)
    return samples[name]


def open_board(board: PtyBoard, **options: Any) -> UartDevice:
    device = celosia.open(f"uart:{board.path}", **options)
    assert isinstance(device, UartDevice)
    return device


def reference(program: Program, image: Any) -> Any:
    with celosia.open("emu", CONFIG) as emu:
        return emu.run(program, image).output


def take(images: Any, program: Program, index: int) -> Any:
    return images[index].reshape(program.inputs[0].shape)


def test_results_are_those_of_the_emulator(board: PtyBoard, program: Program, images: Any) -> None:
    with open_board(board) as device:
        assert device.config == preset(CONFIG)
        assert device.board == IDENTITY
        assert device.link.baud == 3_000_000
        for index in range(2):
            image = take(images, program, index)
            result = device.run(program, image)
            assert np.array_equal(result.output, reference(program, image))
        assert device.link.statistics.events >= 1


def test_what_is_uploaded_stays(board: PtyBoard, program: Program, images: Any) -> None:
    calls: list[tuple[int, int]] = []
    size = len(program.npu.commands) + len(program.npu.constants)
    image = take(images, program, 0)
    with open_board(board, progress=lambda done, total: calls.append((done, total))) as device:
        first = device.run(program, image).output
        assert calls[-1] == (size, size)
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
        sent = device.link.statistics.sent_bytes
        assert sent > size
        calls.clear()
        device.run(program, image)
        assert device.link.statistics.sent_bytes - sent < size / 2
    with open_board(board, progress=lambda done, total: calls.append((done, total))) as device:
        assert np.array_equal(device.run(program, image).output, first)
        assert device.link.statistics.sent_bytes < size / 2
        assert calls == []
        # What has changed is sent again.
        address = device._place(program.npu)[celosia.hw.contract.isa.Region.CONST].base
        device.write_memory(address + 5, b"\x55")
        assert np.array_equal(device.run(program, image).output, first)
        assert calls


def test_a_run_over_a_bad_line_is_right(board: PtyBoard, program: Program, images: Any) -> None:
    rates = FaultRates(flip=1e-3, drop=1e-3, duplicate=1e-3, truncate=1e-3, stall=1e-3)
    port = FaultyPort(SerialPort(board.path), rates, seed=5, stall_s=0.02)
    image = take(images, program, 1)
    with UartDevice(None, port=port) as device:
        device.identify()
        assert np.array_equal(device.run(program, image).output, reference(program, image))
        assert device.link.statistics.recoveries > 0


def test_a_rate_may_be_chosen(board: PtyBoard) -> None:
    with open_board(board, baud=460_800) as device:
        assert device.link.baud == 460_800
        assert device.read_register("identity")
    with pytest.raises(DeviceError, match="cannot be made from a clock of 48 MHz"):
        open_board(board, baud=12_000_000)
    with open_board(board, baud=115_200) as device:
        assert device.link.baud == 115_200


def test_the_rate_is_what_the_clock_allows(program: Program) -> None:
    with PtyBoard(make_model(dataclasses.replace(IDENTITY, clock_hz=12_000_000))) as board:
        with open_board(board) as device:
            assert device.link.baud == 1_000_000


def test_after_closing_the_board_is_at_the_default_rate(board: PtyBoard) -> None:
    with open_board(board):
        assert board.model.baud > 2_900_000
    assert round(board.model.baud / 115_200, 2) == 1


def test_another_configuration_is_refused(board: PtyBoard) -> None:
    with pytest.raises(
        DeviceError, match="of configuration 'base': it is 'tiny', .*bus_bits is 32, not 64"
    ):
        celosia.open(f"uart:{board.path}", "base")
    # The port has been given up.
    open_board(board).close()


def test_memory_that_is_too_small_names_the_board(program: Program, images: Any) -> None:
    with PtyBoard(make_model(dataclasses.replace(IDENTITY, memory_bytes=8192))) as board:
        with open_board(board) as device:
            with pytest.raises(DeviceError, match="8192 on board model. Use a smaller model"):
                device.run(program, take(images, program, 0))


def test_a_bitstream_of_another_version_is_refused() -> None:
    identity = dataclasses.replace(IDENTITY, version=0x0003_0001)
    with PtyBoard(make_model(identity)) as board:
        with pytest.raises(DeviceError, match=r"speaks version 3\.1 .*this software 1\.0"):
            open_board(board)


def test_a_link_without_an_npu_is_refused() -> None:
    class Nothing(DeviceMachine):
        def read(self, registers: bool, address: int) -> int:
            return 0xDEAD_BEEF

    machine = Nothing(EmuDevice(preset(CONFIG), memory_bytes=4096))
    with PtyBoard(BoardModel(IDENTITY, machine)) as board:
        with pytest.raises(DeviceError, match="no Celosia NPU behind the link"):
            open_board(board)


def test_a_configuration_that_is_no_preset_has_to_be_named() -> None:
    config = dataclasses.replace(preset(CONFIG), name="own", acc_depth=preset(CONFIG).acc_depth * 2)
    model = BoardModel(IDENTITY, DeviceMachine(EmuDevice(config, memory_bytes=4096)))
    with PtyBoard(model) as board:
        with pytest.raises(DeviceError, match="is none of"):
            open_board(board)
        with celosia.open(f"uart:{board.path}", config) as device:
            assert device.config == config


# Ports ------------------------------------------------------------------------------------------


class Babbler:
    """Something that is no board: answers what `reply` makes of what it gets."""

    def __init__(self, reply: Any) -> None:
        self.line = PtyLine()
        self._ending = threading.Event()
        self._reply = reply
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._ending.is_set():
            self.line.write(self._reply(self.line.read(0.02)))

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self.line.close()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda data: b"", "nothing answers at 115200 baud"),
        (lambda data: data, "not a Celosia board, or not at 115200 baud"),
        (lambda data: b"login: " if data else b"", "not a Celosia board"),
        (lambda data: os.urandom(500), "not a Celosia board"),
        (lambda data: bytes(300), "not a Celosia board"),
    ],
    ids=["silent", "echo", "console", "noise", "zeros"],
)
def test_what_is_no_celosia_is_said(reply: Any, words: str) -> None:
    other = Babbler(reply)
    try:
        with pytest.raises(DeviceError, match=words):
            Link(SerialPort(other.line.path), patience=HASTY).open()
    finally:
        other.close()


def test_a_board_at_another_rate_is_waited_for(board: PtyBoard) -> None:
    board.model.baud = 1_000_000
    with pytest.raises(DeviceError, match="nothing answers at 115200 baud"):
        Link(SerialPort(board.path), patience=HASTY).open()
    board.model.baud = 115_200
    assert Link(SerialPort(board.path)).open() == IDENTITY


def test_unplugging_is_an_error(board: PtyBoard, program: Program, images: Any) -> None:
    device = open_board(board)
    image = take(images, program, 0)
    device.run(program, image)
    board.unplug()
    with pytest.raises(DeviceError, match="the connection was lost"):
        device.run(program, image)
    device.close()
    device.close()


def read_for_ever(device: Device) -> None:
    while True:
        device.read_memory(0, 4096)


def test_unplugging_in_the_middle_is_an_error(board: PtyBoard) -> None:
    device = open_board(board)
    timer = threading.Timer(0.05, board.unplug)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(DeviceError, match="the connection was lost"):
        read_for_ever(device)
    timer.join()
    assert time.monotonic() - begun < 30
    device.close()


def test_a_board_that_dies_is_an_error(board: PtyBoard) -> None:
    with Link(SerialPort(board.path)) as link:
        link.open()
        link.channel.patience = HASTY
        board.model.feed = lambda *_: b""  # type: ignore[method-assign]
        with pytest.raises(DeviceError, match="has stopped answering"):
            link.read_memory(0, 4)


def test_a_reset_board_is_an_error(board: PtyBoard, program: Program, images: Any) -> None:
    with open_board(board) as device:
        board.model.reset()
        with pytest.raises(DeviceError, match="was reset since the device was opened"):
            device.run(program, take(images, program, 0))


def test_a_second_user_of_the_board_is_noticed(board: PtyBoard) -> None:
    with open_board(board, baud=115_200) as device:
        device.link.read_registers([0] * 20)
        board.model.feed(request(Kind.HELLO, 77, 0))
        with pytest.raises(DeviceError, match="another program has used the board"):
            device.read_memory(0, 4)


def test_a_port_in_use_is_an_error(board: PtyBoard) -> None:
    with open_board(board):
        with pytest.raises(DeviceError, match="another program uses it"):
            open_board(board)


def test_a_port_that_may_not_be_used_is_an_error(tmp_path: Path) -> None:
    missing = tmp_path / "ttyX"
    for path, words in ((missing, "there is no such port"), ("/dev/null", "not a serial port")):
        with pytest.raises(DeviceError, match=words):
            celosia.open(f"uart:{path}")
    if os.geteuid():
        missing.write_text("")
        missing.chmod(0)
        with pytest.raises(DeviceError, match="you may not use it"):
            celosia.open(f"uart:{missing}")


@pytest.mark.parametrize("kind", ["uart", "uart:"])
def test_a_port_has_to_be_named(kind: str) -> None:
    with pytest.raises(DeviceError, match="the port is missing.*uart:auto"):
        celosia.open(kind)


def test_options_of_other_devices_are_refused(board: PtyBoard) -> None:
    with pytest.raises(DeviceError, match="no option 'memory_bytes'"):
        celosia.open(f"uart:{board.path}", memory_bytes=1)


# Finding boards ---------------------------------------------------------------------------------


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the machine's serial ports, to be filled in."""
    paths: list[str] = []
    monkeypatch.setattr(
        list_ports,
        "comports",
        lambda: [SimpleNamespace(device=path, description="n/a") for path in paths],
    )
    monkeypatch.setattr(find.probe, "__defaults__", ("", PROBING))
    return paths


def test_auto_finds_the_only_board(board: PtyBoard, system: list[str]) -> None:
    other = Babbler(lambda data: data)
    try:
        system += [other.line.path, board.path, "/dev/no-such-port"]
        found = {port.path: port for port in find.probe_all()}
        assert found[board.path].board == IDENTITY
        assert found[board.path].config == CONFIG
        assert "not a Celosia board" in found[other.line.path].problem
        assert "no such port" in found["/dev/no-such-port"].problem
        with celosia.open("uart:auto") as device:
            assert device.config.name == CONFIG
    finally:
        other.close()


def test_auto_says_why_there_is_none(board: PtyBoard, system: list[str]) -> None:
    with pytest.raises(DeviceError, match="no serial port"):
        celosia.open("uart:auto")
    system.append("/dev/no-such-port")
    with pytest.raises(DeviceError, match="/dev/no-such-port: there is no such port"):
        celosia.open("uart:auto")
    with PtyBoard(make_model()) as second:
        system[:] = [board.path, second.path]
        with pytest.raises(DeviceError, match="several boards: .*model.*model"):
            celosia.open("uart:auto")


def test_rates_have_names_in_every_system() -> None:
    import termios

    assert all(hasattr(termios, f"B{baud}") for baud in session.BAUD_RATES)


def test_the_model_refuses_what_is_not_there() -> None:
    machine = DeviceMachine(EmuDevice(preset(CONFIG), memory_bytes=4096))
    assert isinstance(machine.device, Device)
    for registers, address in ((False, 4096), (True, 0xC4)):
        with pytest.raises(BusError):
            machine.read(registers, address)
