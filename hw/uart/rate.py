"""The rate of the line, and the way back from one that does not work."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.uart.protocol import DEFAULT_BAUD, PHASE_BITS, increment_of_baud

__all__ = ["LineRate"]


class LineRate(Component):
    """Holds the phase increment; returns to :data:`DEFAULT_BAUD` when nothing good is heard.

    Parameters
    ----------
    clock_hz : int
    silence_cycles : int
        How long it waits for a good frame at another rate.

    Members
    -------
    change : In(1), wanted : In(PHASE_BITS)
        Change it now.
    good : In(1)
        The line is in use.
    increment : Out(PHASE_BITS)
    """

    def __init__(self, *, clock_hz: int, silence_cycles: int) -> None:
        self._default = increment_of_baud(DEFAULT_BAUD, clock_hz)
        self._silence_cycles = silence_cycles
        super().__init__(
            {
                "change": In(1),
                "wanted": In(PHASE_BITS),
                "good": In(1),
                "increment": Out(PHASE_BITS, init=self._default),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        silence = Signal(range(self._silence_cycles + 1))
        over = Signal()
        m.d.sync += [silence.eq(silence + 1), over.eq(silence == self._silence_cycles)]
        with m.If(self.change):
            m.d.sync += [self.increment.eq(self.wanted), silence.eq(0), over.eq(0)]
        with m.Elif(self.good):
            m.d.sync += [silence.eq(0), over.eq(0)]
        with m.Elif(over):
            m.d.sync += [self.increment.eq(self._default), silence.eq(0)]
        return m
