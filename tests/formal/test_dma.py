"""No transfer leaves its region or the memory on chip, whatever its command says."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Space, Store
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.control.decode import command_layout
from celosia.hw.dma import runs, transfer
from celosia.hw.fabric.buffer import StreamBuffer, StreamWire

SMALL = NpuConfig(
    rows=4, cols=4, bus_bits=32, act_bytes=8192, wgt_bytes=2048, param_bytes=1024, acc_depth=128,
    queue_depth=4, max_outstanding=8, lanes=1, compact=True,
)  # fmt: skip
"""The smallest machine with engines."""
CONFIG = SMALL.with_(act_bytes=64, wgt_bytes=32, param_bytes=128, max_outstanding=2, queue_depth=2)
LANES = CONFIG.bus_bytes
SPACE_BYTES = {
    Space.ACT: CONFIG.act_bytes,
    Space.WGT: CONFIG.wgt_bytes,
    Space.PARAM: CONFIG.param_bytes,
    Space.TABLE: 256 * CONFIG.line_bytes,
}

# Small commands: enough to leave regions and memories at both ends. Wider fields differ from them
# in the width of adders and comparators alone.
FIELDS = {
    "mem_addr": 5,
    "sram_addr": 7,
    "row_bytes": 4,
    "n1": 2,
    "n2": 2,
    "mem_stride1": signed(5),
    "mem_stride2": signed(5),
    "sram_stride1": signed(5),
    "sram_stride2": signed(5),
}
BASE = 0x40

CHECK_DEPTH = 8
WALK_DEPTH = 12
RUN_SUM = signed(10)


def stable(m: Module, name: str, *values: Any) -> None:
    """Assume that values do not change."""
    now = Cat(*values)
    begun, before = Signal(name=f"{name}_begun"), Signal(len(now), name=f"{name}_before")
    m.d.sync += [begun.eq(1), before.eq(now)]
    m.d.comb += Assume(~begun | (now == before))


class LoopHarness(Component):
    """The two loops over the runs, against their definition.

    Members
    -------
    mem_addr, n1, n2, mem_stride1, mem_stride2, sram_addr, sram_stride1, sram_stride2 : In
    start, ready : In(1)
    """

    def __init__(self) -> None:
        self.names = [name for name in FIELDS if name != "row_bytes"]
        super().__init__(
            {name: In(FIELDS[name]) for name in self.names} | {"start": In(1), "ready": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = runs._RunLoop()
        fields = [getattr(self, name) for name in self.names]
        stable(m, "command", *fields)
        for name, value in zip(self.names, fields, strict=True):
            m.d.comb += dut.transfer.command[name].eq(value)
        running = Signal()
        m.d.comb += [
            dut.transfer.start.eq(self.start),
            dut.o.ready.eq(self.ready),
            Assume(~self.start | ~running),
            Assume((self.n1 != 0) & (self.n2 != 0)),
        ]
        # for i2 in range(n2): for i1 in range(n1): one run
        i1, i2 = Signal(2), Signal(2)
        mem, sram, outer_mem, outer_sram = (
            Signal(RUN_SUM, name=name) for name in ("mem", "sram", "outer_mem", "outer_sram")
        )
        last1, last2, taken = Signal(), Signal(), Signal()
        m.d.comb += [
            last1.eq(i1 == self.n1 - 1),
            last2.eq(i2 == self.n2 - 1),
            taken.eq(dut.o.valid & self.ready),
        ]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1),
                i1.eq(0),
                i2.eq(0),
                mem.eq(self.mem_addr),
                outer_mem.eq(self.mem_addr),
                sram.eq(self.sram_addr),
                outer_sram.eq(self.sram_addr),
            ]
        with m.Elif(taken & ~last1):
            m.d.sync += [
                i1.eq(i1 + 1),
                mem.eq(mem + self.mem_stride1),
                sram.eq(sram + self.sram_stride1),
            ]
        with m.Elif(taken & ~last2):
            m.d.sync += [
                i1.eq(0),
                i2.eq(i2 + 1),
                mem.eq(outer_mem + self.mem_stride2),
                outer_mem.eq(outer_mem + self.mem_stride2),
                sram.eq(outer_sram + self.sram_stride2),
                outer_sram.eq(outer_sram + self.sram_stride2),
            ]
        with m.Elif(taken):
            m.d.sync += running.eq(0)
        run = dut.o.payload
        sram_wrapped = Signal.like(run.sram)
        m.d.comb += [
            sram_wrapped.eq(sram),
            Assert(dut.o.valid == running, "runs come until the last one"),
            Assert(~running | (run.final == (last1 & last2)), "the last run is marked"),
            Assert(~running | (run.offset == mem), "runs follow the loops in memory"),
            Assert(~running | (run.sram == sram_wrapped), "runs follow the loops on chip"),
            Cover(taken & run.final & (self.n1 == 3) & (self.n2 == 2), "three by two runs"),
        ]
        return m


class CheckHarness(Component):
    """Any runs at the check: one of them is watched on its way through.

    Members
    -------
    offset, sram : In
        The run.
    row_bytes, space, size : In
    valid, ready, watch : In(1)
    """

    def __init__(self) -> None:
        flags = {name: In(1) for name in ("valid", "ready", "final", "watch")}
        super().__init__(
            flags
            | {"offset": In(signed(7)), "sram": In(signed(9))}
            | {"row_bytes": In(4), "space": In(2), "size": In(6)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = runs._RunCheck(CONFIG, stage=StreamWire)
        stable(m, "command", self.row_bytes, self.space, self.size)
        command = dut.transfer.command
        started = Signal()
        m.d.sync += started.eq(1)
        m.d.comb += [
            dut.transfer.region_base.eq(BASE),
            dut.transfer.region_size.eq(self.size),
            command.row_bytes.eq(self.row_bytes),
            command.space.eq(self.space),
            Assume(self.row_bytes != 0),
            # The command is there before its first run.
            dut.i.valid.eq(self.valid & started),
            dut.i.payload.offset.eq(self.offset),
            dut.i.payload.sram.eq(self.sram),
            dut.i.payload.final.eq(self.final),
            dut.o.ready.eq(self.ready),
        ]
        pushed, popped = Signal(), Signal()
        inside, ahead = Signal(2), Signal(2)
        watching, over = Signal(), Signal()
        offset, sram, final = Signal(signed(7)), Signal(signed(9)), Signal()
        m.d.comb += [
            pushed.eq(dut.i.valid & dut.i.ready),
            popped.eq(dut.o.valid & dut.o.ready),
        ]
        m.d.sync += inside.eq(inside + pushed - popped)
        with m.If(watching):
            m.d.sync += ahead.eq(ahead - popped)
            with m.If(popped & (ahead == 0)):
                m.d.sync += [watching.eq(0), over.eq(1)]
        with m.Elif(pushed & self.watch & ~over):
            m.d.sync += [
                watching.eq(1),
                ahead.eq(inside - popped),
                offset.eq(self.offset),
                sram.eq(self.sram),
                final.eq(self.final),
            ]
        space_bytes = Signal(12)
        with m.Switch(self.space):
            for space, count in SPACE_BYTES.items():
                with m.Case(int(space)):
                    m.d.comb += space_bytes.eq(count)
        bad_mem, bad_sram, due = Signal(), Signal(), Signal()
        address, on_chip, word_sram = Signal(32), Signal(20), Signal(20)
        last_byte = Signal(6)
        m.d.comb += [
            due.eq(watching & (ahead == 0)),
            bad_mem.eq((offset < 0) | (offset + self.row_bytes > self.size)),
            bad_sram.eq((sram < 0) | (sram + self.row_bytes > space_bytes)),
            address.eq(BASE + offset),
            on_chip.eq(sram),
            word_sram.eq(sram - offset[:2]),
            last_byte.eq(offset[:2] + self.row_bytes - 1),
        ]
        run = dut.o.payload
        window = dut.cause == ErrorCause.MEM_WINDOW
        m.d.comb += [
            Assert(~(due & dut.o.valid) | ~(bad_mem | bad_sram), "no run out of range goes on"),
            Assert(~(due & dut.fault) | bad_mem | bad_sram, "no fault of a run in range"),
            Assert(
                ~(due & dut.fault)
                | ((window == bad_mem) & (dut.address == Mux(bad_mem, address, on_chip))),
                "a fault names its cause and its address",
            ),
            Assert(
                ~(due & dut.o.valid)
                | (
                    (run.adr == address[2:])
                    & (run.first_lane == address[:2])
                    & (run.sram == word_sram)
                    & (run.words_less_1 == last_byte[2:])
                    & (run.last_lane == last_byte[:2])
                    & (run.final == final)
                ),
                "a run goes on as its words",
            ),
            Assert(inside <= 3, "three runs at most are being checked"),
            Assert((inside != 0) | ~(dut.o.valid | dut.fault), "no verdict without a run"),
            Cover(due & dut.fault & window, "a run out of its region"),
            Cover(due & dut.fault & ~window, "a run out of its memory"),
            Cover(over & (run.words_less_1 == 2), "a run of three words"),
        ]
        return m


class WordHarness(Component):
    """Any checked runs, word by word.

    Members
    -------
    adr, words_less_1, sram, first_lane, last_lane, final : In
        The run.
    valid, ready : In(1)
    """

    NAMES = {
        "adr": 4,
        "sram": 6,
        "words_less_1": 2,
        "first_lane": 2,
        "last_lane": 2,
        "final": 1,
    }

    def __init__(self) -> None:
        super().__init__(
            {name: In(bits) for name, bits in self.NAMES.items()} | {"valid": In(1), "ready": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = runs._WordLoop(CONFIG)
        at = {name: Signal(bits, name=f"at_{name}") for name, bits in self.NAMES.items()}
        have, done = Signal(), Signal(3)
        moved, taken, last = Signal(), Signal(), Signal()
        m.d.comb += [
            dut.i.valid.eq(self.valid),
            dut.o.ready.eq(self.ready),
            *(dut.i.payload[name].eq(getattr(self, name)) for name in self.NAMES),
            Assume((self.words_less_1 != 0) | (self.first_lane <= self.last_lane)),
            moved.eq(self.valid & dut.i.ready),
            taken.eq(dut.o.valid & self.ready),
            last.eq(done == at["words_less_1"]),
        ]
        with m.If(taken):
            m.d.sync += [done.eq(done + 1), have.eq(~last)]
        with m.If(moved):
            m.d.sync += [have.eq(1), done.eq(0)]
            m.d.sync += [at[name].eq(getattr(self, name)) for name in self.NAMES]
        word = dut.o.payload
        adr, sram, mask = Signal(6), Signal.like(word.sram), Signal(LANES)
        m.d.comb += [
            adr.eq(at["adr"] + done),
            sram.eq(at["sram"] + (done << 2)),
            mask.eq(
                Cat(
                    ((done != 0) | (lane >= at["first_lane"])) & (~last | (lane <= at["last_lane"]))
                    for lane in range(LANES)
                )
            ),
            Assert(dut.o.valid == have, "words come until all have come"),
            Assert(~have | ((word.adr == adr) & (word.sram == sram)), "words follow one another"),
            Assert(~have | (word.mask == mask), "only the bytes of the run"),
            Assert(~have | word.mask.any(), "no word without a byte"),
            Assert(~have | (word.last == last), "the last word is marked"),
            Assert(~have | (word.final == (last & at["final"])), "so is the last of all"),
            Assert(~moved | ~have | (taken & last), "a run waits for the end of the one before"),
            Cover(taken & last & (done == 3) & self.valid, "four words and a successor"),
        ]
        return m


class WalkHarness(Component):
    """Any small transfer of one row of runs: bounds, from the words alone.

    Without a kind it is the walk of a compact machine, for both. A command that is `followed` is
    complete when all of its runs have been checked.

    Members
    -------
    one for each of FIELDS : In
    space : In(2), size : In(6)
    valid, ready : In(1)
    stores : In(1)
        The command is a `Store`; only without a kind.
    """

    FIELDS = {"mem_addr": 5, "sram_addr": 7, "row_bytes": 4, "n1": 2, "mem_stride1": signed(5)}

    def __init__(self, kind: type[Load] | type[Store] | None, *, followed: bool = False) -> None:
        self.kind, self.followed = kind, followed
        self.fields = self.FIELDS
        super().__init__(
            {name: In(shape) for name, shape in self.fields.items()}
            | {"space": In(2), "size": In(6), "valid": In(1), "ready": In(1), "stores": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stage = StreamWire if self.kind is None else StreamBuffer
        m.submodules.dut = dut = transfer.TransferWalk(CONFIG, kind=self.kind, stage=stage)
        command = data.View(command_layout(self.kind or Load), dut.command.payload)
        self._drive(m, dut, command)
        word = dut.words.payload
        taken = Signal()
        m.d.comb += taken.eq(dut.words.valid & dut.words.ready)
        space_bytes = Signal(12)
        with m.Switch(word.space):
            for space, count in SPACE_BYTES.items():
                with m.Case(int(space)):
                    m.d.comb += space_bytes.eq(count)
        stable(m, "region", self.size)

        # Bounds, from the word alone.
        for lane in range(LANES):
            inside = Signal(name=f"inside_{lane}")
            place = (word.adr << 2) + lane
            on_chip = (word.sram + lane)[: len(word.sram)]
            m.d.comb += [
                inside.eq((place >= BASE) & (place < BASE + self.size) & (on_chip < space_bytes)),
                Assert(
                    ~(dut.words.valid & word.mask[lane]) | inside,
                    "every byte is in its region and in its memory",
                ),
            ]
        m.d.comb += Assert(~dut.words.valid | word.mask.any(), "no word without a byte")
        complete, words = Signal(), Signal(4)
        m.d.comb += complete.eq(self.valid & dut.command.ready)
        with m.If(taken & ~words.all()):
            m.d.sync += words.eq(words + 1)
        with m.If(complete):
            m.d.sync += words.eq(0)
        legal = (self.row_bytes != 0) & (self.n1 != 0)
        if self.kind is Store:
            legal &= self.space == Space.ACT
        if self.kind is None:
            legal &= ~self.stores | (self.space == Space.ACT)
        # Commands that have begun or may do so, and last words.
        commands, finals = Signal(4), Signal(4)
        m.d.sync += [commands.eq(commands + complete), finals.eq(finals + (taken & word.final))]
        m.d.comb += Assert(
            ~(taken & word.final) | (finals < commands + self.valid), "one last word a command"
        )
        if self.followed:
            m.d.comb += [
                Cover((commands == 1) & (finals == 0), "complete before its last word"),
                Cover((finals == 2) & (commands == 2), "two commands done"),
            ]
            return m
        m.d.comb += [
            Assert(~complete | (finals + (taken & word.final) == commands + 1), "it is marked"),
            Assert(~dut.words.valid | legal, "an illegal command asks for nothing"),
            Assert(~dut.words.valid | self.valid, "no word without a command"),
            Assert(~complete | (words >= self.n1), "a command completes with all of its runs"),
            Cover(complete & (self.n1 == 2) & (words == 4), "two runs of two words"),
            Cover(dut.fault.valid & (words == 3), "a fault after three words"),
        ]
        return m

    def _drive(self, m: Module, dut: Any, command: data.View) -> None:
        """A command stays until it is complete."""
        held = Signal()
        inputs = [getattr(self, name) for name in self.fields] + [
            self.space,
            self.size,
            self.stores,
        ]
        before = Signal(len(Cat(*inputs)))
        m.d.comb += [
            *(command[name].eq(getattr(self, name)) for name in self.fields),
            command.space.eq(self.space),
            command.n2.eq(1),
            dut.command.valid.eq(self.valid),
            dut.stores.eq(self.stores),
            dut.drained.eq(1),
            dut.followed.eq(self.followed),
            dut.words.ready.eq(self.ready),
            dut.regions[0].base.eq(BASE),
            dut.regions[0].size.eq(self.size),
            Assume(~held | (self.valid & (Cat(*inputs) == before))),
        ]
        m.d.sync += [
            held.eq(self.valid & ~dut.command.ready),
            before.eq(Cat(*inputs)),
        ]


@pytest.mark.parametrize(
    ("harness", "depth"), [(LoopHarness, None), (CheckHarness, CHECK_DEPTH), (WordHarness, None)]
)
def test_part(formal: Any, harness: Any, depth: int | None) -> None:
    formal.check(harness(), depth=depth)


@pytest.mark.parametrize(
    ("kind", "followed"), [(Load, False), (Load, True), (Store, False), (None, False), (None, True)]
)
def test_walk(formal: Any, kind: Any, followed: bool) -> None:
    formal.check(WalkHarness(kind, followed=followed), depth=WALK_DEPTH)


BUGS: dict[str, tuple[Any, str, str, str, str]] = {
    # name: harness, class, right, wrong, claim that breaks
    "the end is not looked at": (
        CheckHarness,
        "_RunCheck",
        "(end > self.transfer.region_size)",
        "(begin > self.transfer.region_size)",
        "no run out of range",
    ),
    "below the region": (
        lambda: WalkHarness(Load),
        "_RunCheck",
        "(begin < 0) | (end",
        "(end",
        "in its region",
    ),
    "one row too few": (LoopHarness, "_RunLoop", "left1 == 2", "left1 == 1", "last"),
    "one word too many": (
        WordHarness,
        "_WordLoop",
        "word.last.eq(left == 1)",
        "word.last.eq(left == 0)",
        "",
    ),
    "a wrong edge": (
        WordHarness,
        "_WordLoop",
        "Mux(left == 1, tail, ~0)",
        "Mux(left == 0, tail, ~0)",
        "only the bytes",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, bug: str) -> None:
    make, cls, right, wrong, claim = BUGS[bug]
    formal.seed_bug(runs, cls, right, wrong)
    formal.refute(make(), claim, depth=WALK_DEPTH)
