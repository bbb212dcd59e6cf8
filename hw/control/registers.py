"""The register file of the machine, and what the rest of it sees of the registers at all times."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.bus.csr import RegisterFile, csr_signature
from celosia.hw.bus.ports import REGION_TABLE
from celosia.hw.contract.isa import Region
from celosia.hw.control.regions import STORED, WATCHED, RegionMemory

__all__ = ["MemoryRegisters", "ShellRegisters"]


class ShellRegisters(Component):
    """Every register in flip-flops of its own.

    Members
    -------
    bus : In(Wishbone)
        The register bus.
    region_select : In(2)
        Not looked at: `regions` has all of them.
    regions : Out(REGION_TABLE)
    bus_timeout : Out(32)
    limit : Out(32), limit_seen : Out(1)
        The watchdog's, while `limit_seen` is high, which it is but for single cycles.
    clearing : Out(1)
        Registers are being cleared, and requests stall.

    Attributes
    ----------
    fields : dict of dict
        As of :class:`celosia.hw.bus.csr.RegisterFile`: registers that other parts read and write.
    """

    def __init__(self) -> None:
        self._file = self._register_file()
        super().__init__(
            {
                "bus": In(csr_signature()),
                "region_select": In(range(len(Region))),
                "regions": Out(REGION_TABLE),
                "bus_timeout": Out(32),
                "limit": Out(32),
                "limit_seen": Out(1),
                "clearing": Out(1),
            }
        )

    def _register_file(self) -> RegisterFile:
        return RegisterFile()

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        """Ports of the fields, by names of register and field."""
        fields: dict[str, dict[str, Any]] = self._file.fields
        return fields

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.file = self._file
        connect(m, flipped(self.bus), self._file.bus)
        m.d.comb += self.clearing.eq(self._file.clearing)
        self._show(m)
        return m

    def _show(self, m: Module) -> None:
        fields = self.fields
        m.d.comb += [
            self.bus_timeout.eq(fields["bus_timeout"]["value"]),
            self.limit.eq(fields["watchdog"]["value"]),
            self.limit_seen.eq(1),
            *(
                self.regions[region][part].eq(fields[f"region{region}_{part}"]["value"])
                for region in Region
                for part in ("base", "size")
            ),
        ]


class MemoryRegisters(ShellRegisters):
    """Registers that nobody but their reader needs are in a memory.

    All entries of `regions` are the one that `region_select` says. The limit is out of sight while
    a register is read.
    """

    def _register_file(self) -> RegisterFile:
        return RegisterFile(stored=STORED, watched=WATCHED)

    def _show(self, m: Module) -> None:
        m.submodules.regions = memory = RegionMemory()
        m.d.comb += [
            memory.written.eq(self._file.written),
            memory.select.eq(self.region_select),
            self.regions.eq(memory.regions),
            self.bus_timeout.eq(memory.bus_timeout),
            self.limit.eq(self._file.shown),
            self.limit_seen.eq(self._file.shows),
        ]
