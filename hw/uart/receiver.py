"""From characters to the words of good requests: nothing of a damaged frame comes out."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.uart.cobs import CobsDecoder
from celosia.hw.uart.crc import byte_crc
from celosia.hw.uart.protocol import REQUEST_BYTES
from celosia.hw.uart.ring import Ring

__all__ = ["FrameReceiver"]

WORD_BYTES = 4
HEAD_WORDS = REQUEST_BYTES // WORD_BYTES + 1
"""Header, CRC and the word of payload that `count` leaves out."""
WORDS_BITS = 9
NO_WORDS, NO_PAYLOAD = (1 << WORDS_BITS) - HEAD_WORDS, (1 << WORDS_BITS) - 1
MOST_BUFFER_WORDS = 1 << WORDS_BITS
"""A frame that is so long that its words are counted wrongly does not fit."""


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
        Characters; at least four cycles apart.
    o : Out(stream of 32 bits)
    good : Out(1)
        A good frame is complete; for one cycle.
    dropped : Out(8), overflows : Out(8), framing_errors : Out(8)
        Counters, see :class:`celosia.hw.uart.protocol.LinkState`.
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
        m.submodules.crc = crc = byte_crc()
        m.submodules.ring = ring = Ring(width=32, depth=self._buffer_words)
        connect(m, ring.o, flipped(self.o))

        word = Signal(32, reset_less=True)
        lane = Signal(range(WORD_BYTES))
        word_done = Signal()
        # Words of this frame less those that every request with payload has: what `count` says.
        words = Signal(WORDS_BITS, init=NO_WORDS)
        wanted = Signal(WORDS_BITS)
        place = Signal(range(self._buffer_words))  # of the next word
        after = Signal.like(place)
        before = Signal.like(place)  # of the last word, which may be the CRC
        committed = Signal.like(place)
        full = Signal()
        overflow = Signal()
        whole = Signal()
        m.d.comb += [
            cobs.i_valid.eq(self.valid),
            cobs.i_data.eq(self.data),
            cobs.i_error.eq(self.error),
            crc.data.eq(cobs.data),
            crc.valid.eq(cobs.valid),
            crc.start.eq(cobs.end),
            ring.committed.eq(committed),
            ring.address.eq(place),
            ring.data.eq(word),
            after.eq(place + 1),
            ring.write.eq(word_done & ~full & ~overflow),
        ]
        m.d.sync += [word_done.eq(0), self.good.eq(0), full.eq(after == ring.oldest)]
        with m.If(cobs.valid):
            m.d.sync += [
                word.eq(Cat(word[8:], cobs.data)),
                lane.eq(lane + 1),
                word_done.eq(lane == WORD_BYTES - 1),
            ]
        with m.If(word_done):
            m.d.sync += words.eq(words + 1)
            with m.If(words == NO_WORDS):
                m.d.sync += wanted.eq(Mux(word[0], word[16:24], NO_PAYLOAD))
            with m.If(full):
                m.d.sync += overflow.eq(1)
            with m.Elif(~overflow):
                m.d.sync += [place.eq(after), before.eq(place)]
        started = words != NO_WORDS
        m.d.comb += whole.eq(
            cobs.good & crc.match_detected & (lane == 0) & (words == wanted) & started
        )
        with m.If(cobs.end):
            m.d.sync += [lane.eq(0), words.eq(NO_WORDS), overflow.eq(0), place.eq(committed)]
            with m.If(whole & ~overflow):
                m.d.sync += [self.good.eq(1), committed.eq(before), place.eq(before)]
            with m.Elif(whole):
                m.d.sync += self.overflows.eq(self.overflows + 1)
            with m.Elif(~cobs.empty):
                m.d.sync += self.dropped.eq(self.dropped + 1)
        with m.If(self.error):
            m.d.sync += self.framing_errors.eq(self.framing_errors + 1)
        return m
