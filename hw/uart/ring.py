"""A ring of block RAM between a part that writes it freely and a stream of what is complete."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, stream
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Ring"]


class Ring(Component):
    """Words are written anywhere; those before `committed` come out in order.

    One word in three cycles: both the memory and what follows it have a register of their own.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words, a power of two.

    Members
    -------
    write : In(1), address : In(range(depth)), data : In(width)
    committed : In(range(depth))
        One past the last word that may come out.
    oldest : Out(range(depth))
        The words from here to `committed` must not be written.
    o : Out(stream)
    """

    def __init__(self, *, width: int, depth: int) -> None:
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, at least 2, not {depth!r}")
        self._depth = depth
        super().__init__(
            {
                "write": In(1),
                "address": In(range(depth)),
                "data": In(width),
                "committed": In(range(depth)),
                "oldest": Out(range(depth)),
                "o": Out(stream.Signature(width)),
            }
        )

    @property
    def depth(self) -> int:
        """Words."""
        return self._depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.o.payload.shape()
        m.submodules.memory = storage = memory.Memory(shape=shape, depth=self._depth, init=[])
        w_port, r_port = storage.write_port(), storage.read_port()
        asked = Signal()
        m.d.comb += [
            w_port.en.eq(self.write),
            w_port.addr.eq(self.address),
            w_port.data.eq(self.data),
            r_port.en.eq(1),
            r_port.addr.eq(self.oldest),
        ]
        with m.If(self.o.valid):
            m.d.sync += self.o.valid.eq(~self.o.ready)
        with m.Elif(asked):
            m.d.sync += [
                self.o.payload.eq(r_port.data),
                self.o.valid.eq(1),
                self.oldest.eq(self.oldest + 1),
                asked.eq(0),
            ]
        with m.Else():
            m.d.sync += asked.eq(self.oldest != self.committed)
        return m
