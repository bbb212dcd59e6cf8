"""What the bridge says of itself, bit by bit: its identification and its counters."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.uart import IDENTITY_WORDS, STATE_WORDS, Identity
from celosia.hw.uart.constants import look_up
from celosia.hw.uart.session import PLACE_BITS

__all__ = ["Answers"]

COUNTER_BITS = 8
INDEX_BITS = 5


class Answers(Component):
    """The words of the replies to HELLO and to PING.

    Parameters
    ----------
    identity : Identity
        What HELLO is answered with.

    Members
    -------
    hello : In(1)
        Of HELLO's reply, else of PING's.
    index : In(5), place : In(5)
        Which word, and which of its bits.
    state : In(1)
        The bit of the state's first word.
    dropped : In(8), overflows : In(8), framing_errors : In(8)
        The state's second word.
    events : In(8)
        Above them, where PING has a 0: of an event.
    bit : Out(1)
    over : Out(1)
        There are not so many words.
    """

    def __init__(self, *, identity: Identity) -> None:
        self._identity = identity
        super().__init__(
            {
                "hello": In(1),
                "index": In(INDEX_BITS),
                "place": In(PLACE_BITS),
                "state": In(1),
                "dropped": In(COUNTER_BITS),
                "overflows": In(COUNTER_BITS),
                "framing_errors": In(COUNTER_BITS),
                "events": In(COUNTER_BITS),
                "bit": Out(1),
                "over": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        assert (STATE_WORDS, IDENTITY_WORDS) == (2, 16)
        bits = [
            word >> place & 1 for word in self._identity.words for place in range(1 << PLACE_BITS)
        ]
        identity = look_up(m, bits, Cat(self.place, self.index), platform=platform)
        counters = Cat(self.dropped, self.overflows, self.framing_errors, self.events)
        counter = Signal()
        m.d.comb += [
            counter.eq(counters.bit_select(self.place, 1)),
            self.bit.eq(Mux(self.hello, identity, Mux(self.index[0], counter, self.state))),
            self.over.eq(Mux(self.hello, self.index[4], self.index[1])),
        ]
        return m
