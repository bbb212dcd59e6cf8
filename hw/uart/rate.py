"""The rate of the line, and the way back from one that does not work."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.uart import (
    DEFAULT_BAUD,
    MOST_INCREMENT_BITS,
    PHASE_BITS,
    increment_of_baud,
)

__all__ = ["LineRate", "Ticker"]


class Ticker(Component):
    """Counts clocks for whoever has to wait for long.

    Parameters
    ----------
    period_bits : int
        There is a tick every ``1 << period_bits`` clocks.

    Members
    -------
    tick : Out(1)
    """

    def __init__(self, *, period_bits: int) -> None:
        self._period_bits = period_bits
        super().__init__({"tick": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(self._period_bits)
        following = Signal(self._period_bits + 1)
        m.d.comb += following.eq(count + 1)
        m.d.sync += [count.eq(following), self.tick.eq(following[-1])]
        return m


class LineRate(Component):
    """Holds the phase increment; returns to :data:`DEFAULT_BAUD` when nothing good is heard.

    Parameters
    ----------
    clock_hz : int
    silence_ticks : int
        How many ticks it waits for a good frame at another rate.

    Members
    -------
    tick : In(1)
    change : In(1), wanted : In(MOST_INCREMENT_BITS)
        Change it, in the cycle after the next one; `wanted` is looked at in the next one.
    good : In(1)
        The line is in use.
    increment : Out(PHASE_BITS)
    """

    def __init__(self, *, clock_hz: int, silence_ticks: int) -> None:
        self._default = increment_of_baud(DEFAULT_BAUD, clock_hz)
        self._silence_ticks = silence_ticks
        super().__init__(
            {
                "tick": In(1),
                "change": In(1),
                "wanted": In(MOST_INCREMENT_BITS),
                "good": In(1),
                "increment": Out(PHASE_BITS, init=self._default),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Counts up to a power of two, so that it is seen in one bit that the time is over.
        bits = (self._silence_ticks - 1).bit_length()
        begin = (1 << bits) - self._silence_ticks
        silence = Signal(bits + 1, init=begin)
        over = silence[-1]
        # Both come late in their cycle, and are in no hurry.
        changes, heard = Signal(), Signal()
        m.d.sync += [changes.eq(self.change), heard.eq(self.good)]
        with m.If(changes | heard | over):
            m.d.sync += silence.eq(begin)
        with m.Elif(self.tick):
            m.d.sync += silence.eq(silence + 1)
        with m.If(changes):
            m.d.sync += self.increment.eq(self.wanted)
        with m.Elif(over):
            m.d.sync += self.increment.eq(self._default)
        return m
