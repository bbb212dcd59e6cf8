"""Pass walker: turns a Conv command into passes (one weight matrix over one tile)."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Mode
from celosia.hw.control.decode import command_layout
from celosia.hw.memory.ports import ADDR_BITS, LINE_BITS

__all__ = ["PassWalker", "X_BITS", "Y_BITS", "pass_layout"]

X_BITS = 21
Y_BITS = 14


def pass_layout(config: NpuConfig) -> data.StructLayout:
    """Return what is known of a pass."""
    return data.StructLayout(
        {
            "addr": unsigned(ADDR_BITS),  # byte address of the first window
            "x": signed(X_BITS),  # its byte in its row
            "y": signed(Y_BITS),  # its input row
            "own": unsigned(config.rows.bit_length()),  # bytes of a window that are of its row
            "rows": unsigned(12),  # output rows
            "line": unsigned(LINE_BITS + 1),  # first line of its weights
            "overwrite": unsigned(1),  # write the accumulator instead of adding
            "take": unsigned(1),  # a free accumulator half is needed
            "give": unsigned(1),  # hand the half over afterwards
            "last": unsigned(1),  # last pass of the command
        }
    )


class PassWalker(Component):
    """Walks the loops of a Conv from oc down to ic, a pass every two cycles or more.

    In mode JOINED a pass that would begin behind its kernel row begins in the next one: two cycles
    to look, and two for each such row.

    Addresses are found by adding steps, never by multiplying. The address of the next tile is
    found by adding step_y once for each of the tile's rows, while the tile's passes stream.

    Members
    -------
    conv : In(command_layout(Conv))
        Stable until the last pass has been taken.
    start : In(1)
        First cycle of a command.
    passes : Out(stream of pass_layout)
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "conv": In(command_layout(Conv)),
                "start": In(1),
                "passes": Out(stream.Signature(pass_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        conv = self.conv
        # Loop counters; each *_addr is the position at the start of its loop's turn, and kx_offset,
        # offset are the positions of the inner loops from there.
        oc, ky = Signal(12), Signal(8)
        kx, ic = Signal(8), Signal(12)
        rows_left = Signal(12)
        oc_addr, ky_addr, kx_offset, offset = (
            Signal(width, name=name)
            for name, width in (
                ("oc_addr", ADDR_BITS),
                ("ky_addr", ADDR_BITS),
                ("kx_offset", X_BITS),
                ("offset", X_BITS),
            )
        )
        y = Signal(signed(Y_BITS), name="pass_y")

        # Start of the following tile, one row a cycle.
        next_addr, next_y = Signal(ADDR_BITS), Signal(signed(Y_BITS))
        rows_to_add = Signal(12)
        with m.If(rows_to_add.any()):
            m.d.sync += [
                next_addr.eq(next_addr + conv.step_y),
                next_y.eq(next_y + conv.stride_y),
                rows_to_add.eq(rows_to_add - 1),
            ]

        rows = Signal(12)
        # Where the pass is in its loops: compared in the cycle before it is offered.
        is_last_tile = rows_left <= conv.tile_rows
        ends = Signal(3)
        last_tile, ic_end, kx_end, ky_end, oc_end = (
            Signal(name=name) for name in ("last_tile", "ic_end", "kx_end", "ky_end", "oc_end")
        )
        m.d.comb += ends.eq(
            Cat(ic + 1 == conv.n_ic, kx + 1 == conv.n_kx, ky + 1 == conv.n_ky),
        )

        out = self.passes.payload
        joined = self._config.joins_rows and (conv.mode == Mode.JOINED)
        own = Signal.like(out.own, init=self._config.rows)
        behind = Signal(signed(X_BITS + 1))  # bytes from the end of the kernel row
        first = Signal()
        final = Signal()
        offered = Signal()  # a register of its own: many wait for it
        m.d.comb += [
            self.passes.valid.eq(offered),
            out.addr.eq(ky_addr + offset),
            out.x.eq(conv.x0 + offset),
            out.y.eq(y),
            out.own.eq(own),
            out.rows.eq(rows),
            out.overwrite.eq(first & ~conv.accumulate),
            out.take.eq(first & ~conv.accumulate),
            out.give.eq(final & ~conv.hold),
            out.last.eq(final & last_tile & oc_end),
        ]

        # One adder for the steps of two loops.
        next_ic, next_kx = ~ic_end, ic_end & ~kx_end
        next_ky = ic_end & kx_end & ~ky_end
        below = Signal()  # the next kernel row: a register, as an address waits for it
        moved_addr, moved_offset = Signal(ADDR_BITS), Signal(X_BITS)
        m.d.comb += [
            moved_offset.eq(
                Mux(next_ic, offset, kx_offset) + Mux(next_ic, conv.step_ic, conv.step_kx)
            ),
            moved_addr.eq(Mux(below, ky_addr, oc_addr) + Mux(below, conv.step_ky, conv.step_oc)),
        ]

        self._count_lines(
            m,
            offered & self.passes.ready,
            ~(next_ic | next_kx | next_ky | last_tile),
            ic_end & kx_end & ky_end & last_tile,
        )

        def prepare() -> None:
            m.next = "PREPARE_PASS"
            if self._config.joins_rows:
                with m.If(joined):
                    m.next = "MEASURE_ROW"

        def enter_row(at: Signal) -> list[Any]:
            return [ky_addr.eq(at), kx_offset.eq(0), offset.eq(0), ic.eq(0), kx.eq(0)]

        def enter_tile(at: Signal, at_y: Signal) -> list[Any]:
            return [*enter_row(at), y.eq(at_y), ky.eq(0)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    oc.eq(0),
                    oc_addr.eq(conv.act_addr),
                    rows_left.eq(conv.out_h),
                    own.eq(own.init),
                    *enter_tile(conv.act_addr, conv.y0),
                ]
                with m.If(self.start):
                    m.next = "ENTER_TILE"
            with m.State("ENTER_TILE"):
                m.d.sync += [
                    rows.eq(conv.tile_rows),
                    rows_to_add.eq(conv.tile_rows),
                    next_addr.eq(ky_addr),
                    next_y.eq(y),
                ]
                with m.If(is_last_tile):
                    m.d.sync += rows.eq(rows_left)
                prepare()
            if self._config.joins_rows:
                with m.State("MEASURE_ROW"):
                    m.d.sync += [behind.eq(offset - conv.step_kx), below.eq(1)]
                    m.next = "JOIN_ROWS"
                with m.State("JOIN_ROWS"):
                    with m.If(behind < 0):
                        m.d.sync += own.eq(Mux(behind > -self._config.rows, -behind, own.init))
                        m.next = "PREPARE_PASS"
                    with m.Else():
                        m.d.sync += [
                            offset.eq(behind),
                            ky_addr.eq(moved_addr),
                            y.eq(y + conv.ky_rows),
                        ]
                        m.next = "MEASURE_ROW"
            with m.State("PREPARE_PASS"):
                m.d.sync += [
                    first.eq(~ic.any() & ~kx.any() & ~ky.any()),
                    final.eq(ends.all()),
                    Cat(ic_end, kx_end, ky_end).eq(ends),
                    last_tile.eq(is_last_tile),
                    oc_end.eq(oc + 1 == conv.n_oc),
                    below.eq(ends[0] & ends[1] & ~ends[2]),
                ]
                m.d.sync += offered.eq(1)
                m.next = "OFFER_PASS"
            with m.State("OFFER_PASS"):
                with m.If(self.passes.ready):
                    m.d.sync += offered.eq(0)
                    prepare()
                    with m.If(next_ic):
                        m.d.sync += [ic.eq(ic + 1), offset.eq(moved_offset)]
                    with m.Elif(next_kx):
                        m.d.sync += [
                            ic.eq(0),
                            kx.eq(kx + 1),
                            kx_offset.eq(moved_offset),
                            offset.eq(moved_offset),
                        ]
                    with m.Elif(next_ky):
                        m.d.sync += [*enter_row(moved_addr), ky.eq(ky + 1), y.eq(y + conv.ky_rows)]
                    with m.Elif(~last_tile):
                        m.next = "NEXT_TILE"
                    with m.Elif(~oc_end):
                        m.d.sync += [
                            oc.eq(oc + 1),
                            oc_addr.eq(moved_addr),
                            rows_left.eq(conv.out_h),
                            *enter_tile(moved_addr, conv.y0),
                        ]
                        m.next = "ENTER_TILE"
                    with m.Else():
                        m.next = "IDLE"
            with m.State("NEXT_TILE"):
                with m.If(~rows_to_add.any()):
                    m.d.sync += [
                        rows_left.eq(rows_left - conv.tile_rows),
                        *enter_tile(next_addr, next_y),
                    ]
                    m.next = "ENTER_TILE"
        return m

    def _count_lines(self, m: Module, taken: Value, next_tile: Value, next_oc: Value) -> None:
        """Say where the weights of a pass begin: those of one oc are read again for each tile."""
        line, oc_line, following = (
            Signal(LINE_BITS + 1, name=name) for name in ("line", "oc_line", "following")
        )
        m.d.comb += [
            self.passes.payload.line.eq(line),
            following.eq(line + self._config.rows),
        ]
        with m.If(self.start):
            m.d.sync += [line.eq(self.conv.wgt_addr), oc_line.eq(self.conv.wgt_addr)]
        with m.Elif(taken):
            m.d.sync += line.eq(Mux(next_tile, oc_line, following))
            with m.If(next_oc):
                m.d.sync += oc_line.eq(following)
