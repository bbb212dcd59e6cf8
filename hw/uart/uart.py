"""Serial lines: 8 data bits, no parity, one stop bit, at a rate that may change while running.

The rate is the increment of a phase accumulator of :data:`PHASE_BITS` bits; a bit lasts until it
goes round. So any rate can be made from any clock, a bit being off by a clock at most and the mean
by less than 1 in 1,500 at 115,200 baud and 100 MHz.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.uart import PHASE_BITS

__all__ = ["UartReceiver", "UartTransmitter"]

CHARACTER_BITS = 10
"""Start bit, eight data bits, stop bit."""


class UartReceiver(Component):
    """From a line to characters.

    A character whose stop bit is missing is reported as an error; then the line has to be idle
    before the next one begins. A start bit that is over before its middle is ignored.

    Members
    -------
    rx : In(1)
        The line; asynchronous.
    increment : In(PHASE_BITS)
    valid : Out(1)
        A character was received; for one cycle.
    data : Out(8)
    error : Out(1)
        Instead of `valid`: there was no stop bit.
    """

    rx: In(1, init=1)
    increment: In(PHASE_BITS)
    valid: Out(1)
    data: Out(8)
    error: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.rx, line, init=1)
        phase = Signal(PHASE_BITS)
        following = Signal(PHASE_BITS + 1)
        left = Signal(range(CHARACTER_BITS + 1))  # bits of the character still to come
        broken = Signal()
        m.d.comb += following.eq(phase + self.increment)
        m.d.sync += [self.valid.eq(0), self.error.eq(0)]
        with m.If(left == 0):
            # From the edge half a bit to the middle of the start bit.
            m.d.sync += phase.eq(1 << (PHASE_BITS - 1))
            with m.If(line):
                m.d.sync += broken.eq(0)
            with m.Elif(~broken):
                m.d.sync += left.eq(CHARACTER_BITS)
        with m.Else():
            m.d.sync += phase.eq(following)
            with m.If(following[-1]):
                m.d.sync += [left.eq(left - 1), self.data.eq(Cat(self.data[1:], line))]
                with m.If(left == CHARACTER_BITS):
                    with m.If(line):
                        m.d.sync += left.eq(0)
                with m.Elif(left == 1):
                    m.d.sync += [
                        self.data.eq(self.data),
                        self.valid.eq(line),
                        self.error.eq(~line),
                        broken.eq(~line),
                    ]
        return m


class UartTransmitter(Component):
    """From characters to a line.

    Members
    -------
    i : In(stream of 8 bits)
    increment : In(PHASE_BITS)
    tx : Out(1)
    idle : Out(1)
        Nothing is being sent.
    """

    i: In(stream.Signature(8))
    increment: In(PHASE_BITS)
    tx: Out(1, init=1)
    idle: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase = Signal(PHASE_BITS)
        following = Signal(PHASE_BITS + 1)
        # What is sent after this bit, and above it a 1: nothing when idle.
        rest = Signal(CHARACTER_BITS)
        ending = Signal()
        m.d.comb += [
            following.eq(phase + self.increment),
            ending.eq(rest[1:] == 0),
            self.idle.eq(ending & ~rest[0]),
            # The next character's start bit follows the stop bit without a gap.
            self.i.ready.eq(ending & (~rest[0] | following[-1])),
        ]
        m.d.sync += phase.eq(Mux(self.idle, 0, following))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.tx.eq(0), rest.eq(Cat(self.i.payload, Const(0b11, 2)))]
        with m.Elif(following[-1] & ~self.idle):
            m.d.sync += [self.tx.eq(rest[0]), rest.eq(rest >> 1)]
        return m
