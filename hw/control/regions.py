"""Registers that are in a memory, and the copies of them that the machine reads."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.csr import stored_index
from celosia.hw.bus.ports import REGION_TABLE
from celosia.hw.bus.stored import STORED_WRITE, WordMemory
from celosia.hw.contract.isa import Region
from celosia.hw.contract.regs import register

__all__ = ["STORED", "WATCHED", "RegionMemory"]

PARTS = ("base", "size")
WATCHED = "watchdog"
STORED = (
    WATCHED,
    "bus_timeout",
    "scratch",
    *(f"region{region}_{part}" for region in Region for part in PARTS),
)
"""Registers that nobody but their reader needs in flip-flops."""

SELECT_BITS = 2

assert len(Region) == 1 << SELECT_BITS


class RegionMemory(Component):
    """Base and size of the region that is in use, from a copy of what is written.

    Members
    -------
    written : In(STORED_WRITE)
    select : In(2)
        Region wanted.
    regions : Out(REGION_TABLE)
        In the same cycle; all entries are the one that is wanted.
    bus_timeout : Out(32)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "written": In(STORED_WRITE),
                "select": In(SELECT_BITS),
                "regions": Out(REGION_TABLE),
                "bus_timeout": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        written = self.written
        first = stored_index(register("region0_base"))
        for place, part in enumerate(PARTS):
            here = Signal(name=f"is_{part}")
            with m.Switch(written.index):
                with m.Case(*(stored_index(register(f"region{r}_{part}")) for r in Region)):
                    m.d.comb += here.eq(1)
            m.submodules[part] = memory = WordMemory(index_bits=SELECT_BITS)
            m.d.comb += [
                memory.bytes.eq(written.bytes & here.replicate(len(written.bytes))),
                memory.data.eq(written.data),
                # A region has two registers, one after the other.
                memory.write_index.eq(((written.index - first - place) >> 1)[:SELECT_BITS]),
                memory.read_index.eq(self.select),
                *(entry[part].eq(memory.value) for entry in self.regions),
            ]
        # It is looked at all the time.
        with m.If(written.index == stored_index(register("bus_timeout"))):
            for byte, enable in enumerate(written.bytes):
                with m.If(enable):
                    place = self.bus_timeout.word_select(byte, 8)
                    m.d.sync += place.eq(written.data.word_select(byte, 8))
        return m
