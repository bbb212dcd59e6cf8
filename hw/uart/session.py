"""What the bridge remembers from request to request."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.uart import Status

__all__ = ["PLACE_BITS", "SEQUENCE_PLACE", "SequenceState"]

NUMBER_BITS = 8
STATUS_BITS = 3
PLACE_BITS = 5
"""Of the number of a bit in a word."""
SEQUENCE_PLACE = 8
"""Of the sequence number in a header."""


class SequenceState(Component):
    """The next sequence number, and which requests failed: registers that go round bit by bit.

    All of them move together with the request's header, 32 steps a round, in which each goes round
    four times and is again where it was. The header's sequence number passes in bits 8 to 15.

    Members
    -------
    step : In(1), place : In(5)
        Move; how many steps of the round have been done.
    sequence : In(1)
        The bit of the header at this place.
    accept : In(1)
        In this round: the next number is that of this request plus 1.
    clear : In(1)
        In this round: no request has failed.
    fail : In(1), status : In(Status)
        In this round: the request has failed, like this. Not with `accept`.
    expected : Out(1)
        At places 8 to 15: bit of the next number.
    state : Out(1)
        Bit of the first word of :class:`celosia.hw.contract.uart.LinkState`.
    """

    step: In(1)
    place: In(PLACE_BITS)
    sequence: In(1)
    accept: In(1)
    clear: In(1)
    fail: In(1)
    status: In(Status)
    expected: Out(1)
    state: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        expected, errors = Signal(NUMBER_BITS), Signal(NUMBER_BITS)
        last_sequence = Signal(NUMBER_BITS)
        last_status = Signal(STATUS_BITS)
        carry = Signal()
        here = Signal()  # the sequence number passes
        m.d.comb += [
            here.eq((self.place >> 3) == 1),
            self.expected.eq(expected[0]),
        ]
        with m.If(self.step):
            # Both sums begin with the lowest bit and are over before the carry is wanted again.
            addend = Mux(self.fail, errors[0], self.sequence)
            m.d.sync += [
                carry.eq((self.place == SEQUENCE_PLACE - 1) | (carry & addend)),
                expected.eq(
                    Cat(
                        expected[1:],
                        Mux(here & self.accept, self.sequence ^ carry, expected[0]),
                    )
                ),
                errors.eq(Cat(errors[1:], (errors[0] ^ (here & self.fail & carry)) & ~self.clear)),
                last_sequence.eq(
                    Cat(
                        last_sequence[1:],
                        Mux(here & self.fail, self.sequence, last_sequence[0]),
                    )
                ),
            ]
            with m.If(self.fail):
                m.d.sync += last_status.eq(self.status)
        with m.Switch(self.place[3:]):
            with m.Case(0):
                m.d.comb += self.state.eq(expected[0])
            with m.Case(1):
                m.d.comb += self.state.eq(errors[0])
            with m.Case(2):
                m.d.comb += self.state.eq(last_status.bit_select(self.place[:3], 1))
            with m.Case(3):
                m.d.comb += self.state.eq(last_sequence[0])
        return m
