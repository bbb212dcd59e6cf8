"""The vector engine's addresses are those of its loops; a term is there when it is read."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal
from amaranth.lib.wiring import Component, In
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import VectorOp
from celosia.hw.vector import pipeline, planner, sequencer, walker
from celosia.hw.vector.lane import Lane
from celosia.hw.vector.uop import STAGE_SCRATCH, STAGE_TERM, Constants, Dest

BITS = 2
STRIDE_BITS = 3


class WalkerHarness(Component):
    """Any small tensor, walked line by line.

    Members
    -------
    base, stride_x, stride_y, out_w, out_h, stay : In
        And of a window: stride_kx, stride_ky, n_kx, n_ky.
    start, step : In(1)
    """

    def __init__(self, *, windowed: bool) -> None:
        self.windowed = windowed
        self.counts = ["out_w", "out_h"]
        self.strides = ["base", "stride_x", "stride_y"]
        if windowed:
            self.counts += ["n_kx", "n_ky"]
            self.strides += ["stride_kx", "stride_ky"]
        self.names = [*self.strides, *self.counts]
        widths = {name: BITS for name in self.counts} | {name: STRIDE_BITS for name in self.strides}
        super().__init__(
            {name: In(bits) for name, bits in widths.items()}
            | {"stay": In(1), "start": In(1), "step": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = walker.Walker(windowed=self.windowed)
        begun, started = Signal(), Signal()
        m.d.sync += begun.eq(1)
        for name in (*self.names, "stay"):
            value = getattr(self, name)
            before = Signal.like(value, name=f"before_{name}")
            m.d.sync += before.eq(value)
            m.d.comb += [getattr(dut, name).eq(value), Assume(~begun | (value == before))]
            if name in self.counts:
                m.d.comb += Assume(value != 0)
        # The counters of the definition.
        tile, y, x, ky, kx = (Signal(BITS, name=name) for name in ("tile", "y", "x", "ky", "kx"))
        last_x, last_y, last_kx, last_ky = (
            Signal(name=f"last_{n}") for n in ("x", "y", "kx", "ky")
        )
        last, end, step = Signal(), Signal(), Signal()
        m.d.comb += [
            last_x.eq(x == self.out_w - 1),
            last_y.eq(y == self.out_h - 1),
            last_kx.eq(kx == self.n_kx - 1 if self.windowed else 1),
            last_ky.eq(ky == self.n_ky - 1 if self.windowed else 1),
            last.eq(last_kx & last_ky),
            end.eq(last & last_x & last_y),
            step.eq(self.step),
            dut.start.eq(self.start),
            dut.step.eq(step),
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

        # The loops' own sums: each level begins where the one outside it is.
        at_tile, at_row, at_place, at_window_row, at_line = (
            Signal.like(dut.line, name=name)
            for name in ("at_tile", "at_row", "at_place", "at_window_row", "at_line")
        )
        levels = [at_line, at_window_row, at_place, at_row, at_tile]

        def enter(depth: int, line: Any) -> list[Any]:
            """Begin again in every loop inside `depth`, at `line`."""
            return [level.eq(line) for level in levels[: depth + 1]]

        stride_kx, stride_ky = (self.stride_kx, self.stride_ky) if self.windowed else (0, 0)
        with m.If(self.start):
            m.d.sync += enter(4, self.base)
        with m.Elif(step & end):
            m.d.sync += enter(4, at_tile + Mux(self.stay, 0, 1))
        with m.Elif(step & last & last_x):
            m.d.sync += enter(3, at_row + self.stride_y)
        with m.Elif(step & last):
            m.d.sync += enter(2, at_place + self.stride_x)
        with m.Elif(step & last_kx):
            m.d.sync += enter(1, at_window_row + stride_ky)
        with m.Elif(step):
            m.d.sync += enter(0, at_line + stride_kx)
        m.d.comb += [
            Assert(~started | (dut.line == at_line), "the line is where the definition says"),
            Cover(started & (tile == 1) & (y == 1) & (x == 2), "a row of the second tile"),
            Cover(started & (tile == 1) & self.stay & (at_line == self.base), "the same again"),
        ]
        if self.windowed:
            m.d.comb += [
                Assert(~started | (dut.last == last), "the end of a window is marked"),
                Assert(~started | (dut.first == ((kx == 0) & (ky == 0))), "so is its begin"),
                Cover(started & last & (ky == 1) & (kx == 1) & (x == 1), "a two by two window"),
            ]
        return m


@pytest.mark.parametrize("windowed", [False, True])
def test_walker(formal: Any, windowed: bool) -> None:
    formal.check(WalkerHarness(windowed=windowed))


BUGS = {
    # name: with a window, right, wrong
    "row of the place": (
        False,
        "next_place.eq(row + self.stride_y)",
        "next_place.eq(place + self.stride_y)",
    ),
    "tile never moves on": (False, "tile.eq(next_place)", "tile.eq(tile)"),
    "tile never stays": (False, "tile + ~self.stay", "tile + 1"),
    "window stays behind": (True, "window_row.eq(next_place)", "window_row.eq(self.base)"),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, bug: str) -> None:
    windowed, right, wrong = BUGS[bug]
    formal.seed_bug(walker, "Walker", right, wrong)
    formal.refute(WalkerHarness(windowed=windowed), "where the definition says")


class MarkedLane(Lane):
    """A lane that computes nothing: a bit of the accumulator's port, any one, becomes the term."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mark = self.acc[0]
        for stage in range(STAGE_SCRATCH + 1, STAGE_TERM + 1):
            later = Signal(name=f"mark_{stage}")
            m.d.sync += later.eq(mark)
            mark = later
        # To where the harness sees it.
        m.d.comb += [self.term.eq(mark), self.table_index.eq(self.term_b[0])]
        return m


class ProductHarness(Component):
    """Any small MUL, with any grants: follows the term of B in one place of a group.

    Members
    -------
    n_oc, out_w : In
        Of the command, which begins in the first cycle.
    granted : In(1)
        The activation SRAM.
    place : In(2)
        The place that is followed.
    mark : In(1)
        What the beat in stage 2 computes.
    """

    def __init__(self) -> None:
        super().__init__(
            {"n_oc": In(2), "out_w": In(2), "granted": In(1), "place": In(2), "mark": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.issuer = issuer = sequencer.Sequencer(MULTIPLIES)
        m.submodules.dut = dut = pipeline.Pipeline(MULTIPLIES, lane=MarkedLane)
        begun = Signal()
        m.d.sync += begun.eq(1)
        for name in ("n_oc", "out_w", "place"):
            value = getattr(self, name)
            before = Signal.like(value, name=f"before_{name}")
            m.d.sync += before.eq(value)
            m.d.comb += Assume(~begun | (value == before))
        for command in (issuer.command, dut.command):
            m.d.comb += [
                command.op.eq(VectorOp.MUL),
                command.n_oc.eq(self.n_oc),
                command.out_w.eq(self.out_w),
                *(command[name].eq(1) for name in ("out_h", "n_ky", "n_kx")),
            ]
        m.d.comb += [
            Assume((self.n_oc != 0) & (self.out_w != 0)),
            issuer.start.eq(~begun),
            issuer.act.gnt.eq(self.granted),
            dut.issue.eq(issuer.issue),
            dut.uop.eq(issuer.uop),
            dut.acc.eq(self.mark),
        ]

        # The beat in stage 2.
        valid, uop = issuer.issue, issuer.uop
        for stage in range(1, STAGE_SCRATCH + 1):
            valid_later = Signal(name=f"issued_{stage}")
            uop_later = Signal.like(issuer.uop, name=f"issued_uop_{stage}")
            m.d.sync += [valid_later.eq(valid), uop_later.eq(uop)]
            valid, uop = valid_later, uop_later
        here = valid & (uop.index == self.place)

        # The term of this group, once there is a beat that computes it.
        there, term = Signal(), Signal()
        with m.If(here & (uop.dest == Dest.TERM_B)):
            m.d.sync += [there.eq(1), term.eq(self.mark)]
        with m.Elif(here & (uop.constants == Constants.OUTPUT)):
            m.d.sync += there.eq(0)

        # The beat that is multiplied by it, until it is.
        product = Cat(here & (uop.constants == Constants.PRODUCT), there, term)
        for stage in range(STAGE_SCRATCH + 1, MarkedLane.OPERAND_STAGE + 1):
            later = Signal.like(product, name=f"product_{stage}")
            m.d.sync += later.eq(product)
            product = later
        multiplies, was_there, multiplier = product
        m.d.comb += [
            Assert(
                ~multiplies | (was_there & (dut.table_index[0][0] == multiplier)),
                "the term that multiplies is the one that was computed",
            ),
            Cover(multiplies & multiplier & (self.place == 1), "a product of the second place"),
        ]
        return m


MULTIPLIES = preset("nano").with_(firmware=False, operations=("REQUANT", "MUL"))
PRODUCT_CYCLES = 24
"""From a command's begin to the products of its first group, with a stall or two."""


def test_product(formal: Any) -> None:
    formal.check(ProductHarness(), depth=PRODUCT_CYCLES, reduce=False)


PRODUCT_BUGS = {
    # name: module, class, right, wrong
    "a product waits for nothing": (
        planner,
        "Planner",
        "((self._phase != Phase.TERM_B) | self._is_mul)",
        "(self._phase != Phase.TERM_B)",
    ),
    "what reads the SRAM does not wait": (
        sequencer,
        "Sequencer",
        "rested | ~step.reads_scratch",
        "rested | ~step.reads_scratch | step.reads_act",
    ),
    "the place of the beat behind": (
        pipeline,
        "Pipeline",
        "self._uops[self._operands].index",
        "self._uops[self._operands - 1].index",
    ),
}


@pytest.mark.parametrize("bug", list(PRODUCT_BUGS))
def test_seeded_bug_of_products_is_found(formal: Any, bug: str) -> None:
    module, name, right, wrong = PRODUCT_BUGS[bug]
    formal.seed_bug(module, name, right, wrong)
    formal.patch.setattr(sequencer, "Planner", planner.Planner)
    formal.refute(ProductHarness(), "the term that multiplies", depth=PRODUCT_CYCLES)
