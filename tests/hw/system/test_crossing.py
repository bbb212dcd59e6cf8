"""The crossing to a memory with a clock of its own, at many pairs of clocks."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from amaranth.hdl import DomainRenamer, Module
from amaranth.lib.wiring import Component, In, connect, flipped
from amaranth.sim import Simulator
from celosia.boards.registry import BOARDS
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import PRESETS
from celosia.hw.system.crossing import MEMORY_DOMAIN, ClockCrossing
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_timing import SdramChip
from celosia.sim.board.sdram_figures import Request, quick, transfer
from celosia.sim.board.sdram_model import SdramModel

CONFIG = PRESETS["base"]
COUNT = 400
BEYOND = 1 << 20
"""The memory's answers to requests from there on are errors."""


class Target:
    """A memory that answers in order, late, and refuses requests now and then."""

    def __init__(
        self, rng: random.Random, stalls: float, delays: Sequence[int] = (1, 1, 4, 12)
    ) -> None:
        self.rng, self.stalls, self.delays = rng, stalls, delays
        self.words: dict[int, int] = {}
        self.taken: list[int] = []
        self.waiting: deque[tuple[int, int, bool]] = deque()
        self.most_waiting = 0

    async def serve(self, ctx: Any, dut: ClockCrossing) -> None:
        mem, cycle = dut.mem, 0
        while True:
            stall = self.rng.random() < self.stalls
            ctx.set(mem.stall, stall)
            due = bool(self.waiting) and self.waiting[0][0] <= cycle
            _, data, error = self.waiting.popleft() if due else (0, self.rng.getrandbits(64), False)
            ctx.set(mem.ack, due and not error)
            ctx.set(mem.err, due and error)
            ctx.set(mem.dat_r, data)
            sample = (mem.cyc, mem.stb, mem.adr, mem.we, mem.sel, mem.dat_w)
            _, rst, cyc, stb, adr, we, sel, dat_w = await ctx.tick(MEMORY_DOMAIN).sample(*sample)
            cycle += 1
            assert cyc or not (stb or self.waiting or due)
            if rst or not stb or stall:
                continue
            self.taken.append(adr)
            if we:
                self._write(adr, dat_w, sel)
            delay = self.rng.choice(self.delays)
            self.waiting.append((cycle + delay, self.words.get(adr, 0), adr >= BEYOND))
            self.most_waiting = max(self.most_waiting, len(self.waiting))

    def _write(self, adr: int, data: int, sel: int) -> None:
        mask = sum(0xFF << 8 * lane for lane in range(CONFIG.bus_bytes) if sel >> lane & 1)
        self.words[adr] = self.words.get(adr, 0) & ~mask | data & mask


def run(
    machine_mhz: float, memory_mhz: float, *, seed: int, stalls: float, pauses: float
) -> Target:
    """Send random requests; every answer is compared with a table of the machine's own."""
    rng = random.Random(seed)
    dut = ClockCrossing(CONFIG)
    target = Target(random.Random(seed + 1), stalls)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6 / machine_mhz)
    simulator.add_clock(
        1e-6 / memory_mhz, phase=rng.random() * 1e-6 / memory_mhz, domain=MEMORY_DOMAIN
    )
    model = Target(random.Random(0), 0.0)
    asked: list[int] = []

    async def machine(ctx: Any) -> None:
        bus = dut.bus
        in_flight: deque[tuple[bool, int | None]] = deque()
        left = COUNT
        while left or in_flight:
            asks = left > 0 and len(in_flight) < CONFIG.max_outstanding
            asks = asks and rng.random() >= pauses
            adr = rng.choice((rng.randrange(8), rng.randrange(8), BEYOND + rng.randrange(4)))
            we, sel, dat_w = rng.random() < 0.5, rng.getrandbits(8), rng.getrandbits(64)
            ctx.set(bus.cyc, asks or bool(in_flight))
            ctx.set(bus.stb, asks)
            for port, value in ((bus.adr, adr), (bus.we, we), (bus.sel, sel), (bus.dat_w, dat_w)):
                ctx.set(port, value)
            sample = (bus.stall, bus.ack, bus.err, bus.dat_r)
            _, _, stall, ack, err, dat_r = await ctx.tick().sample(*sample)
            if ack or err:
                error, data = in_flight.popleft()
                assert (ack, err) == (not error, error)
                assert data is None or dat_r == data
            if asks and not stall:
                left -= 1
                asked.append(adr)
                if we:
                    model._write(adr, dat_w, sel)
                error = adr >= BEYOND
                in_flight.append((error, None if we or error else model.words.get(adr, 0)))

    async def memory(ctx: Any) -> None:
        await target.serve(ctx, dut)

    simulator.add_testbench(machine)
    simulator.add_testbench(memory, background=True)
    simulator.run()
    assert target.taken == asked
    assert target.words == model.words
    return target


@pytest.mark.parametrize(
    ("machine_mhz", "memory_mhz"),
    [(80, 400 / 3), (80, 80), (100, 400 / 3), (33, 140), (140, 33), (80, 79.9)],
)
@pytest.mark.parametrize(("stalls", "pauses"), [(0.0, 0.0), (0.7, 0.0), (0.1, 0.8)])
def test_answers_are_those_of_the_memory_in_order(
    machine_mhz: float, memory_mhz: float, stalls: float, pauses: float
) -> None:
    target = run(machine_mhz, memory_mhz, seed=7, stalls=stalls, pauses=pauses)
    assert len(target.taken) == COUNT


def test_the_way_across_takes_as_long_as_the_board_says() -> None:
    """Single reads of a memory that answers ten of its cycles later, as an open row does."""
    board = BOARDS["ulx3s"]
    latencies: list[int] = []
    for turn in range(20):
        dut = ClockCrossing(CONFIG)
        target = Target(random.Random(turn), 0.0, delays=(board.memory.first_cycles + 2,))
        simulator = Simulator(dut)
        simulator.add_clock(1 / board.clock_hz)
        period = 1 / board.memory_hz(board.clock_hz)
        simulator.add_clock(period, phase=turn / 20 * period, domain=MEMORY_DOMAIN)

        async def machine(ctx: Any, dut: ClockCrossing = dut) -> None:
            bus = dut.bus
            await ctx.tick().repeat(8)
            for _ in range(5):
                ctx.set(bus.cyc, 1)
                ctx.set(bus.stb, 1)
                for cycle in range(100):
                    _, _, stall, ack = await ctx.tick().sample(bus.stall, bus.ack)
                    assert not stall
                    ctx.set(bus.stb, 0)
                    if ack:
                        latencies.append(cycle)
                        break
                ctx.set(bus.cyc, 0)
                await ctx.tick().repeat(3)

        async def memory(ctx: Any, dut: ClockCrossing = dut, target: Target = target) -> None:
            await target.serve(ctx, dut)

        simulator.add_testbench(machine)
        simulator.add_testbench(memory, background=True)
        simulator.run()
    assert len(latencies) == 100
    mean = sum(latencies) / len(latencies)
    assert abs(mean - board.latency_cycles(CONFIG, board.clock_hz)) < 1


def test_requests_are_in_flight_together() -> None:
    target = run(80, 400 / 3, seed=1, stalls=0.0, pauses=0.0)
    assert target.most_waiting > 4


class CrossedSdram(Component):
    """The ULX3S's memory without its pins: crossing, and controller in the memory's domain."""

    def __init__(self, chip: SdramChip, clock_hz: float) -> None:
        self.controller = SdramController(CONFIG, chip=chip, clock_hz=clock_hz)
        super().__init__({"bus": In(initiator_signature(CONFIG))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crossing = crossing = ClockCrossing(CONFIG)
        m.submodules.controller = DomainRenamer(MEMORY_DOMAIN)(self.controller)
        connect(m, flipped(self.bus), crossing.bus)
        connect(m, crossing.mem, self.controller.bus)
        return m


def test_a_chip_behind_it_keeps_what_is_written() -> None:
    """Every command is checked at the clock that the board has; refreshes come in between."""
    board = BOARDS["ulx3s"]
    assert board.memory.sdram is not None
    chip, memory_hz = quick(board.memory.sdram), board.memory_hz(board.clock_hz)
    dut = CrossedSdram(chip, memory_hz)
    model = SdramModel(chip, memory_hz)
    rng = random.Random(3)
    row = chip.columns * 2 // CONFIG.bus_bytes
    places = [start + i for start in (0, row - 8, 4 * row - 3, 77 * row) for i in range(16)]
    contents: dict[int, int] = {}
    finished: list[bool] = []
    simulator = Simulator(dut)
    simulator.add_clock(1 / board.clock_hz)
    simulator.add_clock(1 / memory_hz, phase=0.3 / memory_hz, domain=MEMORY_DOMAIN)

    async def machine(ctx: Any) -> None:
        for turn in range(12):
            requests = [
                Request(adr, None if turn % 2 else rng.getrandbits(64))
                for adr in (places if turn < 6 else rng.choices(places, k=60))
            ]
            answers = await transfer(ctx, dut.bus, requests)
            for request, answer in zip(requests, answers, strict=True):
                assert not answer.err
                if request.data is None:
                    assert answer.data == contents[request.adr]
                else:
                    contents[request.adr] = request.data
        beyond = chip.memory_bytes // CONFIG.bus_bytes
        answers = await transfer(ctx, dut.bus, [Request(beyond), Request(places[0])])
        assert [answer.err for answer in answers] == [True, False]
        finished.append(True)

    simulator.add_testbench(machine)
    simulator.add_process(model.process(dut.controller.pins, MEMORY_DOMAIN))
    simulator.run_until(100e-6)
    assert model.counts["REFRESH"] > chip.timing.power_up_refreshes
    assert finished
    assert len(contents) == len(places)
