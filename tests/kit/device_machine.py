"""A device as what is behind the bridge of a simulated board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import celosia
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.regs import REGISTERS
from celosia.hw.contract.uart import Identity
from celosia.sw.driver.device import Device
from celosia.sw.driver.emu import EmuDevice

from tests.kit.board_model import WORD_BYTES, BoardModel, BusError, PtyBoard

__all__ = ["DeviceMachine", "emulated_board"]

UNTIMED_CYCLES = 1
"""What a machine without a clock says that a program took: not 0, which is none at all."""


class DeviceMachine:
    """Registers and memory of a device, such as the emulator's."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._names = {entry.address: entry.name for entry in REGISTERS}

    @property
    def irq(self) -> bool:
        pending, enabled = self.device.read_registers(["irq_pending", "irq_enable"])
        return bool(pending & enabled)

    def read(self, registers: bool, address: int) -> int:
        if registers:
            name = self._register(address)
            value = self.device.read_register(name)
            return UNTIMED_CYCLES if name == "count_total" and not self.device.timed else value
        self._check(address)
        return int.from_bytes(self.device.read_memory(address, WORD_BYTES), "little")

    def write(self, registers: bool, address: int, value: int, select: int) -> None:
        if registers:
            self.device.write_register(self._register(address), value)
            return
        self._check(address)
        word = value.to_bytes(WORD_BYTES, "little")
        for lane in range(WORD_BYTES):
            if select >> lane & 1:
                self.device.write_memory(address + lane, word[lane : lane + 1])

    def _register(self, address: int) -> str:
        if address not in self._names:
            raise BusError
        return self._names[address]

    def _check(self, address: int) -> None:
        if address + WORD_BYTES > self.device.memory_bytes:
            raise BusError


@contextmanager
def emulated_board(config: NpuConfig, memory_bytes: int = 1 << 20) -> Iterator[Device]:
    """Open a board behind a pseudo-terminal, with the emulator as its NPU."""
    identity = Identity(
        board="model", clock_hz=48_000_000, memory_bytes=memory_bytes, silence_ms=300
    )
    machine = DeviceMachine(EmuDevice(config, memory_bytes=memory_bytes))
    with (
        PtyBoard(BoardModel(identity, machine)) as board,
        celosia.open(f"uart:{board.path}") as device,
    ):
        yield device
