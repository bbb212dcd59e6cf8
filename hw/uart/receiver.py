"""From characters to the words of good requests: nothing of a damaged frame comes out."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.contract.uart import REQUEST_BYTES
from celosia.hw.uart.cobs import CobsDecoder
from celosia.hw.uart.crc import SerialCrc
from celosia.hw.uart.ring import Ring

__all__ = ["FrameReceiver"]

WORD_BYTES = 4
BYTE_BITS = 8
LAST_WORD = REQUEST_BYTES // WORD_BYTES - 1
"""Index of the CRC in a request without payload."""
WORDS_BITS = 9
MOST_BUFFER_WORDS = 1 << WORDS_BITS
"""A frame that is so long that its words are counted wrongly does not fit."""
BEFORE_FIRST_BYTE = 2 * WORD_BYTES * MOST_BUFFER_WORDS - 1
PLACE_OF_KIND, PLACE_OF_COUNT = 0, 2
"""Bytes of a header."""


class FrameReceiver(Component):
    """Decodes frames into a ring and hands out those whose CRC and length are right.

    A request is a whole number of words: two of header, payload if its type says so, CRC. The
    words come without the CRC, so who takes them knows from each header where the next one is.

    Parameters
    ----------
    buffer_words : int
        Size of the ring, a power of two.

    Members
    -------
    valid : In(1), data : In(8), error : In(1)
        Characters; at least ten cycles apart.
    o : Out(stream of 32 bits)
    good : Out(1)
        A good frame is complete; for one cycle.
    dropped : Out(8), overflows : Out(8), framing_errors : Out(8)
        Counters, see :class:`celosia.hw.contract.uart.LinkState`.
    """

    def __init__(self, *, buffer_words: int) -> None:
        if not 32 <= buffer_words <= MOST_BUFFER_WORDS:
            raise ValueError(
                f"buffer_words must be 32 to {MOST_BUFFER_WORDS}, not {buffer_words!r}"
            )
        self._buffer_words = buffer_words
        super().__init__(
            {
                "valid": In(1),
                "data": In(8),
                "error": In(1),
                "o": Out(stream.Signature(32)),
                "good": Out(1),
                "dropped": Out(8),
                "overflows": Out(8),
                "framing_errors": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cobs = cobs = CobsDecoder()
        m.submodules.crc = crc = SerialCrc()
        m.submodules.ring = ring = Ring(
            width=WORD_BYTES * BYTE_BITS, depth=self._buffer_words, granularity=BYTE_BITS
        )
        connect(m, ring.o, flipped(self.o))

        byte = Signal(BYTE_BITS + 1)  # what the CRC has not taken, and above it a 1
        fresh = Signal()  # it has not taken anything
        # Of the byte in the frame, one less before the first.
        place = Signal(range(BEFORE_FIRST_BYTE + 1), init=BEFORE_FIRST_BYTE)
        lane, index = place[:2], place[2:]
        head = Signal()
        has_payload = Signal()
        last = Signal(WORDS_BITS)  # index of the last word, which is the CRC
        committed = Signal(range(self._buffer_words))
        whole, full, overflow = Signal(), Signal(), Signal()
        m.d.comb += [
            cobs.i_valid.eq(self.valid),
            cobs.i_data.eq(self.data),
            cobs.i_error.eq(self.error),
            crc.start.eq(cobs.end),
            crc.shift.eq(byte[1:].any()),
            crc.bit.eq(byte[0]),
            head.eq(index == 0),
            ring.committed.eq(committed),
            ring.address.eq(committed + index),
            ring.data.eq(byte[:BYTE_BITS].replicate(WORD_BYTES)),
            full.eq((ring.address == ring.oldest) & ~head),
            whole.eq(
                cobs.good & crc.match & (lane == WORD_BYTES - 1) & (index[:WORDS_BITS] == last)
            ),
        ]
        with m.If(fresh & ~full & ~overflow):
            m.d.comb += ring.write.eq(1 << lane)
        m.d.sync += [fresh.eq(cobs.valid), self.good.eq(0)]
        with m.If(cobs.valid):
            m.d.sync += [byte.eq(Cat(cobs.data, Const(1, 1))), place.eq(place + 1)]
        with m.Elif(crc.shift):
            m.d.sync += byte.eq(byte >> 1)
        with m.If(fresh):
            m.d.sync += overflow.eq(overflow | full)
            with m.If(head & (lane == PLACE_OF_KIND)):
                m.d.sync += has_payload.eq(byte[0])
            with m.If(head & (lane == PLACE_OF_COUNT)):
                # `count` is one less than the number of words.
                longer = byte[:BYTE_BITS] + LAST_WORD + 1
                m.d.sync += last.eq(Mux(has_payload, longer, LAST_WORD))
        with m.If(cobs.end):
            m.d.sync += [place.eq(BEFORE_FIRST_BYTE), overflow.eq(0)]
            with m.If(whole & ~overflow):
                # The next frame begins where the CRC was.
                m.d.sync += [self.good.eq(1), committed.eq(ring.address)]
            with m.Elif(whole):
                m.d.sync += self.overflows.eq(self.overflows + 1)
            with m.Elif(~cobs.empty):
                m.d.sync += self.dropped.eq(self.dropped + 1)
        with m.If(self.error):
            m.d.sync += self.framing_errors.eq(self.framing_errors + 1)
        return m
