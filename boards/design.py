"""What is built for a board: system on chip, its memory, clock and pins."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import Component, connect
from celosia.boards.board import Board
from celosia.boards.fpga.clocking import BoardClock
from celosia.boards.fpga.flows import FLOWS
from celosia.boards.fpga.multipliers import table_rows
from celosia.hw.array.products import TableRows
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.uart import Identity
from celosia.hw.soc import Soc
from celosia.hw.system.crossing import MEMORY_DOMAIN

__all__ = ["BoardDesign"]

LAMP_SECONDS = 0.05
"""How long a lamp stays on: a glance would miss the microseconds of an inference."""


class BoardDesign(Component):
    """The top of a board's design. Its pins are those it requests of the platform.

    Parameters
    ----------
    board : Board
    config : NpuConfig
    identity : Identity
        What the board says of itself: its clock is the one that is made, its memory the one that
        there is.
    """

    def __init__(self, board: Board, config: NpuConfig, *, identity: Identity) -> None:
        self._board = board
        self._config = config
        self._identity = identity
        super().__init__({})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        board, identity = self._board, self._identity
        clock_hz = identity.clock_hz
        m.submodules.soc = soc = Soc(
            self._config,
            identity=identity,
            local_memory=self._local_memory(),
            tables=self._tables(),
        )
        m.submodules.memory = memory = board.memory.make(
            board, self._config, clock_hz, identity.memory_bytes
        )
        self._make_clocks(m, getattr(memory, "late_phase", None))
        connect(m, soc.mem, memory.bus)
        self._connect_uart(m, platform, soc)
        lit_cycles = int(LAMP_SECONDS * clock_hz)
        events = (("irq", soc.irq), ("active", soc.active))
        for (name, event), (resource, number, *part) in zip(events, board.leds, strict=False):
            lit = Signal(range(lit_cycles + 1), name=f"lit_{name}")
            # Pins are far from everything: registers on the way.
            seen = Signal(name=f"seen_{name}")
            m.d.sync += seen.eq(event)
            with m.If(seen):
                m.d.sync += lit.eq(lit_cycles)
            with m.Elif(lit != 0):
                m.d.sync += lit.eq(lit - 1)
            pin = _lamp(platform, resource, number, *part)
            m.submodules[f"lamp_{name}"] = buffer = io.Buffer("o", pin)
            shown = Signal(name=f"shown_{name}")
            m.d.sync += shown.eq(lit != 0)
            m.d.comb += buffer.o.eq(shown)
        return m

    def _local_memory(self) -> Any:
        make = self._board.local_memory
        return make(self._config) if make is not None and self._config.firmware else None

    def _tables(self) -> TableRows:
        flow = FLOWS[self._board.family]
        return table_rows(self._config, flow, self._board.capacity[flow.multiplier])

    def _make_clocks(self, m: Module, late_phase: float | None) -> None:
        pll = self._board.plan_clocks(self._identity.clock_hz)
        m.domains.sync = sync = ClockDomain()
        m.submodules.clock = clock = BoardClock(pll, late_phase=late_phase)
        m.d.comb += [sync.clk.eq(clock.clk), sync.rst.eq(clock.rst)]
        if self._board.memory.clock_hz:
            m.domains += (memory := ClockDomain(MEMORY_DOMAIN))
            m.d.comb += memory.clk.eq(clock.memory)
            m.submodules.memory_reset = ResetSynchronizer(clock.rst, domain=MEMORY_DOMAIN)
        if late_phase is not None:
            m.domains.late = late = ClockDomain(reset_less=True)
            m.d.comb += late.clk.eq(clock.late)

    def _connect_uart(self, m: Module, platform: Any, soc: Any) -> None:
        """Connect the serial line; the bridge itself synchronises what it receives."""
        # Only these lines are driven: flow control, where there is one, stays as it is.
        uart = _ports(platform, *self._board.uart)
        m.submodules.uart_rx = rx = io.Buffer("i", uart.rx)
        m.submodules.uart_tx = tx = io.Buffer("o", uart.tx)
        m.d.comb += [soc.rx.eq(rx.i), tx.o.eq(soc.tx)]


def _ports(platform: Any, name: str, number: int) -> Any:
    """Request a resource with parts, each as a port without a buffer."""
    parts = platform.lookup(name, number).ios
    return platform.request(name, number, dir={part.name: "-" for part in parts})


def _lamp(platform: Any, name: str, number: int, part: str = "") -> Any:
    """Request a lamp; a part of one that has several colours."""
    return (
        getattr(_ports(platform, name, number), part)
        if part
        else platform.request(name, number, dir="-")
    )
