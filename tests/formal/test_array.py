"""The array's address generators and the halves of the accumulator."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In
from celosia.hw.array import accumulator, passes, streamer
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Mode

SMALL = NpuConfig(
    rows=4, cols=4, bus_bits=32, act_bytes=8192, wgt_bytes=2048, param_bytes=1024, acc_depth=128,
    queue_depth=4, max_outstanding=8, lanes=1, compact=True,
)  # fmt: skip
"""The smallest machine with engines."""
CONFIG = SMALL.with_(acc_depth=16)
FAST = CONFIG.with_(compact=False, lanes=None)
JOINED_DEPTH = 22
PITCH = 40
"""Bytes from kernel row to kernel row."""


class AccumulatorHarness(Component):
    """Any array and any reader that keep to the contract of the halves.

    Members
    -------
    take, give, release, valid, req, steady : In(1)
    tag_index, index : In(4)

    Parameters
    ----------
    kind : str
        Name of the accumulator's class.
    """

    def __init__(self, kind: str = "Accumulator") -> None:
        self.kind = kind
        self.config = CONFIG if kind == "MirroredAccumulator" else FAST
        names = ("take", "give", "release", "valid", "req", "steady")
        index = range(self.config.acc_depth)
        super().__init__(
            {name: In(1) for name in names} | {"tag_index": In(index), "index": In(index)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = getattr(accumulator, self.kind)(self.config, sum_bits=20)
        # Halves in use by the array, on their way to the reader, full, free.
        used, moving, full, free = Signal(2), Signal(2), Signal(2), Signal(2, init=2)
        given = [Signal(name=f"given_{stage}") for stage in range(dut.LEAD_CYCLES + 1)]
        filled, read = Signal(), Signal()  # the half that the array fills, that the reader reads
        returned, early = Signal(), Signal()
        m.d.comb += [
            dut.take.eq(self.take),
            dut.tag.give.eq(self.give),
            dut.tag.valid.eq(self.valid),
            dut.tag.index.eq(self.tag_index),
            dut.tag.half.eq(filled),
            dut.reader.release.eq(self.release),
            dut.reader.req.eq(self.req),
            dut.reader.steady.eq(self.steady),
            dut.reader.index.eq(self.index),
            Assume(~self.take | dut.free),
            Assume(~(self.give | self.valid) | (used != 0)),
            Assume(~(self.release | self.req) | dut.reader.avail),
        ]
        filled_next, read_next = filled ^ self.give, read ^ self.release
        m.d.sync += [filled.eq(filled_next), read.eq(read_next)]
        self._waves(m, used)
        last = self._tiles(m, filled)
        left = self._reader(m, Mux(read, last[1], last[0]))
        if self.kind == "Accumulator":
            rows = self.config.rows
            m.d.comb += early.eq(
                self.req & self.steady & ((left == rows - 1) | ((left < rows) & (self.index == 0)))
            )
        again = Signal()  # the half that is read is free already
        m.d.comb += returned.eq((early | self.release) & ~again)
        m.d.sync += [
            again.eq((again | early) & ~self.release),
            Cat(given).eq(Cat(self.give, given)),
            used.eq(used + self.take - self.give),
            moving.eq(moving + self.give - given[-1]),
            full.eq(full + given[-1] - self.release),
            free.eq(free + returned - self.take),
        ]
        busy = Cat(self.valid, self.give, *given).any()
        m.d.comb += [
            Assert(dut.free == (free != 0), "a half is free iff it was given back or never taken"),
            Assert(dut.reader.avail == (full != 0), "a half is to be read iff it was handed over"),
            Assert(
                (used <= 2)
                & (moving <= 2)
                & (full <= 2)
                & (free <= 2)
                & (Const(0, 4) + used + moving + full + free == Const(2, 4) + again),
                "there are always two halves",
            ),
            Assert(
                ~(self.valid & dut.reader.avail & (filled == read)),
                "no half is filled while it is read",
            ),
            Assert(~dut.idle | ~(busy | dut.reader.avail), "idle only with nothing under way"),
            Cover((full == 2) & self.release, "both halves full"),
            Cover((used == 1) & (full == 1), "one is filled while the other is read"),
        ]
        if self.kind == "Accumulator":
            m.d.comb += Cover(again & (used == 2), "a half is taken while it is read")
        return m

    def _waves(self, m: Module, used: Signal) -> None:
        """Tags of a half come more than N cycles after it was taken."""
        ripe = self.config.rows + 1
        ages = [Signal(range(ripe + 1), name=f"age_{turn}") for turn in range(2)]
        for age in ages:
            m.d.sync += age.eq(Mux(age == ripe, ripe, age + 1))
        with m.If(self.give):
            m.d.sync += ages[0].eq(Mux(ages[1] == ripe, ripe, ages[1] + 1))
        with m.If(self.take):
            # Of the oldest that is left, or of the one behind it.
            with m.If(used - self.give == 0):
                m.d.sync += ages[0].eq(1)
            with m.Else():
                m.d.sync += ages[1].eq(1)
        m.d.comb += Assume(~(self.valid | self.give) | (ages[0] == ripe))

    def _tiles(self, m: Module, filled: Signal) -> list[Signal]:
        """A tile has vectors; the last pass ends with the last one, or with positions behind it."""
        last = [Signal.like(self.index, name=f"last_{half}") for half in range(2)]
        some = Signal()
        m.d.sync += some.eq((some | self.valid) & ~self.give)
        before = Mux(filled, last[1], last[0])
        for half in range(2):
            with m.If(self.valid & (filled == half)):
                m.d.sync += last[half].eq(self.tag_index)
        m.d.comb += Assume(
            ~self.give
            | self.valid
            | (some & (self.tag_index == (before + 1)[: len(self.tag_index)]))
        )
        return last

    def _reader(self, m: Module, last: Value) -> Value:
        """A steady reader reads a tile from 0 up, in one go; any other one as it likes."""
        at = Signal.like(self.index)
        beat = Signal(range(self.config.vector_beats))
        was_steady = Signal()
        in_tile = (at != 0) | (beat != 0)
        ends = beat == self.config.vector_beats - 1
        m.d.sync += was_steady.eq(self.steady)
        with m.If(self.release):
            m.d.sync += [at.eq(0), beat.eq(0)]
        with m.Elif(self.req):
            m.d.sync += beat.eq(beat + 1)
            with m.If(ends):
                m.d.sync += at.eq(at + 1)
        m.d.comb += [
            Assume(~in_tile | (self.steady == was_steady)),
            Assume(~self.steady | ~in_tile | self.req),
            Assume(~(self.req & self.steady) | (self.index == at)),
            Assume(
                ~self.steady | (self.release == (self.req & (at == last) & ends)),
            ),
        ]
        return (last - self.index)[: len(self.index)]


class StreamerHarness(Component):
    """Any passes of any commands: counts the positions and outputs of each one.

    The command may be another one as soon as a pass has been taken.

    Members
    -------
    small : bool
        The lengths are few bits wide and the number of positions is claimed.
    """

    LENGTHS = ("row_len", "extra", "out_w")

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.dut = streamer.Streamer(CONFIG)
        widths = {name: len(self.dut.conv[name]) for name in (*self.LENGTHS, "stride_x")}
        rows_bits = len(self.dut.passes.payload.rows)
        if small:
            widths = {"row_len": 2, "extra": 2, "out_w": 2, "stride_x": 2}
            rows_bits = 2
        self.names = tuple(widths)
        flags = ("valid", "overwrite", "take", "give", "last")
        flags = (*flags, "announced", "weights_ready", "acc_free")
        super().__init__(
            {name: In(bits) for name, bits in widths.items()}
            | {name: In(1) for name in flags}
            | {"rows": In(rows_bits)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        offered = dut.passes.payload
        going, begun = Signal(), Signal()
        m.d.comb += [
            # The command is there before its first pass.
            dut.passes.valid.eq(self.valid & begun),
            dut.announced.eq(self.announced),
            dut.weights_ready.eq(self.weights_ready),
            dut.acc_free.eq(self.acc_free),
            going.eq(dut.busy),
        ]
        for name in ("overwrite", "take", "give", "last", "rows"):
            m.d.comb += offered[name].eq(getattr(self, name))
        m.d.sync += begun.eq(1)
        for name in self.names:
            value = getattr(self, name)
            before = Signal.like(value, name=f"before_{name}")
            m.d.sync += before.eq(value)
            m.d.comb += [dut.conv[name].eq(value), Assume(~self.valid | (value == before))]
        m.d.comb += [Assume(self.rows != 0), Assume(self.row_len != 0), Assume(self.stride_x != 0)]

        # The pass at hand and what it has yielded.
        active, first = Signal(), Signal()
        at_rows, at_take = Signal.like(self.rows), Signal()
        at_row_len, at_extra = Signal.like(self.row_len), Signal.like(self.extra)
        outputs = Signal(CONFIG.acc_depth.bit_length() + 1)
        moved = dut.passes.valid & dut.passes.ready
        with m.If(going):
            m.d.sync += [first.eq(0), active.eq(~dut.passes.ready)]
        with m.If(moved):
            m.d.sync += [
                active.eq(1),
                first.eq(1),
                at_rows.eq(self.rows),
                at_take.eq(self.take),
                at_row_len.eq(self.row_len),
                at_extra.eq(self.extra),
            ]
        total = Signal(5)
        # A wave is a position, one cycle later.
        wave = dut.wave
        went, swap = Signal(), Signal()
        m.d.sync += [went.eq(going), swap.eq(going & first)]
        m.d.comb += [
            Assert(~going | active, "positions belong to a pass"),
            Assert(~dut.take_acc | self.acc_free, "no half is taken that is not free"),
            Assert(~dut.take_weights | self.weights_ready, "weights are taken when they are there"),
            Assert(dut.take_acc == (going & first & at_take), "a half is taken once a pass"),
            Assert(dut.take_weights == (going & first), "weights are taken once a pass"),
            Assert(wave.valid == went, "a position is a wave"),
            Assert(wave.swap == swap, "the first wave of a pass swaps the weights"),
            Assert(~wave.tag.valid | wave.valid, "an output belongs to a wave"),
            Assert(~moved | self.announced, "a pass is taken when its weights are on their way"),
            Assert(dut.busy + dut.wait_weights + dut.wait_acc <= 1, "busy, or one reason to wait"),
            Assert(
                ~active | ~first | going | dut.wait_weights | dut.wait_acc, "a wait has a reason"
            ),
        ]
        # The index runs from 0 to the depth; beyond it the fault is reported first.
        expected, reported = Signal.like(outputs), Signal()
        over, start = Signal(), Signal()
        m.d.sync += start.eq(moved)
        with m.If(wave.tag.valid & ~expected.all()):
            m.d.sync += expected.eq(expected + 1)
        with m.If(start):
            m.d.sync += expected.eq(0)
        m.d.sync += reported.eq(dut.acc_overflow | (reported & ~start))
        m.d.comb += [
            over.eq(expected >= CONFIG.acc_depth),
            Assert(
                ~wave.tag.valid | over | (wave.tag.index == expected),
                "outputs go to the accumulator one after the other",
            ),
            Assert(
                ~wave.tag.valid | ~over | reported,
                "an output beyond the accumulator's depth is an error",
            ),
            Cover(wave.tag.valid & (expected == 3), "four outputs"),
        ]
        if self.small:
            m.d.comb += total.eq(at_rows * at_row_len + at_extra)
            self._positions(m, going, moved, total)
        else:
            m.d.comb += Cover(dut.acc_overflow, "an overflow")
        return m

    def _positions(self, m: Module, going: Signal, moved: Signal, total: Signal) -> None:
        """A pass is `rows` rows of `row_len` positions, and `extra` more: `total`."""
        done = Signal(5)
        with m.If(going):
            m.d.sync += done.eq(done + 1)
        with m.If(moved):
            m.d.sync += done.eq(0)
        ends = going & self.dut.passes.ready
        m.d.comb += [
            Assert(~ends | (done + 1 == total), "a pass has all of its positions"),
            Assert(~going | (done < total), "a pass has no more than its positions"),
            Cover(ends & (total == 12) & self.valid, "a long pass with a successor"),
            Cover(ends & (total == 12) & (self.row_len == 1), "the next command is another one"),
        ]


class PassHarness(Component):
    """Any small command: counts its passes and tiles.

    Parameters
    ----------
    joined : bool
        Commands are of mode JOINED, and where passes begin is claimed.

    Members
    -------
    n_oc, n_ic, n_kx, n_ky, out_h, tile_rows, step_kx, step_ic, accumulate, hold : In
        Fields of the command.
    start, ready : In(1)
    """

    NAMES: tuple[str, ...] = ("n_oc", "n_ic", "n_kx", "n_ky", "out_h", "tile_rows")

    def __init__(self, *, joined: bool = False) -> None:
        self.joined = joined
        if joined:
            self.NAMES = (*self.NAMES, "step_kx", "step_ic")
        super().__init__(
            {name: In(2) for name in self.NAMES}
            | {name: In(1) for name in ("accumulate", "hold", "start", "ready")}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = passes.PassWalker(FAST if self.joined else CONFIG)
        if self.joined:
            m.d.comb += [
                dut.conv.mode.eq(Mode.JOINED),
                dut.conv.step_ky.eq(PITCH),
                dut.conv.ky_rows.eq(1),
                Assume((self.n_ky == 1) & (self.n_kx == 1)),
            ]
        begun, running = Signal(), Signal()
        m.d.sync += begun.eq(1)
        for name in (*self.NAMES, "accumulate", "hold"):
            value = getattr(self, name)
            before = Signal.like(value, name=f"before_{name}")
            m.d.sync += before.eq(value)
            m.d.comb += [dut.conv[name].eq(value), Assume(~begun | (value == before))]
            if name in self.NAMES:
                m.d.comb += Assume(value != 0)
        out = dut.passes.payload
        moved, held = Signal(), Signal()
        before = Signal(len(out.as_value()))
        m.d.comb += [
            dut.start.eq(self.start),
            dut.passes.ready.eq(self.ready),
            Assume(~self.start | ~running),
            moved.eq(dut.passes.valid & self.ready),
        ]
        m.d.sync += [held.eq(dut.passes.valid & ~self.ready), before.eq(out.as_value())]
        with m.If(self.start):
            m.d.sync += running.eq(1)
        with m.Elif(moved & out.last):
            m.d.sync += running.eq(0)

        # The definition: for each oc, for each tile, n_ky * n_kx * n_ic passes.
        in_tile, tile_row, oc = Signal(6), Signal(3), Signal(2)
        rows, tile_passes = Signal(3), Signal(6)
        last_tile = Signal()
        m.d.comb += [
            tile_passes.eq(self.n_ky * self.n_kx * self.n_ic),
            rows.eq(
                Mux(self.out_h - tile_row < self.tile_rows, self.out_h - tile_row, self.tile_rows)
            ),
            last_tile.eq(tile_row + rows == self.out_h),
        ]
        ends_tile = in_tile == tile_passes - 1
        ends = ends_tile & last_tile & (oc == self.n_oc - 1)
        with m.If(moved):
            m.d.sync += in_tile.eq(in_tile + 1)
            with m.If(ends_tile):
                m.d.sync += [in_tile.eq(0), tile_row.eq(tile_row + rows)]
                with m.If(last_tile):
                    m.d.sync += [tile_row.eq(0), oc.eq(oc + 1)]
                    with m.If(ends):
                        m.d.sync += oc.eq(0)
        # A tile of its own takes a half at its first pass and gives it at its last one.
        taken = Signal()
        with m.If(moved):
            m.d.sync += taken.eq((taken | out.take) & ~out.give)
        quiet = Signal(4)
        with m.If(running & ~dut.passes.valid):
            m.d.sync += quiet.eq(quiet + 1)
        with m.Else():
            m.d.sync += quiet.eq(0)
        first = in_tile == 0
        valid = dut.passes.valid
        plain = ~self.accumulate & ~self.hold
        m.d.comb += [
            Assert(~valid | running, "passes belong to a command"),
            Assert(~held | (valid & (before == out.as_value())), "an offered pass holds"),
            Assert(~valid | (out.rows == rows), "a pass has the rows of its tile"),
            Assert(~valid | (out.last == ends), "the last pass is the last one"),
            Assert(~valid | (out.take == (first & ~self.accumulate)), "the first pass takes"),
            Assert(~valid | (out.overwrite == out.take), "the pass that takes overwrites"),
            Assert(~valid | (out.give == (ends_tile & ~self.hold)), "the last pass gives"),
            Assert(~(plain & valid & out.take) | ~taken, "no half is taken twice"),
            Assert(~(plain & valid & out.give) | taken | out.take, "what is given was taken"),
            Assert(quiet < (20 if self.joined else 8), "a pass comes in time"),
            Cover(moved & out.last & (oc == 1) & ~first & (rows == 1), "the end of a command"),
        ]
        if self.joined:
            self._claim_places(m, out, moved, ends_tile)
        return m

    def _claim_places(self, m: Module, out: Any, moved: Signal, ends_tile: Value) -> None:
        """A pass begins step_ic bytes behind the one before it, of all kernel rows together."""
        at, row = Signal(3), Signal(3)
        further = [(at + self.step_ic, row)]
        for _ in range(5):
            at_, row_ = further[-1]
            over = at_ >= self.step_kx
            further.append((Mux(over, at_ - self.step_kx, at_), Mux(over, row_ + 1, row_)))
        with m.If(moved):
            m.d.sync += [at.eq(further[-1][0]), row.eq(further[-1][1])]
            with m.If(ends_tile):
                m.d.sync += [at.eq(0), row.eq(0)]
        m.d.comb += [
            Assert(~moved | (out.x == at), "a joined pass begins in its kernel row"),
            Assert(~moved | (out.y == row), "a joined pass begins in its input row"),
            Assert(~moved | (out.addr == row * PITCH + at), "a joined pass begins at its byte"),
            Assert(
                ~moved | (out.own == self.step_kx - at), "what is behind the row is of the next one"
            ),
            Cover(moved & (row == 1) & (at == 1), "a part of the second kernel row"),
            Cover(moved & (row == 2), "the third kernel row"),
        ]


@pytest.mark.parametrize("kind", ["Accumulator", "MirroredAccumulator"])
def test_accumulator_halves(formal: Any, kind: str) -> None:
    formal.check(AccumulatorHarness(kind))


@pytest.mark.parametrize("small", [False, True])
def test_streamer(formal: Any, small: bool) -> None:
    formal.check(StreamerHarness(small=small))


@pytest.mark.parametrize("joined", [False, True])
def test_pass_walker(formal: Any, joined: bool) -> None:
    # Where joined passes begin is claimed of several passes, not of any number.
    formal.check(PassHarness(joined=joined), depth=JOINED_DEPTH if joined else None)


BUGS = {
    "a half too many": (
        accumulator,
        "Accumulator",
        "free, full = Signal(2, init=2), Signal(2)",
        "free, full = Signal(2, init=3), Signal(2)",
        "free iff",
    ),
    "handed over before it is written": (
        accumulator,
        "Accumulator",
        "given.eq(tags[-1].give)",
        "given.eq(tags[-2].give)",
        "handed over",
    ),
    "free before its reader is near its end": (
        accumulator,
        "Accumulator",
        "ahead = config.rows // config.vector_beats - 1",
        "ahead = config.rows // config.vector_beats + 1",
        "free iff",
    ),
    "the place behind the last vector": (
        accumulator,
        "Accumulator",
        "last.eq(tag.index - ~tag.valid)",
        "last.eq(tag.index)",
        "free iff",
    ),
    "overflow of the last output": (
        streamer,
        "Streamer",
        "self.acc_overflow.eq(go & output & index[-1])",
        "self.acc_overflow.eq(go & output & index.all())",
        "beyond the accumulator",
    ),
    "a half is not waited for": (
        streamer,
        "Streamer",
        "& (self.acc_free | ~begin_takes)",
        "",
        "not free",
    ),
    "a position too many": (
        streamer,
        "Streamer",
        "position_end.eq(positions_left == 2)",
        "position_end.eq(positions_left == 1)",
        "positions",
    ),
    "positions of the next command": (
        streamer,
        "Streamer",
        "positions_left.eq(Mux(row_end, conv.extra, conv.row_len))",
        "positions_left.eq(Mux(row_end, self.conv.extra, self.conv.row_len))",
        "positions",
    ),
    "the last tile is full": (
        passes,
        "PassWalker",
        "rows.eq(rows_left)",
        "rows.eq(conv.tile_rows)",
        "rows of its tile",
    ),
    "a joined row that ends with a pass": (
        passes,
        "PassWalker",
        "with m.If(behind < 0):",
        "with m.If(behind <= 0):",
        "of the next one",
    ),
    "the input row of a joined pass": (
        passes,
        "PassWalker",
        "ky_addr.eq(moved_addr),\n                            y.eq(y + conv.ky_rows),",
        "ky_addr.eq(moved_addr),",
        "a joined pass begins in its input row",
    ),
    "last tile of all": (
        passes,
        "PassWalker",
        "final & last_tile & oc_end",
        "final & oc_end",
        "last one",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, bug: str) -> None:
    module, cls, right, wrong, claim = BUGS[bug]
    formal.seed_bug(module, cls, right, wrong)
    harness: Any
    if module is accumulator:
        harness = AccumulatorHarness()
    elif module is streamer:
        harness = StreamerHarness(small="position" in bug)
    else:
        harness = PassHarness(joined="joined" in bug)
    formal.refute(harness, claim)
