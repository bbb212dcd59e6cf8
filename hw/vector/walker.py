"""Address generators: the loops of a vector command over one tensor, by adders alone."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.vector.uop import LINE_SUM_BITS

__all__ = ["Walker", "WindowWalker"]


class Walker(Component):
    """Lines of a tensor: ``base + oc + y * stride_y + x * stride_x``.

    Strides and `row_last` are stable from `start` to the last step. The line has one bit more
    than an address, so a sum that leaves the address space is seen to be out of range.

    Members
    -------
    start : In(1)
        Go to `base`.
    step : In(1)
        Go on to the next line: of the row, or of the next row.
    step_oc : In(1)
        With `step`: go to the start of the next channel tile instead.
    row_last : In(12)
        Vectors of a row, less one.
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
                "row_last": In(12),
                "step": In(1),
                "step_oc": In(1),
                "line": Out(unsigned(LINE_SUM_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile = Signal(LINE_SUM_BITS, reset_less=True)
        row = Signal(LINE_SUM_BITS, reset_less=True)
        x_left = Signal(12, reset_less=True)

        next_tile = Signal(LINE_SUM_BITS)
        next_row = Signal(LINE_SUM_BITS)
        m.d.comb += [next_tile.eq(tile + 1), next_row.eq(row + self.stride_y)]
        with m.If(self.start):
            m.d.sync += [
                tile.eq(self.base),
                row.eq(self.base),
                self.line.eq(self.base),
                x_left.eq(self.row_last),
            ]
        with m.Elif(self.step):
            with m.If(self.step_oc):
                m.d.sync += [
                    tile.eq(next_tile),
                    row.eq(next_tile),
                    self.line.eq(next_tile),
                    x_left.eq(self.row_last),
                ]
            with m.Elif(x_left == 0):
                m.d.sync += [
                    row.eq(next_row),
                    self.line.eq(next_row),
                    x_left.eq(self.row_last),
                ]
            with m.Else():
                m.d.sync += [
                    self.line.eq(self.line + self.stride_x),
                    x_left.eq(x_left - 1),
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
    kx_last, ky_last : In(8)
        Its columns and rows, less one.
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
                "row_last": In(12),
                "kx_last": In(8),
                "ky_last": In(8),
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
        x_left = Signal(12, reset_less=True)
        kx_left = Signal(8, reset_less=True)
        ky_left = Signal(8, reset_less=True)

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
        with m.Elif(x_left == 0):
            m.d.comb += [following.eq(next_row), following_row.eq(next_row)]

        next_window_row = Signal(LINE_SUM_BITS)
        m.d.comb += [
            next_window_row.eq(window_row + self.stride_ky),
            self.last.eq((kx_left == 0) & (ky_left == 0)),
        ]
        with m.If(self.start):
            m.d.sync += [
                tile.eq(self.base),
                row.eq(self.base),
                place.eq(self.base),
                window_row.eq(self.base),
                self.line.eq(self.base),
                x_left.eq(self.row_last),
                kx_left.eq(self.kx_last),
                ky_left.eq(self.ky_last),
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
                    x_left.eq(x_left - 1),
                    kx_left.eq(self.kx_last),
                    ky_left.eq(self.ky_last),
                ]
                with m.If(self.step_oc):
                    m.d.sync += tile.eq(next_tile)
                with m.If(self.step_oc | (x_left == 0)):
                    m.d.sync += x_left.eq(self.row_last)
            with m.Elif(kx_left == 0):
                m.d.sync += [
                    window_row.eq(next_window_row),
                    self.line.eq(next_window_row),
                    kx_left.eq(self.kx_last),
                    ky_left.eq(ky_left - 1),
                ]
            with m.Else():
                m.d.sync += [
                    self.line.eq(self.line + self.stride_kx),
                    kx_left.eq(kx_left - 1),
                ]
        return m
