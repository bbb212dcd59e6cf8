"""Address generators: the loops of a vector command over one tensor, by adders alone."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.vector.counter import LoopCounter
from celosia.hw.vector.uop import LINE_SUM_BITS

__all__ = ["NoWalker", "Walker"]


class Walker(Component):
    """Lines of a tensor, one a step, in the order of the command's loops.

    ``base + oc + y * stride_y + x * stride_x + ky * stride_ky + kx * stride_kx``

    Counts and strides are stable from `start` to the last step. It counts its loops itself, so
    that a step depends on nothing but its own registers. The line has one bit more than an
    address: a sum that leaves the address space is seen to be out of range.

    Parameters
    ----------
    windowed : bool
        Whether there is a window; without, its members do not exist.
    counter : type of LoopCounter
        What counts its loops.

    Members
    -------
    start : In(1)
        Go to `base`.
    step : In(1)
        Go on to the next line.
    base, stride_x, stride_y, stride_kx, stride_ky : In
        Lines.
    stay : In(1)
        All channel tiles are at the same lines.
    out_w, out_h, n_kx, n_ky : In
        Turns of the loops, at least 1.
    line : Out(17)
        Current line.
    first, last : Out(1)
        With a window: the current line is the first, the last of its window.
    """

    def __init__(self, *, windowed: bool, counter: type[LoopCounter] = LoopCounter) -> None:
        self._windowed = windowed
        self._counter_type = counter
        members = {
            "start": In(1),
            "step": In(1),
            "base": In(16),
            "stride_x": In(12),
            "stride_y": In(16),
            "stay": In(1),
            "out_w": In(12),
            "out_h": In(12),
            "line": Out(LINE_SUM_BITS),
        }
        if windowed:
            members |= {
                "stride_kx": In(12),
                "stride_ky": In(16),
                "n_kx": In(8),
                "n_ky": In(8),
                "first": Out(1),
                "last": Out(1),
            }
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Where the window, the row and the channel tile begin. Without windows the line itself is
        # where one begins.
        place = Signal(LINE_SUM_BITS, reset_less=True) if self._windowed else self.line
        row = Signal(LINE_SUM_BITS, reset_less=True)
        tile = Signal(LINE_SUM_BITS, reset_less=True)
        window_last = Signal()
        m.submodules.x = x = self._counter(12)
        m.submodules.y = y = self._counter(12)
        next_place = Signal(LINE_SUM_BITS)
        m.d.comb += [
            x.count.eq(self.out_w),
            x.start.eq(self.start),
            x.step.eq(self.step & window_last),
            y.count.eq(self.out_h),
            y.start.eq(self.start),
            y.step.eq(self.step & window_last & x.last),
        ]
        with m.If(x.last & y.last):
            m.d.comb += next_place.eq(tile + ~self.stay)
        with m.Elif(x.last):
            m.d.comb += next_place.eq(row + self.stride_y)
        with m.Else():
            m.d.comb += next_place.eq(place + self.stride_x)

        with m.If(self.start):
            m.d.sync += [
                tile.eq(self.base),
                row.eq(self.base),
                self.line.eq(self.base),
            ]
            if self._windowed:
                m.d.sync += place.eq(self.base)
        with m.Elif(self.step & window_last):
            m.d.sync += self.line.eq(next_place)
            # What begins with this window begins where it does.
            with m.If(x.last):
                m.d.sync += row.eq(next_place)
            if self._windowed:
                m.d.sync += place.eq(next_place)
            with m.If(x.last & y.last):
                m.d.sync += tile.eq(next_place)
        if self._windowed:
            self._elaborate_window(m, next_place)
            m.d.comb += window_last.eq(self.last)
        else:
            m.d.comb += window_last.eq(1)
        return m

    def _counter(self, width_bits: int) -> LoopCounter:
        return self._counter_type(width_bits=width_bits)

    def _elaborate_window(self, m: Module, next_place: Signal) -> None:
        m.submodules.kx = kx = self._counter(8)
        m.submodules.ky = ky = self._counter(8)
        window_row = Signal(LINE_SUM_BITS, reset_less=True)
        next_window_row = Signal(LINE_SUM_BITS)
        m.d.comb += [
            self.last.eq(kx.last & ky.last),
            next_window_row.eq(window_row + self.stride_ky),
            kx.count.eq(self.n_kx),
            kx.start.eq(self.start),
            kx.step.eq(self.step),
            ky.count.eq(self.n_ky),
            ky.start.eq(self.start),
            ky.step.eq(self.step & kx.last),
        ]
        with m.If(self.start):
            m.d.sync += [window_row.eq(self.base), self.first.eq(1)]
        with m.Elif(self.step):
            m.d.sync += self.first.eq(self.last)
            with m.If(self.last):
                m.d.sync += window_row.eq(next_place)
            with m.Elif(kx.last):
                m.d.sync += [window_row.eq(next_window_row), self.line.eq(next_window_row)]
            with m.Else():
                m.d.sync += self.line.eq(self.line + self.stride_kx)


class NoWalker(Walker):
    """The place of a walker over a tensor that no operation of the machine has."""

    def elaborate(self, platform: object) -> Module:
        return Module()
