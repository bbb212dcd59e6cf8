"""What is kept between the phases of an addition."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.vector.uop import GROUP, GROUP_BITS

__all__ = ["NoScratch", "Scratch"]


class Scratch(Component):
    """A group of vectors in LUT RAM: read in the same cycle, written at its end.

    Members
    -------
    read_index : In(4)
    read_data : Out(width_bits)
        Combinational.
    write : In(1)
    write_index : In(4)
    write_data : In(width_bits)
    """

    def __init__(self, *, width_bits: int) -> None:
        if width_bits < 1:
            raise ValueError(f"width_bits must be at least 1, not {width_bits!r}")
        self._width_bits = width_bits
        super().__init__(
            {
                "read_index": In(GROUP_BITS),
                "read_data": Out(width_bits),
                "write": In(1),
                "write_index": In(GROUP_BITS),
                "write_data": In(width_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self._width_bits, depth=GROUP, init=[])
        read = memory.read_port(domain="comb")
        write = memory.write_port()
        m.d.comb += [
            read.addr.eq(self.read_index),
            self.read_data.eq(read.data),
            write.en.eq(self.write),
            write.addr.eq(self.write_index),
            write.data.eq(self.write_data),
        ]
        return m


class NoScratch(Scratch):
    """The place of such a memory in a machine that adds nothing."""

    def elaborate(self, platform: object) -> Module:
        return Module()
