"""A board's memory for simulation: the real controller, with a chip behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from amaranth.hdl import DomainRenamer, Module
from amaranth.lib.wiring import Component, In, connect, flipped
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.system.crossing import MEMORY_DOMAIN, ClockCrossing
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_timing import SdramChip
from celosia.sim.board.sdram_chip import SimulatedSdram

__all__ = ["SimulatedSdramMemory"]

POWER_UP_US = 1.0
"""In place of 200: nothing here has to warm up."""


class SimulatedSdramMemory(Component):
    """SDRAM controller and chip, in one clock domain: ``sync``, or ``memory`` behind a crossing.

    Its storage is :data:`celosia.sim.board.sdram_chip.STORAGE_VERILOG`.

    Parameters
    ----------
    config : NpuConfig
        Its bus.
    chip : SdramChip
    clock_hz : int
        Of the domain.
    own_clock : bool
        The domain is ``memory``.

    Members
    -------
    bus : In(Wishbone)
    """

    def __init__(
        self, config: NpuConfig, *, chip: SdramChip, clock_hz: int, own_clock: bool = False
    ) -> None:
        timing = replace(chip.timing, power_up_us=POWER_UP_US)
        self._chip = replace(chip, timing=timing)
        self._controller = SdramController(config, chip=self._chip, clock_hz=clock_hz)
        self._crossing = ClockCrossing(config) if own_clock else None
        super().__init__({"bus": In(initiator_signature(config))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        controller, chip = self._controller, SimulatedSdram(self._chip, verilog_storage=True)
        rename = DomainRenamer("sync" if self._crossing is None else MEMORY_DOMAIN)
        m.submodules.controller, m.submodules.chip = rename(controller), rename(chip)
        if self._crossing is None:
            connect(m, flipped(self.bus), controller.bus)
        else:
            m.submodules.crossing = crossing = self._crossing
            connect(m, flipped(self.bus), crossing.bus)
            connect(m, crossing.mem, controller.bus)
        pins: Any = controller.pins
        connect(m, pins, chip.pins)
        return m
