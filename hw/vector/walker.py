"""Address generators: the loops of a vector command over one tensor, by adders alone."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.vector.counter import LoopCounter
from celosia.hw.vector.uop import LINE_SUM_BITS

__all__ = ["Walker", "WindowWalker"]


class Walker(Component):
    """Lines of a tensor: ``base + oc + y * stride_y + x * stride_x``.

    Strides and counts are stable from `start` to the last step. The line has one bit more
    than an address, so a sum that leaves the address space is seen to be out of range.

    Members
    -------
    start : In(1)
        Go to `base`.
    step : In(1)
        Go on to the next line: of the row, or of the next row.
    step_oc : In(1)
        With the last `step` of a channel tile: go to the start of the next one.
    out_w : In(12)
        Vectors of a row.
    line : Out(17)
        Current line.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "base": In(16),
                "stride_x": In(12),
                "stride_y": In(16),
                "out_w": In(12),
                "step": In(1),
                "step_oc": In(1),
                "line": Out(unsigned(LINE_SUM_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile = Signal(LINE_SUM_BITS, reset_less=True)
        row = Signal(LINE_SUM_BITS, reset_less=True)
        m.submodules.x = x = LoopCounter(width_bits=12)
        m.d.comb += [x.count.eq(self.out_w), x.start.eq(self.start), x.step.eq(self.step)]

        next_tile = Signal(LINE_SUM_BITS)
        next_row = Signal(LINE_SUM_BITS)
        m.d.comb += [next_tile.eq(tile + 1), next_row.eq(row + self.stride_y)]
        with m.If(self.start):
            m.d.sync += [
                tile.eq(self.base),
                row.eq(self.base),
                self.line.eq(self.base),
            ]
        with m.Elif(self.step):
            with m.If(self.step_oc):
                m.d.sync += [
                    tile.eq(next_tile),
                    row.eq(next_tile),
                    self.line.eq(next_tile),
                ]
            with m.Elif(x.last):
                m.d.sync += [
                    row.eq(next_row),
                    self.line.eq(next_row),
                ]
            with m.Else():
                m.d.sync += [
                    self.line.eq(self.line + self.stride_x),
                ]
        return m


class WindowWalker(Component):
    """As :class:`Walker`, with a window of lines at each place.

    Members
    -------
    start, step, step_oc, line
        As for :class:`Walker`; `step` goes from element to element of the window first.
    stride_kx, stride_ky : In
        Lines from column to column and from row to row of the window.
    n_kx, n_ky : In(8)
        Its columns and rows.
    first, last : Out(1)
        The current line is the first, the last of its window.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "base": In(16),
                "stride_x": In(12),
                "stride_y": In(16),
                "stride_kx": In(12),
                "stride_ky": In(16),
                "out_w": In(12),
                "n_kx": In(8),
                "n_ky": In(8),
                "step": In(1),
                "step_oc": In(1),
                "line": Out(unsigned(LINE_SUM_BITS)),
                "first": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile = Signal(LINE_SUM_BITS, reset_less=True)
        row = Signal(LINE_SUM_BITS, reset_less=True)
        place = Signal(LINE_SUM_BITS, reset_less=True)
        window_row = Signal(LINE_SUM_BITS, reset_less=True)
        m.submodules.x = x = LoopCounter(width_bits=12)
        m.submodules.kx = kx = LoopCounter(width_bits=8)
        m.submodules.ky = ky = LoopCounter(width_bits=8)
        m.d.comb += [
            self.last.eq(kx.last & ky.last),
            kx.count.eq(self.n_kx),
            kx.start.eq(self.start),
            kx.step.eq(self.step),
            ky.count.eq(self.n_ky),
            ky.start.eq(self.start),
            ky.step.eq(self.step & kx.last),
            x.count.eq(self.out_w),
            x.start.eq(self.start),
            x.step.eq(self.step & self.last),
        ]

        # The next place, at the end of a window.
        following = Signal(LINE_SUM_BITS)
        following_row = Signal(LINE_SUM_BITS)
        next_row = Signal(LINE_SUM_BITS)
        next_tile = Signal(LINE_SUM_BITS)
        m.d.comb += [
            next_tile.eq(tile + 1),
            next_row.eq(row + self.stride_y),
            following.eq(place + self.stride_x),
            following_row.eq(row),
        ]
        with m.If(self.step_oc):
            m.d.comb += [following.eq(next_tile), following_row.eq(next_tile)]
        with m.Elif(x.last):
            m.d.comb += [following.eq(next_row), following_row.eq(next_row)]

        next_window_row = Signal(LINE_SUM_BITS)
        m.d.comb += next_window_row.eq(window_row + self.stride_ky)
        with m.If(self.start):
            m.d.sync += [
                tile.eq(self.base),
                row.eq(self.base),
                place.eq(self.base),
                window_row.eq(self.base),
                self.line.eq(self.base),
                self.first.eq(1),
            ]
        with m.Elif(self.step):
            m.d.sync += self.first.eq(self.last)
            with m.If(self.last):
                m.d.sync += [
                    row.eq(following_row),
                    place.eq(following),
                    window_row.eq(following),
                    self.line.eq(following),
                ]
                with m.If(self.step_oc):
                    m.d.sync += tile.eq(next_tile)
            with m.Elif(kx.last):
                m.d.sync += [
                    window_row.eq(next_window_row),
                    self.line.eq(next_window_row),
                ]
            with m.Else():
                m.d.sync += [
                    self.line.eq(self.line + self.stride_kx),
                ]
        return m
