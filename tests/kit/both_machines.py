"""RTL and emulator side by side, running the same programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Command, End, Load, Region, Space, Store
from celosia.hw.contract.regs import ErrorCause, address_of
from celosia.sim.emulator.machine import Emulator, EmulatorFault

__all__ = ["Fault", "Machine", "chain"]

MEMORY_BYTES = 1 << 18
CODE_BASE, CONST_BASE, IO_BASE, SCRATCH_BASE = 0x0_1000, 0x1_0000, 0x2_8000, 0x3_8000
REGIONS = {
    Region.CONST: (CONST_BASE, 0x1_8000),
    Region.IO: (IO_BASE, 0x1_0000),
    Region.SCRATCH: (SCRATCH_BASE, 0x1000),
}
LIMIT_CYCLES = 8_000_000
WATCHDOG_CYCLES = 400_000
DONE, ERROR = 1, 2

Group = Command | tuple[Command, ...]


@dataclass(frozen=True)
class Fault:
    """What the error registers hold."""

    cause: str
    unit: int
    tag: int
    address: int


class Machine:
    """The RTL of a machine, and the emulator.

    Attributes
    ----------
    rtl : RtlSimulator
    emulator : Emulator
    filled : dict of Space to int
        Where in CONST the contents of the on-chip memories are.
    """

    def __init__(self, config: NpuConfig) -> None:
        from celosia.sim.rtl.rtl import RtlSimulator
        from celosia.sim.rtl.verilator import build_npu

        self.config = config
        self.rtl = RtlSimulator(build_npu(config), memory_bytes=MEMORY_BYTES)
        self.emulator = Emulator(config, MEMORY_BYTES)
        self.filled: dict[Space, int] = {}
        offset = 0
        for space, size in (
            (Space.ACT, config.act_bytes),
            (Space.WGT, config.wgt_bytes),
            (Space.PARAM, config.param_bytes),
            (Space.TABLE, 256 * config.cols),
        ):
            self.filled[space] = offset
            offset += size

    def read(self, name: str) -> int:
        """Return a register of the RTL."""
        return self.rtl.read_csr(address_of(name))

    def write(self, name: str, value: int) -> None:
        """Write a register of the RTL."""
        self.rtl.write_csr(address_of(name), value)

    def shuffle(self, rng: np.random.Generator) -> None:
        """Fill system memory, and what :meth:`fill` loads, with random bytes."""
        self.emulator.memory[:] = rng.integers(0, 256, MEMORY_BYTES, np.uint8)

    def const(self, space: Space, count: int, address: int = 0) -> Any:
        """Return a view of what :meth:`fill` loads into an on-chip memory."""
        first = CONST_BASE + self.filled[space] + address
        return self.emulator.memory[first : first + count]

    def fill(self, space: Space, count: int, address: int = 0) -> Load:
        """Return a command that loads `count` bytes of an on-chip memory."""
        return Load(
            region=Region.CONST,
            space=space,
            mem_addr=self.filled[space] + address,
            sram_addr=address,
            row_bytes=count,
        )

    def drain(self, count: int, address: int = 0) -> Store:
        """Return a command that stores bytes of the activation SRAM at the same place in IO."""
        return Store(region=Region.IO, mem_addr=address, sram_addr=address, row_bytes=count)

    def start(self, code: bytes, *, watchdog: int = 0, bus_timeout: int = 0) -> None:
        """Give both machines the code, the RTL the emulator's memory, and ring the doorbell."""
        self.emulator.load_code(code, CODE_BASE)
        for region, place in REGIONS.items():
            self.emulator.set_region(region, *place)
        self.rtl.memory[:] = self.emulator.memory
        self.write("control", 1)
        for region, (base, size) in self.emulator.regions.items():
            self.write(f"region{int(region)}_base", base)
            self.write(f"region{int(region)}_size", size)
        self.write("watchdog", watchdog)
        self.write("bus_timeout", bus_timeout)
        self.write("irq_pending", DONE | ERROR)
        self.write("irq_enable", DONE | ERROR)
        self.write("doorbell", 1)

    def finish(self, limit_cycles: int = LIMIT_CYCLES) -> Fault | None:
        """Run the RTL to its interrupt; return the error that it reports."""
        assert self.rtl.run_until_irq(limit_cycles) is not None, "the program does not end"
        pending = self.read("irq_pending")
        assert pending in (DONE, ERROR)
        assert self.read("status") == (0b010 if pending == DONE else 0b100)
        assert self.rtl.statistics.violations == 0
        cause = self.read("error_cause")
        if pending == DONE:
            assert cause == self.read("error_address") == 0
            return None
        return Fault(
            ErrorCause(cause & 0xFF).name,
            cause >> 8 & 0xFF,
            cause >> 16,
            self.read("error_address"),
        )

    def emulate(self) -> Fault | None:
        """Run the emulator; return the error that it reports."""
        try:
            self.emulator.run()
        except EmulatorFault as fault:
            return Fault(fault.cause.name, fault.unit, fault.tag, fault.address)
        return None

    def both(self, *groups: Group | bytes) -> None:
        """Run a program on both; it must end, with the same in system memory."""
        self.start(chain(*groups))
        found = self.finish()
        assert self.emulate() is None
        assert found is None
        differs = np.flatnonzero(self.rtl.memory != self.emulator.memory)
        assert not differs.size, f"{differs.size} bytes differ, the first at {differs[0]:#x}"

    def faults(self, stream: Sequence[Command | bytes], *, watchdog: int = WATCHDOG_CYCLES) -> Any:
        """Run a broken program on both; return what RTL and emulator say."""
        code = b"".join(c if isinstance(c, bytes) else c.encode() for c in stream)
        self.start(code, watchdog=watchdog)
        return self.finish(), self.emulate()


def chain(*groups: Group | bytes) -> bytes:
    """Return a program that runs one group of commands after the other.

    The commands of a group are a `Conv` and what takes its tiles, or of one engine.
    """
    commands: list[list[Command]] = []
    for group in groups:
        assert not isinstance(group, bytes)
        commands.append(list(group) if isinstance(group, tuple) else [group])
    for before, after in zip(commands, commands[1:], strict=False):
        giver, taker = before[-1], after[0]
        assert giver.engine is not None
        assert taker.engine is not None
        if giver.engine != taker.engine:
            before[-1] = replace(giver, signal=giver.signal | 1 << taker.engine)
            after[0] = replace(taker, wait=taker.wait | 1 << giver.engine)
    flat = [*(command for group in commands for command in group), End()]
    code = b"".join(replace(command, tag=tag).encode() for tag, command in enumerate(flat))
    assert len(code) == COMMAND_BYTES * len(flat)
    return code
