# amaranth: UnusedElaboratable=no
"""SDRAM: controller against the checking model and a table of bytes, the model, the chip."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import pytest
from amaranth.back import rtlil, verilog
from amaranth.hdl import ClockDomain, Module
from amaranth.lib.wiring import Component, Out, connect
from celosia.boards.fpga.resources import cell_counts
from celosia.boards.fpga.tools import YOSYS, FpgaToolError, find_tool
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.system import sdram
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_pins import mode_register
from celosia.hw.system.sdram_scheduler import SdramScheduler
from celosia.hw.system.sdram_sequencer import SdramSequencer
from celosia.hw.system.sdram_timing import SDRAM_CHIPS, Delay, SdramChip
from celosia.sim.board.sdram_chip import SimulatedSdram
from celosia.sim.board.sdram_figures import Request, figures, quick, run, transfer
from celosia.sim.board.sdram_model import PinLevels, SdramModel, SdramRuleError

WINBOND, ALLIANCE, ISSI, MICRON = (
    SDRAM_CHIPS[name]
    for name in ("W9825G6KH-6", "AS4C16M16SA-6", "IS42S16160G-7", "MT48LC16M16A2-7E")
)


def config_of(bus_bits: int) -> NpuConfig:
    return replace(PRESETS["large"], bus_bits=bus_bits)


# ---------------------------------------------------------------------- random traffic


@dataclass
class Traffic:
    """Random requests, and what the memory may hold after them.

    A word is a set of values: a write that was dropped may have been done or not.
    """

    bus: Any
    chip: SdramChip
    rng: random.Random
    drops: bool = True

    def __post_init__(self) -> None:
        self.word_bits = len(self.bus.dat_w)
        self.bytes = self.word_bits // 8
        self.row_words = self.chip.columns * 16 // self.word_bits
        rows = sorted({0, 1, self.chip.rows - 1})
        # Around the boundaries of rows and banks, so that bursts cross them.
        self.pool = [
            ((row * self.chip.banks + bank) * self.row_words + column) % self.words
            for row in rows
            for bank in range(self.chip.banks)
            for column in (0, 1, self.row_words - 2, self.row_words - 1)
        ]
        self.pool += range(2, 20)
        self.memory: dict[int, set[int]] = {}

    @property
    def words(self) -> int:
        return 8 * self.chip.memory_bytes // self.word_bits

    def written(self, adr: int, old: int, data: int, sel: int) -> int:
        mask = sum(0xFF << 8 * lane for lane in range(self.bytes) if sel >> lane & 1)
        return old & ~mask | data & mask

    def session(self) -> list[Request]:
        """Return requests that belong together: a run of words, or all over the place."""
        kind, rng = self.rng.randrange(4), self.rng
        if kind == 0:
            start = rng.choice(self.pool)
            adrs = [a for a in range(start, start + rng.randrange(1, 20)) if a in self.memory]
        elif kind == 1:
            adrs = [rng.choice(self.pool)]
        else:
            adrs = [rng.choice(self.pool) for _ in range(rng.randrange(2, 12))]
        if rng.random() < 0.2:
            beyond = rng.choice((self.words, 2 * self.words - 1, (1 << len(self.bus.adr)) - 1))
            adrs.insert(rng.randrange(len(adrs) + 1), beyond)
        writes = rng.choice((0.0, 0.5, 1.0))
        return [
            Request(
                adr,
                rng.getrandbits(self.word_bits) if rng.random() < writes else None,
                rng.choice((None, rng.getrandbits(self.bytes), 0)),
            )
            for adr in adrs
        ]

    async def fill(self, ctx: Any) -> None:
        """Write all words that are ever used, so that their content is known."""
        requests = [Request(adr, self.rng.getrandbits(self.word_bits)) for adr in set(self.pool)]
        answers = await transfer(ctx, self.bus, requests)
        assert not any(answer.err for answer in answers)
        self.memory = {request.adr: {request.data or 0} for request in requests}

    def check(self, request: Request, err: int, data: int) -> None:
        if request.adr >= self.words:
            assert err, f"word {request.adr:#x} is beyond the memory"
            return
        assert not err, f"word {request.adr:#x} is in the memory"
        sel = (1 << self.bytes) - 1 if request.sel is None else request.sel
        known = self.memory[request.adr]
        if request.data is None:
            assert data in known, f"word {request.adr:#x}: {data:#x}, not of {known}"
            self.memory[request.adr] = {data}
        else:
            self.memory[request.adr] = {
                self.written(request.adr, old, request.data, sel) for old in known
            }

    def forget(self, dropped: list[Request]) -> None:
        for request in dropped:
            if request.data is not None and request.adr < self.words:
                known = set(self.memory[request.adr])
                self.check(request, 0, 0)
                self.memory[request.adr] |= known

    async def play(self, ctx: Any, requests: list[Request]) -> None:
        """Do the requests, with pauses; perhaps give up before all are answered."""
        bus, rng = self.bus, self.rng
        waiting, in_flight = deque(requests), deque[Request]()
        pauses = rng.choice((0.0, 0.3))
        patience = rng.randrange(1, 60) if self.drops and rng.random() < 0.4 else None
        ctx.set(bus.cyc, 1)
        asks = False
        while (waiting or in_flight) and patience != 0:
            asks = asks or bool(waiting) and rng.random() >= pauses
            ctx.set(bus.stb, asks)
            if asks:
                ctx.set(bus.adr, waiting[0].adr)
                ctx.set(bus.we, waiting[0].data is not None)
                ctx.set(bus.dat_w, waiting[0].data or 0)
                ctx.set(bus.sel, -1 if waiting[0].sel is None else waiting[0].sel)
            _, _, stall, ack, err, data = await ctx.tick().sample(
                bus.stall, bus.ack, bus.err, bus.dat_r
            )
            assert not (ack and err)
            if ack or err:
                assert in_flight, "an answer to nothing"
                self.check(in_flight.popleft(), err, data)
            if asks and not stall:
                in_flight.append(waiting.popleft())
                asks = False
            patience = None if patience is None else patience - 1
        self.forget(list(in_flight))
        ctx.set(bus.stb, 0)
        ctx.set(bus.cyc, 0)
        for _ in range(1 if rng.random() < 0.7 else rng.randrange(2, 30)):
            await ctx.tick()

    async def read_back(self, ctx: Any) -> None:
        requests = [Request(adr) for adr in self.memory]
        for request, answer in zip(requests, await transfer(ctx, self.bus, requests), strict=True):
            self.check(request, answer.err, answer.data)


async def wander(ctx: Any, traffic: Traffic, *, sessions: int, idle_cycles: int = 0) -> None:
    await traffic.fill(ctx)
    for index in range(sessions):
        await traffic.play(ctx, traffic.session())
        if index == sessions // 2:
            for _ in range(idle_cycles):
                await ctx.tick()
    await traffic.read_back(ctx)


def check_traffic(
    chip: SdramChip,
    clock_mhz: float,
    bus_bits: int,
    *,
    seed: int = 0,
    sessions: int = 40,
    wire_cycles: int = 0,
    **options: Any,
) -> SdramModel:
    clock_hz = clock_mhz * 1e6
    chip = quick(chip)
    dut = SdramController(config_of(bus_bits), chip=chip, clock_hz=clock_hz, **options)
    model = SdramModel(chip, clock_hz, wire_cycles=wire_cycles, seed=seed)
    traffic = Traffic(dut.bus, chip, random.Random(f"{chip.name} {clock_mhz} {bus_bits} {seed}"))
    idle_cycles = chip.cycles(clock_hz).refresh

    async def bench(ctx: Any) -> None:
        await wander(ctx, traffic, sessions=sessions, idle_cycles=idle_cycles)

    run(dut, bench, model.process(dut.pins), clock_hz=clock_hz)
    # Byte address a is 16-bit word a // 2 of the chip, by row, bank and column.
    for adr, known in traffic.memory.items():
        halves = [
            model.words[place_of(chip, adr * bus_bits // 16 + half)]
            for half in range(bus_bits // 16)
        ]
        assert {sum(half << 16 * i for i, half in enumerate(halves))} == known
    return model


def place_of(chip: SdramChip, half: int) -> tuple[int, int, int]:
    block, column = divmod(half, chip.columns)
    row, bank = divmod(block, chip.banks)
    return bank, row, column


@pytest.mark.parametrize("bus_bits", [32, 64, 128])
@pytest.mark.parametrize(
    ("chip", "clock_mhz", "cas_latency"),
    [(WINBOND, 25, 2), (WINBOND, 80, 2), (ALLIANCE, 80, 3), (MICRON, 100, 2), (ISSI, 100, 3)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_random_traffic(chip: SdramChip, clock_mhz: float, cas_latency: int, bus_bits: int) -> None:
    model = check_traffic(chip, clock_mhz, bus_bits, cas_latency=cas_latency)
    assert model.counts["REFRESH"] > chip.timing.power_up_refreshes + 1
    assert model.counts["READ"] > 50
    assert model.counts["WRITE"] > 50


def test_fast_clock() -> None:
    check_traffic(WINBOND, 160, 64, sessions=20)


def test_wires_that_take_a_cycle() -> None:
    check_traffic(WINBOND, 80, 64, sessions=10, wire_cycles=1, capture_cycles=4)


class HalfCycle(Component):
    """A controller, and a clock domain for the chip: the inverted clock."""

    def __init__(self, controller: SdramController) -> None:
        self.controller = controller
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain()
        m.domains.chip = inverted = ClockDomain(clk_edge="neg", reset_less=True)
        m.d.comb += inverted.clk.eq(sync.clk)
        m.submodules.controller = self.controller
        return m


def test_inverted_clock() -> None:
    chip, clock_hz = quick(WINBOND), 25e6
    controller = SdramController(config_of(64), chip=chip, clock_hz=clock_hz, capture_cycles=2)
    model = SdramModel(chip, clock_hz)
    traffic = Traffic(controller.bus, chip, random.Random(4))

    async def bench(ctx: Any) -> None:
        await wander(ctx, traffic, sessions=10)

    process = model.process(controller.pins, "chip")
    run(HalfCycle(controller), bench, process, clock_hz=clock_hz)


@pytest.mark.parametrize(
    ("clock_mhz", "phase", "capture_cycles", "margins"),
    [
        # 80 MHz, inverted: the chip's edges at 6.25 + 3, data valid 6 ns after the one before
        # theirs, 3 ns on the way back; captured after 3 * 12.5 ns.
        (80, 0.5, 3, (37.5 - (9.25 + 12.5 + 6 + 3), 9.25 + 25 + 3 + 3 - 37.5)),
        (25, 0.5, 2, (80 - (23 + 40 + 6 + 3), 23 + 80 + 3 + 3 - 80)),
        (25, 0.5, 3, (120 - (23 + 40 + 6 + 3), 23 + 80 + 3 + 3 - 120)),
    ],
)
def test_capture_margins(
    clock_mhz: float, phase: float, capture_cycles: int, margins: tuple[float, float]
) -> None:
    found = WINBOND.capture_margins_ns(
        clock_mhz * 1e6,
        cas_latency=2,
        capture_cycles=capture_cycles,
        chip_clock_ns=phase * 1e3 / clock_mhz + 3,
        return_ns=3,
    )
    assert found == pytest.approx(margins)


class BoardRegisters(Component):
    """A controller and its board's registers, on both sides of the pins."""

    def __init__(self, controller: SdramController) -> None:
        self.controller = controller
        self.memory_bytes = controller.memory_bytes
        super().__init__(dict(controller.signature.members))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.controller = inner = self.controller
        for path, member, port in inner.signature.flatten(inner):
            outer = self
            for name in path:
                outer = getattr(outer, name)
            domain = m.d.sync if path[0] == "pins" else m.d.comb
            domain += outer.eq(port) if member.flow is Out else port.eq(outer)
        return m


def test_registers_in_the_boards_buffers() -> None:
    chip, clock_hz = quick(WINBOND), 80e6
    dut = BoardRegisters(
        SdramController(config_of(64), chip=chip, clock_hz=clock_hz, board_registers=True)
    )
    model = SdramModel(chip, clock_hz)
    traffic = Traffic(dut.bus, chip, random.Random(3))

    async def bench(ctx: Any) -> None:
        await wander(ctx, traffic, sessions=15)
        await transfer(ctx, dut.bus, [Request(0)])
        answer = (await transfer(ctx, dut.bus, [Request(1)]))[0]
        assert answer.cycle - answer.asked == dut.controller.latency_cycles

    run(dut, bench, model.process(dut.pins), clock_hz=clock_hz)


def test_power_up_takes_its_time() -> None:
    clock_hz = 25e6
    dut = SdramController(config_of(64), chip=WINBOND, clock_hz=clock_hz)
    model = SdramModel(WINBOND, clock_hz)

    async def bench(ctx: Any) -> None:
        answer = (await transfer(ctx, dut.bus, [Request(5, 0x0123456789ABCDEF)]))[0]
        assert answer.cycle > 200e-6 * clock_hz
        assert ctx.get(dut.initialised)
        answers = await transfer(ctx, dut.bus, [Request(5)])
        assert answers[0].data == 0x0123456789ABCDEF

    run(dut, bench, model.process(dut.pins), clock_hz=clock_hz)


# ---------------------------------------------------------------------- seeded defects


def cycles_changed(**changes: int) -> dict[str, Any]:
    cycles = quick(WINBOND).cycles(100e6)
    return {
        "cycles": replace(
            cycles, **{name: getattr(cycles, name) + change for name, change in changes.items()}
        )
    }


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"rcd": -1}, "tRCD"),
        ({"rp": -1}, "tRP"),
        ({"ras": -1}, "tRAS"),
        ({"rfc": -1}, "tRFC"),
        ({"wr": -1}, "tWR"),
        ({"refresh": 1_000_000}, "refresh"),
        ({"power_up": -10}, "power-up pause"),
    ],
    ids=str,
)
def test_defect_in_timing_is_found(changes: dict[str, int], rule: str) -> None:
    with pytest.raises(SdramRuleError) as caught:
        check_traffic(WINBOND, 100, 32, sessions=200, **cycles_changed(**changes))
    assert caught.value.rule == rule


def test_command_during_refresh_is_found() -> None:
    clock_hz, chip = 100e6, quick(WINBOND)
    dut = SdramController(config_of(64), chip=chip, clock_hz=clock_hz, **cycles_changed(rfc=-1))
    model = SdramModel(chip, clock_hz, power_up=False)

    async def late(ctx: Any) -> None:
        # Power-up has too short a pause as well; this is about what follows it.
        await ctx.tick().until(dut.initialised)
        await model.process(dut.pins)(ctx)

    async def bench(ctx: Any) -> None:
        await transfer(ctx, dut.bus, [Request(adr) for adr in range(400)])

    with pytest.raises(SdramRuleError, match="tRFC broken.*ACTIVATE after REFRESH after 50.0 ns"):
        run(dut, bench, late, clock_hz=clock_hz)


def load_without_pause(clock_hz: float, bus_bits: int, **options: Any) -> tuple[int, int]:
    """Read and write all over the memory; return the refreshes and the cycles it took."""
    chip, rng = quick(WINBOND), random.Random(bus_bits)
    dut = SdramController(config_of(bus_bits), chip=chip, clock_hz=clock_hz, **options)
    model = SdramModel(chip, clock_hz)
    counts: list[int] = []

    async def bench(ctx: Any) -> None:
        await transfer(ctx, dut.bus, [Request(0)])
        adrs = (rng.randrange(8 * chip.memory_bytes // bus_bits) for _ in range(350))
        requests = [Request(adr, rng.choice((None, 1))) for adr in adrs]
        before = model.counts["REFRESH"]
        answers = await transfer(ctx, dut.bus, requests)
        counts.extend((model.counts["REFRESH"] - before, answers[-1].cycle))

    run(dut, bench, model.process(dut.pins), clock_hz=clock_hz)
    return counts[0], counts[1]


@pytest.mark.parametrize("bus_bits", [32, 128])
@pytest.mark.parametrize("clock_mhz", [25, 100])
def test_refresh_is_in_time_under_load(clock_mhz: float, bus_bits: int) -> None:
    refreshes, cycles = load_without_pause(clock_mhz * 1e6, bus_bits)
    interval = WINBOND.cycles(clock_mhz * 1e6).refresh
    assert cycles // interval <= refreshes <= cycles / (interval - 30) + 1


def test_refresh_that_is_late_under_load_is_found() -> None:
    with pytest.raises(SdramRuleError, match="refresh broken"):
        load_without_pause(100e6, 128, **cycles_changed(refresh=12))


def test_missing_turn_of_the_bus_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(SdramScheduler):
        def __init__(self, *sizes: Any, cas_latency: int, **options: int) -> None:
            super().__init__(*sizes, cas_latency=cas_latency - 1, **options)

    monkeypatch.setattr(sdram, "SdramScheduler", Hasty)
    with pytest.raises(SdramRuleError, match="data bus broken"):
        check_traffic(WINBOND, 100, 64)


def test_too_few_power_up_refreshes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(SdramSequencer):
        def __init__(self, *sizes: Any, power_up_refreshes: int, **options: int) -> None:
            super().__init__(*sizes, power_up_refreshes=power_up_refreshes - 1, **options)

    monkeypatch.setattr(sdram, "SdramSequencer", Lazy)
    with pytest.raises(SdramRuleError, match="power-up sequence.* after 7 refreshes"):
        check_traffic(WINBOND, 100, 64)


def test_wrong_capture_cycle_is_found() -> None:
    with pytest.raises(AssertionError, match="not of"):
        check_traffic(WINBOND, 100, 64, wire_cycles=1)


# ---------------------------------------------------------------------- the model's rules

ENCODINGS = {
    "MODE": (0, 0, 0),
    "REFRESH": (0, 0, 1),
    "PRECHARGE": (0, 1, 0),
    "ACTIVATE": (0, 1, 1),
    "WRITE": (1, 0, 0),
    "READ": (1, 0, 1),
}
ALL = 1 << 10
Step = tuple[int, str] | tuple[int, str, dict[str, int]]


def drive(*steps: Step, chip: SdramChip = WINBOND, mode: int = 0x22) -> list[int]:
    """Give a chip at 100 MHz commands, each so many cycles after the one before; return data."""
    model = SdramModel(chip, 100e6, power_up=False, mode=mode)
    out = [model.tick(PinLevels()) for _ in range(20)]
    for gap, name, *rest in steps:
        out += [model.tick(PinLevels()) for _ in range(gap - 1)]
        levels = rest[0] if rest else {}
        if name == "DATA":
            out.append(model.tick(PinLevels(**levels)))
        else:
            ras_n, cas_n, we_n = ENCODINGS[name]
            out.append(model.tick(PinLevels(cs_n=0, ras_n=ras_n, cas_n=cas_n, we_n=we_n, **levels)))
    return out


def write_steps(first_gap: int, *, a: int = 0, ba: int = 0) -> list[Step]:
    head: list[Step] = [(first_gap, "WRITE", {"a": a, "ba": ba, "dq_oe": 1, "dq_o": 100})]
    return head + [(1, "DATA", {"dq_oe": 1, "dq_o": 101 + i}) for i in range(3)]


def test_model_accepts_what_is_right() -> None:
    steps: list[Step] = [
        (1, "ACTIVATE", {"a": 7}),
        (2, "ACTIVATE", {"a": 9, "ba": 1}),
        *write_steps(1, a=4),
        *write_steps(1, a=8, ba=1),
        (1, "READ", {"a": 5}),
        (4, "READ", {"a": 8, "ba": 1}),
        (4, "PRECHARGE", {"a": ALL}),
        (2, "REFRESH"),
        (6, "ACTIVATE", {"a": 7}),
        (2, "READ", {"a": 4}),
        (6, "DATA"),
    ]
    out = drive(*steps)
    # Two cycles after READ; the block's columns go round.
    start = out.index(101)
    assert out[start : start + 8] == [101, 102, 103, 100, 100, 101, 102, 103]
    assert out[-6:-2] == [100, 101, 102, 103]


ROW = (1, "ACTIVATE", {"a": 7})


@pytest.mark.parametrize(
    ("rule", "steps"),
    [
        ("tRCD", [ROW, (1, "READ")]),
        ("tRAS", [ROW, (4, "PRECHARGE")]),
        ("tRP", [ROW, (5, "PRECHARGE"), (1, "ACTIVATE")]),
        ("tRP", [ROW, (5, "PRECHARGE"), (1, "REFRESH")]),
        ("tRRD", [ROW, (1, "ACTIVATE", {"ba": 1})]),
        ("tWR", [ROW, *write_steps(2), (1, "PRECHARGE")]),
        ("tWR", [ROW, *write_steps(4)[:2], (1, "PRECHARGE", {"a": ALL, "dq_oe": 1})]),
        ("tRFC", [(1, "REFRESH"), (5, "ACTIVATE")]),
        ("tRFC", [(1, "REFRESH"), (5, "REFRESH")]),
        ("tMRD", [(1, "MODE", {"a": 0x22}), (1, "ACTIVATE")]),
        ("mode register", [(1, "MODE", {"a": 0x12})]),
        ("mode register", [(1, "MODE", {"a": 0x27})]),
        ("bank state", [ROW, (9, "ACTIVATE", {"a": 8})]),
        ("bank state", [ROW, (9, "READ", {"ba": 1})]),
        ("bank state", [ROW, (9, "REFRESH")]),
        ("bank state", [ROW, (9, "MODE", {"a": 0x22})]),
        ("address", [ROW, (2, "READ", {"a": 512})]),
        ("A10", [ROW, (2, "READ", {"a": ALL})]),
        ("data bus", [ROW, (2, "READ"), *write_steps(4)]),
        ("data bus", [ROW, (2, "READ"), *write_steps(6)]),
        ("data bus", [ROW, (2, "WRITE")]),
        ("data bus", [ROW, (2, "DATA", {"dq_oe": 1})]),
        ("refresh", [(1000, "REFRESH")]),
        ("CKE", [(1, "DATA", {"cke": 0})]),
    ],
)
def test_model_finds(rule: str, steps: list[Step]) -> None:
    with pytest.raises(SdramRuleError) as caught:
        drive(*steps)
    assert caught.value.rule == rule


def test_model_finds_a_short_row_cycle_and_a_long_one() -> None:
    steps: list[Step] = [ROW, (4, "PRECHARGE"), (1, "DATA"), (1, "ACTIVATE")]
    timing = replace(WINBOND.timing, t_rp=Delay(ns=10), t_ras=Delay(ns=37), t_rc=Delay(ns=70))
    with pytest.raises(SdramRuleError, match="tRC broken"):
        drive(*steps, chip=replace(WINBOND, timing=timing))
    timing = replace(WINBOND.timing, t_ras_max_ns=1000)
    with pytest.raises(SdramRuleError, match="longer than it may be"):
        drive(ROW, (101, "PRECHARGE"), chip=replace(WINBOND, timing=timing))


def test_model_wants_the_power_up_sequence() -> None:
    model = SdramModel(quick(WINBOND), 1e6)
    for _ in range(5):
        model.tick(PinLevels())
    with pytest.raises(SdramRuleError, match="before the mode register is written"):
        model.tick(PinLevels(cs_n=0, ras_n=0, cas_n=1, we_n=1))


# ---------------------------------------------------------------------- figures and times


def test_figures_of_the_manual() -> None:
    found = figures(WINBOND, clock_hz=80e6, bus_bits=64, words=512, reads=30)
    assert found["read"] < 4.1
    assert found["write"] < 4.1
    assert (found["open"], found["closed"], found["conflict"]) == (9, 11, 13)
    assert found["random"] < 7


@pytest.mark.parametrize(
    ("chip", "clock_mhz", "latency", "cycles"),
    [
        # By hand from the data sheets: rcd, rp, ras, rrd, rfc, wr, mrd, refresh, power_up.
        (WINBOND, 80, 2, (2, 2, 4, 2, 5, 2, 2, 625, 16000)),
        (WINBOND, 25, 2, (1, 1, 2, 2, 2, 2, 2, 195, 5000)),
        (WINBOND, 125, 3, (3, 3, 6, 2, 8, 2, 2, 976, 25000)),
        (MICRON, 100, 2, (2, 2, 4, 2, 7, 2, 2, 781, 20000)),
        (MICRON, 133, 2, (2, 2, 6, 2, 9, 2, 2, 1039, 26600)),
        (ISSI, 100, 2, (2, 2, 5, 2, 7, 2, 2, 781, 20000)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_cycles_of_a_clock(
    chip: SdramChip, clock_mhz: float, latency: int, cycles: tuple[int, ...]
) -> None:
    found = chip.cycles(clock_mhz * 1e6)
    names = ("rcd", "rp", "ras", "rrd", "rfc", "wr", "mrd", "refresh", "power_up")
    assert tuple(getattr(found, name) for name in names) == cycles
    assert chip.cas_latency(clock_mhz * 1e6) == latency
    assert (found.ras + found.rp) / clock_mhz * 1e3 >= chip.timing.t_rc.ns


def test_sizes() -> None:
    assert all(chip.memory_bytes == 32 << 20 for chip in SDRAM_CHIPS.values())
    dut = SdramController(config_of(64), chip=WINBOND, clock_hz=80e6)
    assert dut.memory_bytes == 32 << 20
    assert dut.bus.signature.flip() == initiator_signature(config_of(64))


@pytest.mark.parametrize("bus_bits", [32, 64, 128])
def test_it_is_small(bus_bits: int) -> None:
    try:
        find_tool(YOSYS, task="synthesis")
    except FpgaToolError as error:
        pytest.skip(str(error))
    dut = SdramController(config_of(bus_bits), chip=WINBOND, clock_hz=80e6)
    text = rtlil.convert(dut, name="top", emit_src=False)
    cells = cell_counts(text, "synth_ecp5 -top top", timeout_s=300)
    assert cells["LUT4"] < 400
    # The open rows, and no other memory.
    assert cells["TRELLIS_DPR16X4"] == 4
    assert "DP16KD" not in cells


# ---------------------------------------------------------------------- the simulated chip


class Board(Component):
    """A controller and a simulated chip."""

    def __init__(self, bus_bits: int, chip: SdramChip, cas_latency: int) -> None:
        self.controller = SdramController(
            config_of(bus_bits), chip=chip, clock_hz=80e6, cas_latency=cas_latency
        )
        self.chip = SimulatedSdram(chip)
        self.bus = self.controller.bus
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.controller = self.controller
        m.submodules.chip = self.chip
        connect(m, self.controller.pins, self.chip.pins)
        return m


@pytest.mark.parametrize(("bus_bits", "cas_latency"), [(32, 3), (64, 2), (128, 3)])
def test_simulated_chip(bus_bits: int, cas_latency: int) -> None:
    chip = replace(quick(WINBOND), rows=4, columns=64)
    dut = Board(bus_bits, chip, cas_latency)
    traffic = Traffic(dut.bus, chip, random.Random(bus_bits))

    async def bench(ctx: Any) -> None:
        await wander(ctx, traffic, sessions=25)
        adr, known = next(iter(traffic.memory.items()))
        first = ctx.get(dut.chip.memory.data[adr * bus_bits // 16])
        assert first in {value & 0xFFFF for value in known}

    run(dut, bench, clock_hz=80e6)


def test_simulated_chip_is_verilog() -> None:
    chip = replace(WINBOND, rows=16)
    text = verilog.convert(Board(64, chip, 2), ports=[])
    assert f"[{chip.memory_bytes // 2 - 1}:0];" in text


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clock_hz": 200e6}, "does not run at 200 MHz"),
        ({"clock_hz": 133e6, "cas_latency": 2}, "cas_latency must be 3 to 3 .* not 2"),
        ({"clock_hz": 80e6, "cas_latency": 4}, "cas_latency must be 2 to 3"),
        ({"clock_hz": 80e6, "capture_cycles": 1}, "capture_cycles must be 2 to 6"),
        ({"clock_hz": 2e6}, "leaves no time to work"),
    ],
)
def test_controller_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SdramController(config_of(64), chip=WINBOND, **options)


def test_controller_refuses_times_it_does_not_count() -> None:
    slow = replace(WINBOND, timing=replace(WINBOND.timing, t_rrd=Delay(clocks=3)))
    with pytest.raises(ValueError, match="tRRD may be 2 cycles"):
        SdramController(config_of(64), chip=slow, clock_hz=80e6)


def test_sizes_that_are_no_powers_of_two_are_refused() -> None:
    with pytest.raises(ValueError, match="rows must be a power of two"):
        replace(WINBOND, rows=3000)
    with pytest.raises(ValueError, match="burst_columns must be"):
        mode_register(burst_columns=16, cas_latency=2)
    with pytest.raises(ValueError, match="cas_latency must be"):
        mode_register(burst_columns=4, cas_latency=1)
