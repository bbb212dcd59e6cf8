"""A board without its pins: system on chip and memory, between a clock and a serial line."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import ClockDomain, Module, ResetSignal
from amaranth.lib.wiring import Component, In, Out, connect
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.uart import Identity
from celosia.hw.soc import Soc
from celosia.hw.system.crossing import MEMORY_DOMAIN

__all__ = ["BoardTop"]


class BoardTop(Component):
    """What ``uart_harness.cpp`` drives.

    Parameters
    ----------
    config : NpuConfig
    identity : Identity
    memory : Component
        With a port ``bus``, as :class:`celosia.hw.system.ram.BlockRam` has.
    memory_clock : bool
        It uses domain ``memory``.

    Members
    -------
    rx : In(1), tx : Out(1)
        Serial line.
    irq : Out(1)
    memory_clk : In(1)
        Clock of the memory, if it has one.
    """

    def __init__(
        self, config: NpuConfig, *, identity: Identity, memory: Any, memory_clock: bool = False
    ) -> None:
        self._config = config
        self._identity = identity
        self._memory = memory
        self._memory_clock = memory_clock
        ports = {"rx": In(1), "tx": Out(1), "irq": Out(1)}
        super().__init__({**ports, "memory_clk": In(1)} if memory_clock else ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._memory_clock:
            m.domains += (domain := ClockDomain(MEMORY_DOMAIN))
            m.d.comb += [domain.clk.eq(self.memory_clk), domain.rst.eq(ResetSignal())]
        m.submodules.soc = soc = Soc(self._config, identity=self._identity)
        m.submodules.memory = memory = self._memory
        connect(m, soc.mem, memory.bus)
        m.d.comb += [soc.rx.eq(self.rx), self.tx.eq(soc.tx), self.irq.eq(soc.irq)]
        return m
