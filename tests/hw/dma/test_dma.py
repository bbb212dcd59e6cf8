"""Load and store engines, through the arbiter, against a memory model."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib.wiring import connect
from celosia.hw import parts
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Region, Space, Store
from celosia.hw.dma.load import LoadEngine
from celosia.hw.dma.single import TransferEngine
from celosia.hw.dma.store import StoreEngine
from celosia.hw.memory.lines import LineMemory

from tests.kit.bus_memory import WishboneMemory
from tests.kit.clocked import simulate
from tests.kit.configs import CONFIGS, make_config
from tests.kit.transfers import (
    ADDRESS_SPACE,
    BASE,
    SIZE,
    faulty_transfers,
    random_transfer,
    runs_of,
    space_bytes,
)

MEMORY_BYTES = 16 * 1024


@pytest.fixture(params=["bus4_line4", "bus4_line8", "bus8_line8", "bus16_line16", "compact"])
def config(request: pytest.FixtureRequest) -> NpuConfig:
    """As everywhere, and a machine with one engine for both."""
    compact = request.param == "compact"
    value: NpuConfig
    value = make_config(4, 8, compact=True) if compact else CONFIGS[request.param]
    return value


class OnChip:
    """The on-chip memories behind a write and a read port."""

    def __init__(self, config: NpuConfig, *, refuse: float, seed: int) -> None:
        rng = random.Random(seed)
        self.data = {
            space: bytearray(rng.randbytes(size)) for space, size in space_bytes(config).items()
        }
        self.refuse = refuse
        self.rng = rng
        self.line_bytes = config.line_bytes

    def writer(self, port: Any) -> Any:
        async def process(ctx: Any) -> None:
            held = None
            while True:
                ctx.set(port.gnt, self.rng.random() >= self.refuse)
                _, _, req, gnt, space, addr, data, mask = await ctx.tick().sample(
                    port.req, port.gnt, port.space, port.addr, port.data, port.mask
                )
                assert held is None or (req, space, addr, data, mask) == held
                held = (req, space, addr, data, mask) if req and not gnt else None
                if req and gnt:
                    self._write(space, addr, data, mask)

        return process

    def _write(self, space: int, addr: int, data: int, mask: int) -> None:
        for lane in range(self.line_bytes):
            if mask >> lane & 1:
                self.data[Space(space)][(addr + lane) % ADDRESS_SPACE] = data >> 8 * lane & 0xFF

    def reader(self, port: Any) -> Any:
        async def process(ctx: Any) -> None:
            coming: list[int | None] = [None] * 2
            memory = self.data[Space.ACT]
            while True:
                ctx.set(port.gnt, self.rng.random() >= self.refuse)
                _, _, req, gnt, addr = await ctx.tick().sample(port.req, port.gnt, port.addr)
                value = None
                if req and gnt:
                    window = bytes(memory[(addr + i) % len(memory)] for i in range(self.line_bytes))
                    value = int.from_bytes(window, "little")
                coming.append(value)
                now = coming.pop(0)
                garbage = self.rng.getrandbits(8 * self.line_bytes)
                ctx.set(port.data, garbage if now is None else now)

        return process


class Rig:
    """Both engines, or the one that does for both, on one arbiter."""

    def __init__(
        self,
        config: NpuConfig,
        *,
        seed: int = 0,
        refuse: float = 0.0,
        **memory: Any,
    ) -> None:
        m = Module()
        self.reset = Signal()
        self.module = ResetInserter(self.reset)(m)
        transfers = parts.transfers(config)
        self.load, self.store = transfers.load, transfers.store
        self.done, self.busy = transfers.done, transfers.busy
        self.load_fault, self.store_fault = transfers.faults
        m.submodules += transfers.engines
        m.submodules.arbiter = self.arbiter = parts.bus_arbiter(config, ports=len(transfers.mems))
        for place, port in enumerate(transfers.mems):
            connect(m, port, self.arbiter.ports[place])
        for engine in transfers.engines:
            m.d.comb += [
                engine.regions[Region.IO].base.eq(BASE),
                engine.regions[Region.IO].size.eq(SIZE),
            ]
        self.memory = WishboneMemory(self.arbiter.bus, size=MEMORY_BYTES, seed=seed, **memory)
        self.chip = OnChip(config, refuse=refuse, seed=seed)
        self.processes = [
            self.memory.process,
            self.chip.writer(transfers.write),
            self.chip.reader(transfers.read),
        ]

    def simulate(self, bench: Any, **options: Any) -> int:
        cycles: int = simulate(self.module, bench, processes=self.processes, **options)
        return cycles


async def execute(ctx: Any, rig: Rig, *commands: Load | Store) -> int:
    """Run commands of one kind, one after another; return the cycles until the last is done."""
    port = rig.load if isinstance(commands[0], Load) else rig.store
    cycles = taken = done = 0
    while done < len(commands):
        if taken < len(commands):
            ctx.set(port.payload, int.from_bytes(commands[taken].encode(), "little"))
        ctx.set(port.valid, taken < len(commands))
        _, _, ready, loaded = await ctx.tick().sample(port.ready, rig.done)
        cycles += 1
        taken += ready
        done += loaded if port is rig.load else ready
        assert done <= taken
    ctx.set(port.valid, 0)
    return cycles


@pytest.mark.parametrize("seed", range(3))
def test_load_moves_every_byte(config: NpuConfig, seed: int) -> None:
    rng = random.Random(seed)
    stall, delay, refuse = ((0, 0, 0), (0.3, 0.3, 0.3), (0.05, 0.5, 0.6))[seed]
    rig = Rig(config, seed=seed, stall=stall, delay=delay, refuse=refuse, latency=1 + 4 * seed)
    expected = {space: bytearray(data) for space, data in rig.chip.data.items()}

    async def bench(ctx: Any) -> None:
        for _ in range(4):
            command = random_transfer(rng, config, Load)
            await execute(ctx, rig, command)
            for offset, place in runs_of(command):
                run = rig.memory.data[BASE + offset : BASE + offset + command.row_bytes]
                expected[Space(command.space)][place : place + command.row_bytes] = run
            assert rig.chip.data == expected, command
            for _ in range(rng.randrange(3)):
                await ctx.tick()

    rig.simulate(bench)


@pytest.mark.parametrize("seed", range(3))
def test_store_moves_every_byte(config: NpuConfig, seed: int) -> None:
    rng = random.Random(seed)
    stall, delay, refuse = ((0, 0, 0), (0.3, 0.3, 0.3), (0.05, 0.5, 0.6))[seed]
    rig = Rig(config, seed=seed, stall=stall, delay=delay, refuse=refuse, latency=1 + 4 * seed)
    expected = bytearray(rig.memory.data)

    async def bench(ctx: Any) -> None:
        for _ in range(4):
            command = random_transfer(rng, config, Store)
            await execute(ctx, rig, command)
            for offset, place in runs_of(command):
                run = rig.chip.data[Space.ACT][place : place + command.row_bytes]
                expected[BASE + offset : BASE + offset + command.row_bytes] = run
            assert rig.memory.data == expected, command

    rig.simulate(bench)


@pytest.mark.parametrize("seed", range(3))
def test_loads_follow_one_another(config: NpuConfig, seed: int) -> None:
    """Words of several loads are under way; each is written where it should, in order."""
    rng = random.Random(10 + seed)
    stall, delay, refuse = ((0, 0, 0), (0.3, 0.3, 0.3), (0.05, 0.5, 0.6))[seed]
    rig = Rig(config, seed=seed, stall=stall, delay=delay, refuse=refuse, latency=1 + 8 * seed)
    commands = [random_transfer(rng, config, Load) for _ in range(8)]
    expected = {space: bytearray(data) for space, data in rig.chip.data.items()}
    for command in commands:
        for offset, place in runs_of(command):
            run = rig.memory.data[BASE + offset : BASE + offset + command.row_bytes]
            expected[Space(command.space)][place : place + command.row_bytes] = run

    async def bench(ctx: Any) -> None:
        await execute(ctx, rig, *commands)
        assert rig.chip.data == expected
        await ctx.tick()
        assert not ctx.get(rig.busy)

    rig.simulate(bench)


@pytest.mark.parametrize(("runs", "gap"), [(1, 0), (8, 6)])
def test_short_loads_leave_the_bus_no_rest(config: NpuConfig, runs: int, gap: int) -> None:
    """Loads of few words follow one another; of several runs the next is looked at by the last."""
    words = 16
    command = Load(
        region=Region.IO, row_bytes=words * config.bus_bytes // runs, n1=runs,
        mem_stride1=words * config.bus_bytes // runs, sram_stride1=words * config.bus_bytes // runs,
    )  # fmt: skip
    rig = Rig(config, latency=8)

    async def bench(ctx: Any) -> None:
        await execute(ctx, rig, *[command] * 6)

    rig.simulate(bench)
    spent = rig.memory.cycles[-1] - rig.memory.cycles[0] + 1
    assert len(rig.memory.requests) == 6 * words
    assert spent <= 6 * words + 5 * gap, f"{spent} cycles for {6 * words} words"


PARTS_OF_TRANSFERS = ["SINGLE_TRANSFERS", "SINGLE_BUFFERS", "PLAIN_STAGES"]


@pytest.mark.parametrize("name", PARTS_OF_TRANSFERS)
def test_a_part_alone_moves_the_same_bytes(name: str) -> None:
    config = make_config(4, 8, compact=(name,))
    test_load_moves_every_byte(config, 1)
    test_store_moves_every_byte(config, 1)
    test_loads_follow_one_another(config, 1)


def test_load_and_store_together(config: NpuConfig) -> None:
    if config.compact:
        pytest.skip("one engine does both, one after the other")
    rig = Rig(config, seed=5, stall=0.1, delay=0.1, refuse=0.1)
    half = SIZE // 2
    load = Load(region=Region.IO, mem_addr=3, sram_addr=5, row_bytes=601, n1=3, mem_stride1=700,
                sram_stride1=650)  # fmt: skip
    store = Store(region=Region.IO, mem_addr=half + 1, sram_addr=4099, row_bytes=601, n1=3,
                  mem_stride1=650, sram_stride1=700)  # fmt: skip
    before = bytes(rig.chip.data[Space.ACT])

    async def bench(ctx: Any) -> None:
        open_engines: list[Any] = [rig.load, rig.store]
        for engine, command in zip(open_engines, (load, store), strict=True):
            ctx.set(engine.payload, int.from_bytes(command.encode(), "little"))
            ctx.set(engine.valid, 1)
        loaded = False
        while open_engines or not loaded:
            _, _, done, *ready = await ctx.tick().sample(rig.done, *(e.ready for e in open_engines))
            loaded |= bool(done)
            for engine, is_ready in zip(tuple(open_engines), ready, strict=True):
                if is_ready:
                    ctx.set(engine.valid, 0)
                    open_engines.remove(engine)
        for run in range(3):
            d, s = BASE + 3 + 700 * run, 5 + 650 * run
            assert rig.chip.data[Space.ACT][s : s + 601] == rig.memory.data[d : d + 601]
            d, s = BASE + half + 1 + 650 * run, 4099 + 700 * run
            assert rig.memory.data[d : d + 601] == before[s : s + 601]

    rig.simulate(bench)
    kinds = [we for we, _, _ in rig.memory.requests]
    assert True in kinds[: len(kinds) // 4]
    assert False in kinds[: len(kinds) // 4]


@pytest.mark.parametrize("kind", [Load, Store])
@pytest.mark.parametrize("rows", [1, 64])
def test_one_word_a_cycle(config: NpuConfig, kind: Any, rows: int) -> None:
    words = 512
    row_bytes = config.bus_bytes * words // rows
    stride = row_bytes if rows == 1 else row_bytes * 2 % (SIZE - row_bytes)
    command = kind(
        region=Region.IO,
        row_bytes=min(row_bytes, 512 * config.bus_bytes),
        n1=rows,
        mem_stride1=min(stride, (SIZE - row_bytes) // max(1, rows - 1)) // 16 * 16,
        sram_stride1=0,
    )
    rig = Rig(config, latency=8)
    taken = []

    async def bench(ctx: Any) -> None:
        taken.append(await execute(ctx, rig, command))

    rig.simulate(bench)
    assert len(rig.memory.requests) == words
    assert taken[0] <= words + 32, f"{taken[0]} cycles for {words} words"
    # Between the first and the last request the bus never rests.
    assert rig.memory.cycles[-1] - rig.memory.cycles[0] == words - 1
    assert rig.memory.max_in_flight <= config.max_outstanding


def test_runs_of_one_word_follow_without_a_gap() -> None:
    config = make_config(8, 8)
    command = Load(region=Region.IO, row_bytes=5, mem_addr=1, n1=10, n2=10, mem_stride1=24,
                   mem_stride2=320, sram_stride1=5, sram_stride2=50)  # fmt: skip
    rig = Rig(config, latency=8)

    async def bench(ctx: Any) -> None:
        await execute(ctx, rig, command)

    rig.simulate(bench)
    assert rig.memory.cycles[-1] - rig.memory.cycles[0] == 99


def test_faults_stop_the_engine_until_it_is_reset(config: NpuConfig) -> None:
    rig = Rig(config, latency=2)
    good = Load(region=Region.IO, mem_addr=1, sram_addr=2, row_bytes=200)

    async def reset(ctx: Any) -> None:
        ctx.set(rig.reset, 1)
        await ctx.tick()
        ctx.set(rig.reset, 0)

    async def bench(ctx: Any) -> None:
        for name, command, cause, address in faulty_transfers(config):
            rig.memory.requests.clear()
            engine: Any = rig.load if isinstance(command, Load) else rig.store
            fault = rig.load_fault if isinstance(command, Load) else rig.store_fault
            seen: list[tuple[int, ...]] = []
            ctx.set(engine.payload, int.from_bytes(command.encode(), "little"))
            ctx.set(engine.valid, 1)
            for _ in range(30):
                _, _, ready, valid, *report = await ctx.tick().sample(
                    engine.ready, fault.valid, fault.cause, fault.address
                )
                assert not ready
                if valid and not seen:
                    seen.append(tuple(report))
            ctx.set(engine.valid, 0)
            assert seen == [(cause, address)], name
            for _, word, _ in rig.memory.requests:
                assert BASE <= word * config.bus_bytes < BASE + SIZE, name
            await reset(ctx)
        # A reset with requests in flight, then business as usual.
        ctx.set(rig.load.payload, int.from_bytes(good.encode(), "little"))
        ctx.set(rig.load.valid, 1)
        await ctx.tick().repeat(18)
        assert ctx.get(rig.arbiter.bus.cyc)
        ctx.set(rig.load.valid, 0)
        await reset(ctx)
        rig.chip.data[Space.ACT][:] = bytes(config.act_bytes)
        await execute(ctx, rig, good)
        moved = rig.memory.data[BASE + 1 : BASE + 201]
        assert rig.chip.data[Space.ACT][:210] == bytes(2) + moved + bytes(8)

    rig.simulate(bench)


def test_a_fault_comes_when_the_loads_before_it_are_done(config: NpuConfig) -> None:
    """What is wrong with a command is told in the program's order, whatever is under way."""
    good = Load(region=Region.IO, row_bytes=400)
    for name, command, cause, address in faulty_transfers(config):
        if not isinstance(command, Load):
            continue
        rig = Rig(config, latency=12, refuse=0.3)
        seen: list[tuple[int, ...]] = []

        async def bench(
            ctx: Any, rig: Rig = rig, seen: list[tuple[int, ...]] = seen, command: Load = command
        ) -> None:
            left, done = [good, command], 0
            for _ in range(700):
                ctx.set(rig.load.payload, int.from_bytes(left[0].encode(), "little"))
                ctx.set(rig.load.valid, 1)
                _, _, ready, loaded, valid, *report = await ctx.tick().sample(
                    rig.load.ready,
                    rig.done,
                    rig.load_fault.valid,
                    rig.load_fault.cause,
                    rig.load_fault.address,
                )
                left = left[ready:]
                if valid and not seen:
                    assert done
                    seen.append(tuple(report))
                done += loaded

        rig.simulate(bench)
        assert seen == [(cause, address)], name


def test_line_memory_keeps_what_was_written(config: NpuConfig) -> None:
    rng = random.Random(3)
    dut = LineMemory(config, lines=32, reader="vector")
    expected = bytearray(32 * config.line_bytes)

    async def bench(ctx: Any) -> None:
        coming: list[int | None] = [None]
        late: dict[int, int] = {}  # bytes written a cycle ago: not to be read yet
        checked = 0
        for cycle in range(400):
            addr = rng.randrange(len(expected)) // config.bus_bytes * config.bus_bytes
            word = rng.randbytes(config.bus_bytes)
            mask = rng.choice((-1, rng.getrandbits(config.bus_bytes))) % (1 << config.bus_bytes)
            ctx.set(dut.write.req, cycle % 3 != 0)
            ctx.set(dut.write.addr, addr)
            ctx.set(dut.write.data, int.from_bytes(word, "little"))
            ctx.set(dut.write.mask, mask)
            line = rng.randrange(32)
            ctx.set(dut.read.line, line)
            ctx.set(dut.read.req, 1)
            place = line * config.line_bytes
            whole = range(place, place + config.line_bytes)
            unsure = any(at in late for at in whole)
            coming.append(
                None if unsure else int.from_bytes(expected[place : whole.stop], "little")
            )
            _, _, gnt, data = await ctx.tick().sample(dut.read.gnt, dut.read.data)
            assert gnt
            if len(coming) > 2:
                due = coming.pop(0)
                assert due is None or data == due or cycle < 3
                checked += due is not None
            for at, value in late.items():
                expected[at] = value
            late = {}
            if cycle % 3 != 0:
                for lane in range(config.bus_bytes):
                    if mask >> lane & 1:
                        late[addr + lane] = word[lane]
        assert checked > 300

    simulate(dut, bench)


@pytest.mark.parametrize("part", [LoadEngine, StoreEngine, TransferEngine])
def test_verilog_export(part: Any) -> None:
    assert "module top" in verilog.convert(part(make_config(4, 8)))


def test_line_memory_is_a_memory() -> None:
    config = make_config(4, 8)
    text = verilog.convert(LineMemory(config, lines=config.wgt_lines, reader="vector"))
    assert f"reg [{8 * config.line_bytes - 1}:0] memory [{config.wgt_lines - 1}:0]" in text
