"""From words of 32 bits to a wider bus."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.wishbone import Wishbone

__all__ = ["WordLanes", "memory_signature"]

WORD_BITS = 32
ADDRESS_BITS = 32


def memory_signature(data_width: int = WORD_BITS) -> Wishbone:
    """Return the signature of a host's way to system memory, pipelined.

    Parameters
    ----------
    data_width : int
        32, 64 or 128 bits.
    """
    if data_width not in (32, 64, 128):
        raise ValueError(f"data_width must be 32, 64 or 128, not {data_width!r}")
    addr_width = ADDRESS_BITS - (data_width // 8 - 1).bit_length()
    return Wishbone(addr_width=addr_width, data_width=data_width, features=("err", "stall"))


class WordLanes(Component):
    """Lets an initiator of 32 bits use a wider target, without a cycle of delay.

    For initiators that have one access at a time and keep its address until the answer.

    Parameters
    ----------
    data_width : int
        Of the target.

    Members
    -------
    i : In(Wishbone)
        32 bits.
    o : Out(Wishbone)
        `data_width` bits; of a write only the lane of the word is selected.
    """

    def __init__(self, *, data_width: int) -> None:
        self._lanes = data_width // WORD_BITS
        super().__init__({"i": In(memory_signature()), "o": Out(memory_signature(data_width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane = Signal(range(self._lanes))
        lane_bits = len(self.i.adr) - len(self.o.adr)
        m.d.comb += [
            lane.eq(self.i.adr[:lane_bits]),
            self.o.adr.eq(self.i.adr[lane_bits:]),
            self.o.cyc.eq(self.i.cyc),
            self.o.stb.eq(self.i.stb),
            self.o.we.eq(self.i.we),
            self.o.dat_w.eq(self.i.dat_w.replicate(self._lanes)),
            self.o.sel.word_select(lane, WORD_BITS // 8).eq(self.i.sel),
            self.i.dat_r.eq(self.o.dat_r.word_select(lane, WORD_BITS)),
            self.i.ack.eq(self.o.ack),
            self.i.err.eq(self.o.err),
            self.i.stall.eq(self.o.stall),
        ]
        return m
