"""A ring of block RAM between a part that writes it freely and a stream of what is complete."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.fabric.block import BlockMemory

__all__ = ["Ring"]


class Ring(Component):
    """Words are written anywhere; those before `committed` come out in order.

    One word in two cycles. What comes out is the memory's output: the word stays where it is until
    it has been taken.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words, a power of two.
    granularity : int or None
        Bits that are written together; None: whole words.

    Members
    -------
    write : In(width / granularity), address : In(range(depth)), data : In(width)
    committed : In(range(depth))
        One past the last word that may come out.
    oldest : Out(range(depth))
        The words from here to `committed` must not be written.
    pending : Out(1)
        There are such words.
    o : Out(stream)
    """

    def __init__(self, *, width: int, depth: int, granularity: int | None = None) -> None:
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, at least 2, not {depth!r}")
        self._depth = depth
        self._granularity = granularity
        super().__init__(
            {
                "write": In(width // (granularity or width)),
                "address": In(range(depth)),
                "data": In(width),
                "committed": In(range(depth)),
                "oldest": Out(range(depth)),
                "pending": Out(1),
                "o": Out(stream.Signature(width)),
            }
        )

    @property
    def depth(self) -> int:
        """Words."""
        return self._depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = BlockMemory(
            width_bits=len(self.data), depth=self._depth, granularity_bits=self._granularity
        )
        m.d.comb += [
            memory.write_en.eq(self.write),
            memory.write_addr.eq(self.address),
            memory.write_data.eq(self.data),
            # Not written while it is asked for: what is committed was written a cycle before.
            memory.read_addr.eq(self.oldest),
            self.o.payload.eq(memory.read_data),
            self.pending.eq(self.oldest != self.committed),
        ]
        with m.If(~self.o.valid):
            m.d.sync += self.o.valid.eq(self.pending)
        with m.Elif(self.o.ready):
            m.d.sync += [self.o.valid.eq(0), self.oldest.eq(self.oldest + 1)]
        return m
