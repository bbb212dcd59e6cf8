"""A queue into another clock domain that always has room."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["AnswerQueue"]


class AnswerQueue(Component):
    """What comes in one clock domain is shown in another, each for a cycle, in order.

    It is :class:`amaranth.lib.fifo.AsyncFIFO`, where only so much is asked for as there is room
    for, and all is taken as it comes. So the writer's count waits for no comparison with the
    reader's, which would be the longest path of a fast memory's clock.

    The two domains are reset together, for some cycles of the slower one.

    Parameters
    ----------
    width_bits : int
    depth : int
        Most entries that have been written and not shown.
    w_domain, r_domain : str

    Members
    -------
    w_en : In(1), w_data : In(width_bits)
    r_rdy : Out(1), r_data : Out(width_bits)
        There is an entry: this one, in this cycle only.
    """

    def __init__(self, *, width_bits: int, depth: int, w_domain: str, r_domain: str) -> None:
        if depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        self._address_bits = (depth - 1).bit_length()
        self._w_domain, self._r_domain = w_domain, r_domain
        super().__init__(
            {
                "w_en": In(1),
                "w_data": In(width_bits),
                "r_rdy": Out(1),
                "r_data": Out(width_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self._address_bits
        m.submodules.storage = storage = Memory(shape=len(self.w_data), depth=1 << bits, init=[])
        write = storage.write_port(domain=self._w_domain)
        read = storage.read_port(domain=self._r_domain)
        # Counts, and as Gray codes, of which one bit changes at a time. One bit more than an
        # address has: as many as there are places may be ahead.
        written, written_next = Signal(bits + 1), Signal(bits + 1)
        shown, shown_next = Signal(bits + 1), Signal(bits + 1)
        written_gray, arrived_gray = Signal(bits + 1), Signal(bits + 1)
        shown_gray = Signal(bits + 1)
        m.submodules.arrived = FFSynchronizer(written_gray, arrived_gray, o_domain=self._r_domain)
        m.d.comb += [
            written_next.eq(written + self.w_en),
            write.en.eq(self.w_en),
            write.addr.eq(written[:bits]),
            write.data.eq(self.w_data),
            self.r_rdy.eq(shown_gray != arrived_gray),
            shown_next.eq(shown + self.r_rdy),
            read.addr.eq(shown_next[:bits]),
            self.r_data.eq(read.data),
        ]
        m.d[self._w_domain] += [
            written.eq(written_next),
            written_gray.eq(_gray(written_next)),
        ]
        m.d[self._r_domain] += [shown.eq(shown_next), shown_gray.eq(_gray(shown_next))]
        return m


def _gray(count: Signal) -> Any:
    return count ^ count[1:]
