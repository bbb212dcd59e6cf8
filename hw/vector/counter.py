"""The counter of a hardware loop."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

__all__ = ["LoopCounter", "PlainLoopCounter"]


class LoopCounter(Component):
    """Counts the turns of a loop; whether the turn is the last one comes from a register.

    Parameters
    ----------
    width_bits : int
    late : bool
        `start` and `step` are known late in their cycle: they choose between two sums, and wait for
        no carry.

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

    def __init__(self, *, width_bits: int, late: bool = False) -> None:
        if width_bits < 1:
            raise ValueError(f"width_bits must be at least 1, not {width_bits!r}")
        self._width_bits = width_bits
        self._late = late
        super().__init__({"count": In(width_bits), "start": In(1), "step": In(1), "last": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(self._width_bits, reset_less=True)
        again = self.start | self.last
        with m.If(self.start | self.step):
            if self._late:
                m.d.sync += left.eq(Mux(again, self.count - 1, left - 1))
            else:
                m.d.sync += left.eq(Mux(again, self.count, left) - 1)
        self._show_last(m, left, again)
        return m

    def _show_last(self, m: Module, left: Signal, again: Value) -> None:
        with m.If(self.start | self.step):
            m.d.sync += self.last.eq(Mux(again, self.count == 1, left == 1))


class PlainLoopCounter(LoopCounter):
    """The last turn is seen from the count."""

    def _show_last(self, m: Module, left: Signal, again: Value) -> None:
        m.d.comb += self.last.eq(left == 0)
