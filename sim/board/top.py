"""A board without its pins: system on chip and memory, between a clock and a serial line."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.uart import Identity
from celosia.hw.soc import Soc

__all__ = ["BoardTop"]


class BoardTop(Component):
    """What ``uart_harness.cpp`` drives.

    Parameters
    ----------
    config : NpuConfig
    identity : Identity
    memory : Component
        With a port ``bus``, as :class:`celosia.hw.system.ram.BlockRam` has.

    Members
    -------
    rx : In(1), tx : Out(1)
        Serial line.
    irq : Out(1)
    """

    def __init__(self, config: NpuConfig, *, identity: Identity, memory: Any) -> None:
        self._config = config
        self._identity = identity
        self._memory = memory
        super().__init__({"rx": In(1), "tx": Out(1), "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.soc = soc = Soc(self._config, identity=self._identity)
        m.submodules.memory = memory = self._memory
        connect(m, soc.mem, memory.bus)
        m.d.comb += [soc.rx.eq(self.rx), self.tx.eq(soc.tx), self.irq.eq(soc.irq)]
        return m
