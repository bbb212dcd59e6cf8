"""Pass walker: turns a Conv command into passes (one weight matrix over one tile)."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.config import NpuConfig
from celosia.hw.control.decode import command_layout
from celosia.hw.isa import Conv
from celosia.hw.memory.ports import ADDR_BITS

__all__ = ["PASS", "PassWalker", "X_BITS", "Y_BITS"]

X_BITS = 21
Y_BITS = 14

PASS = data.StructLayout(
    {
        "addr": unsigned(ADDR_BITS),  # byte address of the first window
        "x": signed(X_BITS),  # its byte in its row
        "y": signed(Y_BITS),  # its input row
        "rows": unsigned(12),  # output rows
        "overwrite": unsigned(1),  # write the accumulator instead of adding
        "take": unsigned(1),  # a free accumulator half is needed
        "give": unsigned(1),  # hand the half over afterwards
        "last": unsigned(1),  # last pass of the command
        "fresh": unsigned(1),  # first pass of new output channels
        "again": unsigned(1),  # first pass of another tile of the same: their weights once more
    }
)
"""One pass."""


class PassWalker(Component):
    """Walks the loops of a Conv from oc down to ic, a pass every two cycles or more.

    Addresses are found by adding steps, never by multiplying. The address of the next tile is
    found by adding step_y once for each of the tile's rows, while the tile's passes stream.

    Members
    -------
    conv : In(command_layout(Conv))
        Stable while the command runs.
    start : In(1)
        First cycle of a command.
    passes : Out(stream of PASS)
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "conv": In(command_layout(Conv)),
                "start": In(1),
                "passes": Out(stream.Signature(PASS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        conv = self.conv
        # Loop counters; each *_addr, *_x, *_y is the position at the start of its loop's turn.
        oc, ky = Signal(12), Signal(8)
        kx, ic = Signal(8), Signal(12)
        rows_left = Signal(12)
        oc_addr, tile_addr, ky_addr, kx_addr, addr = (
            Signal(ADDR_BITS, name=name)
            for name in ("oc_addr", "tile_addr", "ky_addr", "kx_addr", "pass_addr")
        )
        kx_x, x = Signal(signed(X_BITS)), Signal(signed(X_BITS), name="pass_x")
        tile_y, y = Signal(signed(Y_BITS)), Signal(signed(Y_BITS), name="pass_y")

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
            Cat(ic == conv.n_ic - 1, kx == conv.n_kx - 1, ky == conv.n_ky - 1),
        )

        out = self.passes.payload
        first = Signal()
        final = Signal()
        other_tile = Signal()
        offered = Signal()  # a register of its own: many wait for it
        m.d.comb += [
            self.passes.valid.eq(offered),
            out.addr.eq(addr),
            out.x.eq(x),
            out.y.eq(y),
            out.rows.eq(rows),
            out.overwrite.eq(first & ~conv.accumulate),
            out.take.eq(first & ~conv.accumulate),
            out.give.eq(final & ~conv.hold),
            out.last.eq(final & last_tile & oc_end),
            out.fresh.eq(first & ~other_tile),
            out.again.eq(first & other_tile),
        ]

        def enter_tile(at: Signal, at_y: Signal) -> list[Any]:
            return [
                tile_addr.eq(at),
                tile_y.eq(at_y),
                ky_addr.eq(at),
                kx_addr.eq(at),
                addr.eq(at),
                y.eq(at_y),
                x.eq(conv.x0),
                kx_x.eq(conv.x0),
                ic.eq(0),
                kx.eq(0),
                ky.eq(0),
            ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    oc.eq(0),
                    oc_addr.eq(conv.act_addr),
                    rows_left.eq(conv.out_h),
                    other_tile.eq(0),
                    *enter_tile(conv.act_addr, conv.y0),
                ]
                with m.If(self.start):
                    m.next = "ENTER_TILE"
            with m.State("ENTER_TILE"):
                m.d.sync += [
                    rows.eq(conv.tile_rows),
                    rows_to_add.eq(conv.tile_rows),
                    next_addr.eq(tile_addr),
                    next_y.eq(tile_y),
                ]
                with m.If(is_last_tile):
                    m.d.sync += rows.eq(rows_left)
                m.next = "PREPARE_PASS"
            with m.State("PREPARE_PASS"):
                m.d.sync += [
                    first.eq(~ic.any() & ~kx.any() & ~ky.any()),
                    final.eq(ends.all()),
                    Cat(ic_end, kx_end, ky_end).eq(ends),
                    last_tile.eq(is_last_tile),
                    oc_end.eq(oc == conv.n_oc - 1),
                ]
                m.d.sync += offered.eq(1)
                m.next = "OFFER_PASS"
            with m.State("OFFER_PASS"):
                with m.If(self.passes.ready):
                    m.d.sync += offered.eq(0)
                    m.next = "PREPARE_PASS"
                    with m.If(~ic_end):
                        m.d.sync += [
                            ic.eq(ic + 1),
                            addr.eq(addr + conv.step_ic),
                            x.eq(x + conv.step_ic),
                        ]
                    with m.Elif(~kx_end):
                        m.d.sync += [
                            ic.eq(0),
                            kx.eq(kx + 1),
                            kx_addr.eq(kx_addr + conv.step_kx),
                            addr.eq(kx_addr + conv.step_kx),
                            kx_x.eq(kx_x + conv.step_kx),
                            x.eq(kx_x + conv.step_kx),
                        ]
                    with m.Elif(~ky_end):
                        m.d.sync += [
                            ic.eq(0),
                            kx.eq(0),
                            ky.eq(ky + 1),
                            ky_addr.eq(ky_addr + conv.step_ky),
                            kx_addr.eq(ky_addr + conv.step_ky),
                            addr.eq(ky_addr + conv.step_ky),
                            kx_x.eq(conv.x0),
                            x.eq(conv.x0),
                            y.eq(y + conv.ky_rows),
                        ]
                    with m.Elif(~last_tile):
                        m.next = "NEXT_TILE"
                    with m.Elif(~oc_end):
                        m.d.sync += [
                            oc.eq(oc + 1),
                            oc_addr.eq(oc_addr + conv.step_oc),
                            rows_left.eq(conv.out_h),
                            other_tile.eq(0),
                            *enter_tile(oc_addr + conv.step_oc, conv.y0),
                        ]
                        m.next = "ENTER_TILE"
                    with m.Else():
                        m.next = "IDLE"
            with m.State("NEXT_TILE"):
                with m.If(~rows_to_add.any()):
                    m.d.sync += [
                        rows_left.eq(rows_left - conv.tile_rows),
                        other_tile.eq(1),
                        *enter_tile(next_addr, next_y),
                    ]
                    m.next = "ENTER_TILE"
        return m
