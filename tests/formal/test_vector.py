"""The vector unit's address generators go where their definition says."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cover, Module, Signal
from amaranth.lib.wiring import Component, In
from celosia.hw.vector import walker

BITS = 2
SUM_BITS = 8

# In lines; symbolic ones would make products, which the prover is bad at.
STRIDE_X, STRIDE_Y, STRIDE_KX, STRIDE_KY = 3, 17, 5, 9


class WalkerHarness(Component):
    """Any small tensor, walked line by line.

    Members
    -------
    base, out_w, out_h : In
        And of a window: n_kx, n_ky.
    start, step : In(1)
    """

    def __init__(self, *, windowed: bool) -> None:
        self.windowed = windowed
        self.counts = ["out_w", "out_h"]
        self.names = ["base"]
        if windowed:
            self.counts += ["n_kx", "n_ky"]
        self.names += self.counts
        super().__init__({name: In(BITS) for name in self.names} | {"start": In(1), "step": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = walker.Walker(windowed=self.windowed)
        begun, started = Signal(), Signal()
        m.d.sync += begun.eq(1)
        for name in self.names:
            value = getattr(self, name)
            before = Signal.like(value, name=f"before_{name}")
            m.d.sync += before.eq(value)
            m.d.comb += [getattr(dut, name).eq(value), Assume(~begun | (value == before))]
            if name in self.counts:
                m.d.comb += Assume(value != 0)
        # The counters of the definition.
        tile, y, x, ky, kx = (Signal(BITS, name=name) for name in ("tile", "y", "x", "ky", "kx"))
        last_x, last_y, last_kx, last_ky = x == self.out_w - 1, y == self.out_h - 1, 1, 1
        if self.windowed:
            last_kx, last_ky = kx == self.n_kx - 1, ky == self.n_ky - 1
        last, end = Signal(), Signal()
        step = Signal()
        m.d.comb += [
            last.eq(last_kx & last_ky),
            end.eq(last & last_x & last_y),
            step.eq(self.step),
            dut.start.eq(self.start),
            dut.step.eq(step),
            # As many channel tiles as the counter here can count.
            Assume(~step | ~end | ~tile.all()),
        ]
        with m.If(self.start):
            m.d.sync += [started.eq(1), *(place.eq(0) for place in (tile, y, x, ky, kx))]
        with m.Elif(step):
            m.d.sync += kx.eq(kx + 1)
            with m.If(last_kx):
                m.d.sync += [kx.eq(0), ky.eq(ky + 1)]
            with m.If(last):
                m.d.sync += [ky.eq(0), x.eq(x + 1)]
                with m.If(last_x):
                    m.d.sync += [x.eq(0), y.eq(y + 1)]
                with m.If(end):
                    m.d.sync += [y.eq(0), tile.eq(tile + 1)]
        expected, highest = Signal(SUM_BITS), Signal(SUM_BITS)
        place: Any = 0
        far: Any = 0
        if self.windowed:
            m.d.comb += [dut.stride_kx.eq(STRIDE_KX), dut.stride_ky.eq(STRIDE_KY)]
            place = ky * STRIDE_KY + kx * STRIDE_KX
            far = (self.n_ky - 1) * STRIDE_KY + (self.n_kx - 1) * STRIDE_KX
        m.d.comb += [dut.stride_x.eq(STRIDE_X), dut.stride_y.eq(STRIDE_Y)]
        m.d.comb += [
            expected.eq(self.base + tile + y * STRIDE_Y + x * STRIDE_X + place),
            highest.eq(
                self.base + tile + (self.out_h - 1) * STRIDE_Y + (self.out_w - 1) * STRIDE_X + far
            ),
            Assert(~started | (dut.line == expected), "the line is where the definition says"),
            Assert(
                ~started | ((dut.line >= self.base) & (dut.line <= highest)),
                "no line outside the tensor",
            ),
            Cover(started & (tile == 1) & (y == 1) & (x == 2), "a row of the second tile"),
        ]
        if self.windowed:
            m.d.comb += [
                Assert(~started | (dut.last == last), "the end of a window is marked"),
                Assert(~started | (dut.first == ((kx == 0) & (ky == 0))), "so is its begin"),
                Cover(started & last & (ky == 1) & (kx == 1) & (x == 1), "a two by two window"),
            ]
        return m


@pytest.mark.parametrize(("windowed", "depth"), [(False, None), (True, 14)])
def test_walker(formal: Any, windowed: bool, depth: int | None) -> None:
    formal.check(WalkerHarness(windowed=windowed), depth=depth)


BUGS = {
    # name: with a window, right, wrong
    "row of the place": (
        False,
        "(row + STRIDE_Y), next_row",
        "(place + STRIDE_Y), next_row",
    ),
    "tile never moves on": (False, "tile.eq(tile + 1)", "tile.eq(tile)"),
    "window stays behind": (True, "window_row.eq(next_place)", "window_row.eq(self.base)"),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, bug: str) -> None:
    windowed, right, wrong = BUGS[bug]
    formal.seed_bug(walker, "Walker", right, wrong)
    formal.refute(WalkerHarness(windowed=windowed), "where the definition says")
