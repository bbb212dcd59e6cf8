"""The counter of a hardware loop."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["LoopCounter"]


class LoopCounter(Component):
    """Counts the turns of a loop; whether the turn is the last one comes from a register.

    Parameters
    ----------
    width_bits : int
    compact : bool
        It is seen from the count, not from a register.

    Members
    -------
    count : In(width_bits)
        Turns, at least 1; stable while the loop runs.
    start : In(1)
        Go to the first turn.
    step : In(1)
        Go to the next turn; after the last one to the first one.
    last : Out(1)
        This is the last turn.
    """

    def __init__(self, *, width_bits: int, compact: bool = False) -> None:
        self._compact = compact
        if width_bits < 1:
            raise ValueError(f"width_bits must be at least 1, not {width_bits!r}")
        self._width_bits = width_bits
        super().__init__({"count": In(width_bits), "start": In(1), "step": In(1), "last": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(self._width_bits, reset_less=True)
        again = self.start | self.last
        with m.If(self.start | self.step):
            m.d.sync += left.eq(Mux(again, self.count, left) - 1)
        if self._compact:
            m.d.comb += self.last.eq(left == 0)
        else:
            with m.If(self.start | self.step):
                m.d.sync += self.last.eq(Mux(again, self.count == 1, left == 1))
        return m
