"""From the pieces of a reply to its bytes."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.uart.cobs import BYTE_OF_FRAME

__all__ = ["PIECE", "PieceSender"]

PIECE = data.StructLayout({"bytes": 32, "more": 2, "last": 1, "silent": 1})
"""Up to four bytes, the lowest first; how many but one; whether the frame ends with them; whether
they only enter the CRC."""


class PieceSender(Component):
    """Sends the bytes of pieces one after the other.

    Members
    -------
    i : In(stream of PIECE)
    o : Out(stream of BYTE_OF_FRAME)
    silent : Out(1)
        Of the bytes in `o`.
    """

    i: In(stream.Signature(PIECE))
    o: Out(stream.Signature(BYTE_OF_FRAME))
    silent: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        piece = Signal(PIECE, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(~self.o.valid),
            self.o.payload.data.eq(piece.bytes[:8]),
            self.o.payload.last.eq(piece.last & (piece.more == 0)),
            self.silent.eq(piece.silent),
        ]
        with m.If(self.o.valid):
            with m.If(self.o.ready):
                m.d.sync += [
                    piece.bytes.eq(piece.bytes[8:]),
                    piece.more.eq(piece.more - 1),
                    self.o.valid.eq(piece.more != 0),
                ]
        with m.Else():
            m.d.sync += [piece.eq(self.i.payload), self.o.valid.eq(self.i.valid)]
        return m
