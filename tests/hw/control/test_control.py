"""Fetch, dispatcher, queues, tokens and the register shell."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib.wiring import connect
from celosia.hw.bus.arbiter import BusArbiter
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    COMMAND_BITS,
    COMMANDS,
    MAX_LOADS,
    Command,
    Conv,
    End,
    Engine,
    Load,
    Region,
    Softmax,
    Store,
    Vector,
    fields_of,
)
from celosia.hw.contract.parts import Part
from celosia.hw.contract.regs import (
    COUNTERS,
    IDENTITY,
    VERSION,
    ErrorCause,
    address_of,
    capability_words,
)
from celosia.hw.control.control import EVENTS, Control
from celosia.hw.control.decode import command_layout
from celosia.hw.control.frontend import FrontEnd
from celosia.hw.control.queue import WORD_BITS, CommandQueue, DirectCommandQueue, used_bits
from celosia.hw.control.shared_queue import TRANSFERS, SharedQueues
from celosia.hw.control.tokens import SingleTransferGates, TokenGates
from celosia.hw.fabric.ports import Unit

from tests.kit.bus_memory import WishboneMemory
from tests.kit.clocked import simulate
from tests.kit.configs import make_config

BASE = 256
KINDS: dict[Engine, tuple[type[Command], ...]] = {
    Engine.LOAD: (Load,),
    Engine.STORE: (Store,),
    Engine.ARRAY: (Conv,),
    Engine.VECTOR: (Vector, Softmax),
}


def random_command(rng: random.Random, kind: type[Command], **fixed: int) -> Command:
    """Return a command with random legal fields and no tokens."""
    values: dict[str, int] = {"wait": 0, "signal": 0}
    for spec in fields_of(kind):
        if spec.name not in {"opcode", "wait", "signal"}:
            high = max(spec.enum) if spec.enum else spec.maximum
            values[spec.name] = rng.randint(spec.minimum, high)
    return kind(**(values | fixed))


def as_int(command: Command) -> int:
    """Return the payload of a command."""
    return int.from_bytes(command.encode(), "little")


def test_layouts_are_the_schema() -> None:
    for kind in COMMANDS.values():
        layout = command_layout(kind)
        assert layout.size == COMMAND_BITS
        for spec in fields_of(kind):
            assert layout[spec.name].offset == spec.offset_bits
            assert layout[spec.name].shape.signed == spec.signed


# Queue


@pytest.mark.parametrize("kind", [CommandQueue, DirectCommandQueue])
@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize(("send", "pause"), [(1.0, 0), (0.5, 40), (1.0, 40)])
def test_queue_keeps_commands_and_order(
    engine: Engine, send: float, pause: int, kind: type[CommandQueue]
) -> None:
    rng = random.Random(engine)
    config = make_config(4, 8, queue_depth=2)
    dut = kind(config, engine=engine)
    commands = [as_int(random_command(rng, rng.choice(KINDS[engine]))) for _ in range(12)]
    received: list[int] = []

    async def feed(ctx: Any) -> None:
        words = [command >> 64 * k & (1 << 64) - 1 for command in commands for k in range(8)]
        for word in words:
            while rng.random() >= send:
                ctx.set(dut.i.valid, 0)
                await ctx.tick()
            ctx.set(dut.i.payload, word)
            ctx.set(dut.i.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    async def bench(ctx: Any) -> None:
        assert ctx.get(dut.empty)
        gaps = []
        while len(received) < len(commands):
            waited = 0
            while not ctx.get(dut.o.valid):
                assert not received or not ctx.get(dut.empty) or send < 1 or not pause
                await ctx.tick()
                waited += 1
            gaps.append(waited)
            assert not ctx.get(dut.empty)
            header = ctx.get(dut.o.payload) & (1 << 64) - 1
            await ctx.tick()  # the gate looks at the first word
            first = ctx.get(dut.o.payload)
            assert first & (1 << 64) - 1 == header
            for _ in range(rng.randint(0, pause)):
                await ctx.tick()
                assert ctx.get(dut.o.payload) == first
                assert ctx.get(dut.o.valid)
            ctx.set(dut.o.ready, 1)
            await ctx.tick()
            ctx.set(dut.o.ready, 0)
            received.append(first)
        await ctx.tick()
        await ctx.tick()
        assert ctx.get(dut.empty)
        if pause == 40 and send == 1.0:
            # A command that was ready follows at once, or as soon as it is put together.
            words = -(-used_bits(engine) // WORD_BITS)
            assert min(gaps[1:]) == (words + 1 if kind is DirectCommandQueue else 0)

    simulate(dut, bench, processes=[feed], limit_cycles=5000)
    assert received == commands


@pytest.mark.parametrize(("kind", "beside"), [(CommandQueue, 2), (DirectCommandQueue, 1)])
def test_queue_blocks_when_full(kind: type[CommandQueue], beside: int) -> None:
    config = make_config(4, 8, queue_depth=2)
    dut = kind(config, engine=Engine.VECTOR)
    taken = 0

    async def bench(ctx: Any) -> None:
        nonlocal taken
        ctx.set(dut.i.valid, 1)
        for _ in range(100):
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            taken += ready

    simulate(dut, bench)
    # Two in memory, and one shown; one being put together, if that is elsewhere.
    assert taken == 8 * (dut.depth + beside)


@pytest.mark.parametrize(("send", "pause"), [(1.0, 0), (0.5, 40), (1.0, 40)])
def test_shared_queues_keep_commands_and_order(send: float, pause: int) -> None:
    rng = random.Random(pause)
    config = make_config(4, 8, queue_depth=2, compact=True)
    dut = SharedQueues(config)
    order = [rng.choice(list(Engine)) for _ in range(40)]
    commands = [as_int(random_command(rng, rng.choice(KINDS[engine]))) for engine in order]
    wanted = {e: [c for c, o in zip(commands, order, strict=True) if o is e] for e in Engine}
    received: dict[Engine, list[int]] = {engine: [] for engine in Engine}
    transferring: list[Engine] = []

    async def begin_transfer(ctx: Any, engine: Engine, header: int) -> int:
        """Let a load or store begin, alone; return its command."""
        while transferring:
            _, _, shown = await ctx.tick().sample(dut.o[engine].payload)
            assert shown & 0xFFFF_FFFF == header
        transferring.append(engine)
        ctx.set(dut.begun, 1 << engine)
        whole = 0
        while not whole >> engine & 1:
            _, _, valid, whole, command = await ctx.tick().sample(
                dut.o[engine].valid, dut.whole, dut.o[engine].payload
            )
            assert valid
            assert command & 0xFFFF_FFFF == header
        return int(command)

    async def feed(ctx: Any) -> None:
        for engine, command in zip(order, commands, strict=True):
            port = dut.i[engine]
            for k in range(8):
                while rng.random() >= send:
                    ctx.set(port.valid, 0)
                    await ctx.tick()
                # The dispatcher shows a word to all of them, and means one.
                for other in dut.i:
                    ctx.set(other.payload, command >> 64 * k & (1 << 64) - 1)
                ctx.set(port.valid, 1)
                ready = False
                while not ready:
                    _, _, ready = await ctx.tick().sample(port.ready)
            ctx.set(port.valid, 0)

    async def take(ctx: Any, engine: Engine) -> None:
        port = dut.o[engine]
        local = random.Random(engine)
        while len(received[engine]) < len(wanted[engine]):
            valid, command = 0, 0
            while not valid:
                _, _, valid, command, empty = await ctx.tick().sample(
                    port.valid, port.payload, dut.empty
                )
            assert not empty >> engine & 1
            if engine in TRANSFERS:
                command = await begin_transfer(ctx, engine, command & 0xFFFF_FFFF)
            for _ in range(local.randint(1, pause + 1)):
                _, _, still, shown = await ctx.tick().sample(port.valid, port.payload)
                assert still
                assert shown == command
            ctx.set(port.ready, 1)
            await ctx.tick()
            ctx.set(port.ready, 0)
            if engine in TRANSFERS:
                transferring.remove(engine)
                ctx.set(dut.begun, 0)
            received[engine].append(command)

    async def bench(ctx: Any) -> None:
        assert ctx.get(dut.empty) == (1 << len(Engine)) - 1
        while any(len(received[e]) < len(wanted[e]) for e in Engine):
            await ctx.tick()
        for _ in range(2):
            await ctx.tick()
        assert ctx.get(dut.empty) == (1 << len(Engine)) - 1
        assert not ctx.get(dut.active)

    def taker(engine: Engine) -> Any:
        async def process(ctx: Any) -> None:
            await take(ctx, engine)

        return process

    simulate(dut, bench, processes=[feed, *map(taker, Engine)], limit_cycles=20_000)
    assert received == wanted


@pytest.mark.parametrize(("engine", "shown"), [(Engine.VECTOR, 1), (Engine.LOAD, 0)])
def test_shared_queues_block_when_full(engine: Engine, shown: int) -> None:
    dut = SharedQueues(make_config(4, 8, queue_depth=2, compact=True))
    taken = 0

    async def bench(ctx: Any) -> None:
        nonlocal taken
        ctx.set(dut.i[engine].valid, 1)
        for _ in range(200):
            _, _, ready = await ctx.tick().sample(dut.i[engine].ready)
            taken += ready
        assert ctx.get(dut.o[engine].valid)

    simulate(dut, bench)
    # Those in memory and the one that is shown; a load that has not begun is in memory, too.
    assert taken == 8 * (dut.depth + shown)


# Tokens


@pytest.mark.parametrize("one_transfer", [False, True])
def test_tokens_against_a_model(one_transfer: bool) -> None:
    """Random programs: every command starts when, and only when, its tokens are there.

    An engine is done with a command when it takes it, load engine and array some time later.
    """
    rng = random.Random(11)
    dut = SingleTransferGates() if one_transfer else TokenGates()
    counters = {(a, b): 0 for a in Engine for b in Engine}
    programs: dict[Engine, deque[tuple[int, int]]] = {engine: deque() for engine in Engine}
    # A token is waited for only after the command that gives it is in an earlier place, so that
    # the random program cannot lock up.
    owed = {(a, b): 0 for a in Engine for b in Engine}
    for _ in range(120):
        engine = rng.choice(list(Engine))
        wait = signal = 0
        for other in Engine:
            if other is not engine:
                if owed[other, engine] and rng.random() < 0.6:
                    owed[other, engine] -= 1
                    wait |= 1 << other
                if rng.random() < 0.4:
                    owed[engine, other] += 1
                    signal |= 1 << other
        programs[engine].append((wait, signal))
    total = sum(len(program) for program in programs.values())
    started = completed = 0

    async def bench(ctx: Any) -> None:
        nonlocal started, completed
        running = dict.fromkeys(Engine, False)
        shown: dict[Engine, tuple[int, int] | None] = dict.fromkeys(Engine, None)
        # Loads that have begun, and how many of them were taken.
        loads: deque[int] = deque()
        taken = most = 0
        convs: deque[int] = deque()  # taken, and not done
        while completed < total:
            for engine in Engine:
                if shown[engine] is None and programs[engine] and rng.random() < 0.7:
                    shown[engine] = programs[engine].popleft()
                head = shown[engine]
                if head is not None:
                    command = next(iter(KINDS[engine]))(wait=head[0], signal=head[1], tag=engine)
                    ctx.set(dut.i[engine].payload, as_int(command))
                ctx.set(dut.i[engine].valid, head is not None)
                ready = running[engine] and rng.random() < 0.4
                ctx.set(dut.o[engine].ready, ready and not (engine is Engine.ARRAY and convs))
            loaded = taken > 0 and rng.random() < 0.08
            streamed = bool(convs) and rng.random() < 0.2
            ctx.set(dut.loaded, loaded)
            ctx.set(dut.streamed, streamed)
            assert bool(ctx.get(dut.under_way)) == bool(loads or convs)
            valid = [ctx.get(port.valid) for port in dut.o]
            ready = [ctx.get(port.ready) for port in dut.i]
            waiting, busy = ctx.get(dut.wait_token), ctx.get(dut.busy)
            before = dict(counters)
            transfers = [Engine.LOAD] if loads else []  # or begin now
            transfers += [Engine.STORE] if running[Engine.STORE] else []
            room = len(loads) < MAX_LOADS
            most = max(most, len(loads))
            for engine in Engine:
                head = shown[engine]
                assert bool(valid[engine]) == running[engine]
                works = len(loads) > 0 if engine is Engine.LOAD else running[engine]
                works |= engine is Engine.ARRAY and len(convs) > 0
                assert bool(busy >> engine & 1) == works
                given = 0
                if engine is Engine.LOAD and loaded:
                    taken -= 1
                    completed += 1
                    given = loads.popleft()
                elif engine is Engine.ARRAY and streamed:
                    completed += 1
                    given = convs.popleft()
                for other in Engine:
                    counters[engine, other] += given >> other & 1
                if head is None:
                    continue
                if running[engine]:
                    if ready[engine]:
                        assert ctx.get(dut.o[engine].ready)
                        running[engine] = False
                        shown[engine] = None
                        if engine is Engine.LOAD:
                            taken += 1
                            continue
                        if engine is Engine.ARRAY:
                            convs.append(head[1])
                            continue
                        completed += 1
                        for other in Engine:
                            counters[engine, other] += head[1] >> other & 1
                    continue
                takes = [other for other in Engine if head[0] >> other & 1]
                present = all(before[other, engine] for other in takes)
                assert bool(waiting >> engine & 1) == (not present and not works)
                other_transfer = one_transfer and any(one is not engine for one in transfers)
                if one_transfer and engine is Engine.LOAD:
                    # A store that has its tokens goes first.
                    store = shown[Engine.STORE]
                    other_transfer |= store is not None and all(
                        before[other, Engine.STORE] for other in Engine if store[0] >> other & 1
                    )
                if engine is Engine.LOAD and not room:
                    continue
                if present and not (engine in TRANSFERS and other_transfer):
                    transfers.append(engine)
                    if engine is Engine.LOAD:
                        loads.append(head[1])
                    running[engine] = True
                    started += 1
                    for other in takes:
                        counters[other, engine] -= 1
            assert not ctx.get(dut.overflow)
            await ctx.tick()
        assert most == MAX_LOADS

    simulate(dut, bench, limit_cycles=5000)
    assert started == completed == total


def test_token_overflow() -> None:
    dut = TokenGates()
    given = 0

    async def bench(ctx: Any) -> None:
        nonlocal given
        source, sink = dut.i[Engine.LOAD], dut.o[Engine.LOAD]
        ctx.set(source.payload, as_int(Load(signal=1 << Engine.ARRAY, tag=77)))
        ctx.set(source.valid, 1)
        ctx.set(sink.ready, 1)
        taken = 0
        for _ in range(1200):
            loaded = taken > given
            ctx.set(dut.loaded, loaded)
            _, _, ready, overflow, tag = await ctx.tick().sample(
                source.ready, dut.overflow, dut.tags[Engine.LOAD]
            )
            if overflow:
                assert overflow == 1 << Engine.LOAD
                assert tag == 77
                return
            taken += ready
            given += loaded
        raise AssertionError("no overflow")

    simulate(dut, bench)
    assert given == 255


# Fetch, dispatcher, queues and gates

AHEAD = {Engine.LOAD: "loaded", Engine.ARRAY: "streamed"}
"""Engines that take the next command before they are done with one; who says that they are."""


class Rig:
    """The front end on the arbiter, with a program in memory."""

    def __init__(self, config: NpuConfig, program: bytes, **memory: Any) -> None:
        m = Module()
        self.reset = Signal()
        self.module = ResetInserter(self.reset)(m)
        m.submodules.front = self.front = FrontEnd(config)
        m.submodules.arbiter = self.arbiter = BusArbiter(config, ports=1)
        connect(m, self.front.mem, self.arbiter.ports[0])
        m.d.comb += [
            self.front.regions[Region.CODE].base.eq(BASE),
            self.front.regions[Region.CODE].size.eq(len(program)),
        ]
        self.memory = WishboneMemory(self.arbiter.bus, size=BASE + len(program), **memory)
        self.memory.data[BASE:] = program
        self.received: dict[Engine, list[int]] = {engine: [] for engine in Engine}
        self.order: list[Engine] = []
        self.taken = dict.fromkeys(AHEAD, 0)
        self.rng = random.Random(9)

    def engine(self, engine: Engine, longest: int) -> Any:
        """Return a process that takes an engine's commands, in up to `longest` cycles each."""
        port = self.front.commands[engine]

        async def process(ctx: Any) -> None:
            while True:
                _, _, valid, payload = await ctx.tick().sample(port.valid, port.payload)
                if not valid:
                    continue
                while engine is Engine.ARRAY and self.taken[engine]:
                    await ctx.tick()
                for _ in range(self.rng.randint(0, longest)):
                    _, _, valid, again = await ctx.tick().sample(port.valid, port.payload)
                    assert valid
                    assert again == payload
                ctx.set(port.ready, 1)
                await ctx.tick()
                ctx.set(port.ready, 0)
                self.received[engine].append(payload)
                if engine in AHEAD:
                    self.taken[engine] += 1
                else:
                    self.order.append(engine)

        return process

    def ends(self, engine: Engine, longest: int) -> Any:
        """Return a process that is done with commands some time after they were taken."""
        done = getattr(self.front, AHEAD[engine])

        async def process(ctx: Any) -> None:
            while True:
                for _ in range(1 + self.rng.randint(0, longest)):
                    await ctx.tick()
                if self.taken[engine]:
                    ctx.set(done, 1)
                    await ctx.tick()
                    ctx.set(done, 0)
                    self.taken[engine] -= 1
                    self.order.append(engine)

        return process

    def simulate(self, bench: Any, *, longest: int = 30, **options: Any) -> int:
        engines = [self.engine(engine, longest) for engine in Engine]
        engines += [self.ends(engine, longest) for engine in AHEAD]
        cycles: int = simulate(
            self.module, bench, processes=[self.memory.process, *engines], **options
        )
        return cycles

    async def start(self, ctx: Any) -> None:
        ctx.set(self.front.start, 1)
        await ctx.tick()
        ctx.set(self.front.start, 0)


def encode(commands: list[Command]) -> bytes:
    """Return the bytes of a program."""
    return b"".join(command.encode() for command in commands)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_commands_reach_their_engines(config: NpuConfig, stall: float) -> None:
    rng = random.Random(5)
    kinds = [kind for kind in COMMANDS.values() if kind is not End]
    commands = [random_command(rng, rng.choice(kinds), tag=k) for k in range(30)]
    # Behind the End is something illegal: it may be fetched, but not looked at.
    program = encode([*commands, End(tag=30)]) + b"\xff" * 256
    rig = Rig(config, program, stall=stall, delay=stall)

    async def bench(ctx: Any) -> None:
        for turn in range(2):
            for received in rig.received.values():
                received.clear()
            await rig.start(ctx)
            done = False
            while not done:
                _, _, done, fault, active = await ctx.tick().sample(
                    rig.front.done, rig.front.fault.valid, rig.front.active
                )
                assert not fault
            assert not active
            for engine, received in rig.received.items():
                expected = [as_int(c) for c in commands if c.engine is engine]
                assert received == expected, (turn, engine)
            for _ in range(20):
                _, _, fault, cyc = await ctx.tick().sample(
                    rig.front.fault.valid, rig.arbiter.bus.cyc
                )
                assert not fault
                assert not cyc

    rig.simulate(bench, limit_cycles=20_000)
    check_requests(rig.memory.requests, config, len(commands))


def check_requests(requests: list[Any], config: NpuConfig, commands: int) -> None:
    """Reads only, in order, at most one command beyond the End and what follows it."""
    words = 64 // config.bus_bytes
    first = BASE // config.bus_bytes
    addresses = [adr for we, adr, _ in requests if not we]
    assert len(addresses) == len(requests)
    turn = addresses[: len(addresses) // 2]
    assert turn == list(range(first, first + len(turn)))
    assert (commands + 1) * words <= len(turn) <= (commands + 3) * words


def test_tokens_order_engines() -> None:
    config = make_config(8, 8)
    to = {engine: 1 << engine for engine in Engine}
    program = encode(
        [
            Store(wait=to[Engine.VECTOR]),
            Vector(wait=to[Engine.ARRAY] | to[Engine.LOAD], signal=to[Engine.STORE]),
            Conv(wait=to[Engine.LOAD], signal=to[Engine.VECTOR]),
            Load(signal=to[Engine.ARRAY] | to[Engine.VECTOR]),
            End(),
        ]
    )
    rig = Rig(config, program)

    async def bench(ctx: Any) -> None:
        await rig.start(ctx)
        await ctx.tick().until(rig.front.done)

    rig.simulate(bench, longest=5, limit_cycles=1000)
    assert rig.order == [Engine.LOAD, Engine.ARRAY, Engine.VECTOR, Engine.STORE]


def corrupt(command: Command, bit: int) -> bytes:
    """Return a command with one more bit set."""
    return (as_int(command) | 1 << bit).to_bytes(64, "little")


def illegal() -> list[tuple[str, bytes, ErrorCause]]:
    """Return commands that the dispatcher refuses."""
    cases = [
        ("opcode 0", bytes(64), ErrorCause.ILLEGAL_OPCODE),
        ("opcode 0x42", bytes([0x42]) + bytes(63), ErrorCause.ILLEGAL_OPCODE),
        ("end waits", End(wait=1).encode(), ErrorCause.ILLEGAL_FIELD),
    ]
    for kind in COMMANDS.values():
        used = sum(spec.width_bits for spec in fields_of(kind))
        for bit in (used, COMMAND_BITS - 1):
            cases.append(
                (f"{kind.__name__} bit {bit}", corrupt(kind(), bit), ErrorCause.ILLEGAL_FIELD)
            )
        if kind is not End:
            own = 1 << (kind.OPCODE >> 4) - 1
            cases.append((f"{kind.__name__} waits", kind(wait=own).encode(),
                          ErrorCause.ILLEGAL_FIELD))  # fmt: skip
            cases.append((f"{kind.__name__} signals", kind(signal=own).encode(),
                          ErrorCause.ILLEGAL_FIELD))  # fmt: skip
    return cases


def test_illegal_commands_are_refused() -> None:
    rig = Rig(make_config(8, 8), bytes(3 * 64), latency=1)
    front = rig.front

    async def bench(ctx: Any) -> None:
        for name, command, cause in illegal():
            marked = command[:2] + (1234).to_bytes(2, "little") + command[4:]
            rig.memory.data[BASE:] = encode([Load(tag=1)]) + marked + encode([End()])
            for received in rig.received.values():
                received.clear()
            await rig.start(ctx)
            seen = await (
                ctx.tick()
                .sample(front.fault.cause, front.fault.address, front.tag)
                .until(front.fault.valid)
            )
            assert seen == (cause, 0, 1234), name
            for _ in range(25):
                _, _, done = await ctx.tick().sample(front.done)
                assert not done
            counts = [len(received) for received in rig.received.values()]
            assert counts == [1, 0, 0, 0], name
            ctx.set(rig.reset, 1)
            await ctx.tick()
            ctx.set(rig.reset, 0)

    rig.simulate(bench, longest=1, limit_cycles=4000)


@pytest.mark.parametrize("commands", [0, 1, 2, 5])
def test_running_out_of_the_region(config: NpuConfig, commands: int) -> None:
    program = encode([Load(tag=k) for k in range(commands)]) + bytes([int(End.OPCODE)] * 63)
    rig = Rig(config, program)

    async def bench(ctx: Any) -> None:
        await rig.start(ctx)
        cause, address = await (
            ctx.tick()
            .sample(rig.front.fault.cause, rig.front.fault.address)
            .until(rig.front.fault.valid)
        )
        assert (cause, address) == (ErrorCause.FETCH_WINDOW, BASE + 64 * commands)
        for _ in range(40):
            await ctx.tick()

    rig.simulate(bench, longest=2, limit_cycles=1000)
    assert len(rig.received[Engine.LOAD]) == commands
    assert len(rig.memory.requests) == commands * 64 // config.bus_bytes


def test_start_up_is_short() -> None:
    """From the start to the first command at its engine, memory latency 8."""
    config = make_config(8, 8)
    rig = Rig(config, encode([Load(), End()]))
    cycles = 0

    async def bench(ctx: Any) -> None:
        nonlocal cycles
        await rig.start(ctx)
        while not ctx.get(rig.front.commands[Engine.LOAD].valid):
            await ctx.tick()
            cycles += 1

    rig.simulate(bench, limit_cycles=100)
    assert cycles <= 28


# The register shell


class Host:
    """Register access by name."""

    def __init__(self, bus: Any) -> None:
        self.bus = bus

    async def _access(self, ctx: Any, name: str, data: int | None) -> int:
        bus = self.bus
        ctx.set(bus.cyc, 1)
        ctx.set(bus.stb, 1)
        ctx.set(bus.adr, address_of(name) // 4)
        ctx.set(bus.we, data is not None)
        ctx.set(bus.dat_w, data or 0)
        ctx.set(bus.sel, 15)
        (value,) = await ctx.tick().sample(bus.dat_r).until(bus.ack)
        ctx.set(bus.cyc, 0)
        ctx.set(bus.stb, 0)
        return int(value)

    async def read(self, ctx: Any, name: str) -> int:
        return await self._access(ctx, name, None)

    async def write(self, ctx: Any, name: str, data: int) -> None:
        await self._access(ctx, name, data)


def test_identity_and_capabilities(config: NpuConfig) -> None:
    dut = Control(config)
    host = Host(dut.bus)

    async def bench(ctx: Any) -> None:
        assert await host.read(ctx, "identity") == IDENTITY
        assert await host.read(ctx, "version") == VERSION
        assert await host.read(ctx, "config_hash") == config.hash
        for index, word in enumerate(capability_words(config)):
            assert await host.read(ctx, f"capability{index}") == word

    simulate(dut, bench)


SHELLS: list[Any] = [
    False,
    True,
    ("MEMORY_COUNTERS",),
    ("SINGLE_TRANSFERS", "MEMORY_REGISTERS"),
    ("SINGLE_TRANSFERS", "PLAIN_ERRORS"),
]
"""What of the register shell is small."""


@pytest.mark.parametrize("compact", SHELLS, ids=str)
def test_a_program_from_doorbell_to_interrupt(compact: Any) -> None:
    config = make_config(8, 8, compact=compact)
    dut = Control(config)
    host = Host(dut.bus)
    starts = 0

    async def count(ctx: Any) -> None:
        nonlocal starts
        while True:
            _, _, start = await ctx.tick().sample(dut.start)
            starts += start

    async def bench(ctx: Any) -> None:
        await host.write(ctx, "region2_base", 0x1000)
        await host.write(ctx, "region2_size", 0x200)
        await host.write(ctx, "region1_size", 0x300)
        if Part.MEMORY_REGISTERS in config.parts:
            ctx.set(dut.region_select, 1)
            assert ctx.get(dut.regions[2].base) == 0
            assert ctx.get(dut.regions[2].size) == 0x300
            ctx.set(dut.region_select, 2)
        assert ctx.get(dut.regions[2].base) == 0x1000
        assert ctx.get(dut.regions[2].size) == 0x200
        await host.write(ctx, "irq_enable", 1)
        for turn in range(2):
            await host.write(ctx, "doorbell", 1)
            await host.write(ctx, "doorbell", 1)  # ignored while busy
            assert await host.read(ctx, "status") == 1
            for _ in range(10):
                await ctx.tick()
            assert not ctx.get(dut.irq)
            ctx.set(dut.done, 1)
            await ctx.tick()
            ctx.set(dut.done, 0)
            for _ in range(3):
                await ctx.tick()
            assert ctx.get(dut.irq)
            assert await host.read(ctx, "status") == 2
            await host.write(ctx, "irq_pending", 1)
            await ctx.tick()
            assert not ctx.get(dut.irq)
            assert starts == turn + 1
            assert not ctx.get(dut.halt)

    simulate(dut, bench, processes=[count])


@pytest.mark.parametrize("compact", SHELLS, ids=str)
def test_counters_count_between_doorbell_and_end(compact: Any) -> None:
    dut = Control(make_config(8, 8, compact=compact))
    host = Host(dut.bus)
    rng = random.Random(3)

    async def bench(ctx: Any) -> None:
        for turn in range(2):
            expected = dict.fromkeys((name for name, _ in COUNTERS), 0)
            await host.write(ctx, "doorbell", 1)
            # The program runs from the cycle after the doorbell's write, before it is answered.
            total = 2
            for _ in range(100):
                pulses = {name: rng.getrandbits(1) for name in EVENTS}
                busy, wait = rng.getrandbits(4) & rng.getrandbits(4), rng.getrandbits(4)
                for name, pulse in pulses.items():
                    ctx.set(getattr(dut.events, name), pulse)
                    expected[name] += pulse
                ctx.set(dut.busy, busy)
                ctx.set(dut.wait_token, wait)
                for engine in (Engine.LOAD, Engine.ARRAY, Engine.VECTOR):
                    expected[f"{engine.name.lower()}_wait_token"] += wait >> engine & 1
                for engine in (Engine.LOAD, Engine.STORE):
                    expected[f"{engine.name.lower()}_busy"] += busy >> engine & 1
                expected["idle"] += busy == 0
                await ctx.tick()
                total += 1
            for name in EVENTS:
                ctx.set(getattr(dut.events, name), 0)
            ctx.set(dut.busy, 15)
            ctx.set(dut.wait_token, 0)
            ctx.set(dut.done, 1)
            await ctx.tick()
            ctx.set(dut.done, 0)
            for _ in range(5):
                await ctx.tick()
            for name in EVENTS:  # after the end nothing counts
                ctx.set(getattr(dut.events, name), 1)
            for _ in range(5):
                await ctx.tick()
            counted = {name: await host.read(ctx, f"count_{name}") for name, _ in COUNTERS}
            # Around the loop: the cycles of the doorbell's acknowledgement and of the end.
            around = counted["total"] - total
            assert 0 <= around <= 2
            for name in ("load_busy", "store_busy", "idle"):
                assert 0 <= counted[name] - expected[name] <= around + 2, name
            for name, _ in COUNTERS:
                if name not in {"total", "load_busy", "store_busy", "idle"}:
                    assert 0 <= counted[name] - expected[name] <= (1 if turn else 0), name
            for name in EVENTS:
                ctx.set(getattr(dut.events, name), 0)

    simulate(dut, bench)


ERROR_SOURCES = [
    ("load", lambda dut: dut.faults[Unit.LOAD], Unit.LOAD, None),
    ("vector", lambda dut: dut.faults[Unit.VECTOR], Unit.VECTOR, None),
    ("fetch", lambda dut: dut.faults[Unit.FETCH], Unit.FETCH, None),
    ("bus", lambda dut: dut.bus_fault, Unit.STORE, None),
    ("overflow", None, Unit.ARRAY, ErrorCause.TOKEN_OVERFLOW),
]


@pytest.mark.parametrize(("name", "port", "unit", "cause"), ERROR_SOURCES)
def test_the_first_error_is_kept_until_the_soft_reset(
    name: str, port: Any, unit: Unit, cause: ErrorCause | None
) -> None:
    dut = Control(make_config(8, 8))
    host = Host(dut.bus)
    expected_cause = int(cause or ErrorCause.MEM_WINDOW)
    expected_address = 0 if cause else 0x12345678

    async def raise_error(ctx: Any, value: int) -> None:
        if port is None:
            ctx.set(dut.overflow, (1 << unit) if value else 0)
        else:
            ctx.set(port(dut).valid, value)
            ctx.set(port(dut).cause, ErrorCause.MEM_WINDOW)
            ctx.set(port(dut).address, 0x12345678)

    async def bench(ctx: Any) -> None:
        for source in Unit:
            ctx.set(dut.tags[source], 100 + source)
        ctx.set(dut.bus_unit, Unit.STORE)
        await host.write(ctx, "irq_enable", 2)
        await raise_error(ctx, 1)  # nothing runs: not an error
        await ctx.tick()
        await raise_error(ctx, 0)
        await host.write(ctx, "doorbell", 1)
        for _ in range(4):
            await ctx.tick()
        assert not ctx.get(dut.halt)
        await raise_error(ctx, 1)
        ctx.set(dut.done, 1)  # an error in the last cycle is one
        await ctx.tick()
        await raise_error(ctx, 0)
        ctx.set(dut.done, 0)
        ctx.set(dut.faults[Unit.ARRAY].valid, 1)  # too late
        ctx.set(dut.faults[Unit.ARRAY].cause, ErrorCause.BANK_CONFLICT)
        for _ in range(4):
            await ctx.tick()
        ctx.set(dut.faults[Unit.ARRAY].valid, 0)
        assert ctx.get(dut.halt)
        assert ctx.get(dut.irq)
        word = expected_cause | unit << 8 | (100 + unit) << 16
        assert await host.read(ctx, "error_cause") == word
        assert await host.read(ctx, "error_address") == expected_address
        assert await host.read(ctx, "status") == 4
        await host.write(ctx, "doorbell", 1)  # refused until the reset
        assert await host.read(ctx, "status") == 4
        assert ctx.get(dut.halt)
        await host.write(ctx, "control", 1)
        await ctx.tick()
        await ctx.tick()
        assert not ctx.get(dut.halt)
        assert await host.read(ctx, "status") == 0
        await host.write(ctx, "doorbell", 1)
        assert await host.read(ctx, "status") == 1
        assert await host.read(ctx, "error_cause") == 0

    simulate(dut, bench)


@pytest.mark.parametrize("compact", SHELLS, ids=str)
@pytest.mark.parametrize("limit", [50, 0])
def test_watchdog(limit: int, compact: Any) -> None:
    dut = Control(make_config(8, 8, compact=compact))
    host = Host(dut.bus)

    async def bench(ctx: Any) -> None:
        await host.write(ctx, "watchdog", limit)
        await host.write(ctx, "doorbell", 1)
        cycles = 0
        while not ctx.get(dut.halt) and cycles < 300:
            await ctx.tick()
            cycles += 1
        if limit:
            assert limit <= cycles <= limit + 5
            word = await host.read(ctx, "error_cause")
            assert word & 0xFFFF == ErrorCause.WATCHDOG | Unit.FETCH << 8
            # The next program has all of its time, whatever this one took.
            await host.write(ctx, "control", 1)
            await host.write(ctx, "doorbell", 1)
            await ctx.tick().repeat(limit - 10)
            assert not ctx.get(dut.halt)
        else:
            assert cycles == 300

    simulate(dut, bench)


def test_soft_reset_of_a_running_program_and_sleep() -> None:
    dut = Control(make_config(8, 8))
    host = Host(dut.bus)
    halted = asleep = 0

    async def count(ctx: Any) -> None:
        nonlocal halted, asleep
        while True:
            _, _, halt, sleep = await ctx.tick().sample(dut.halt, dut.sleep)
            halted += halt
            asleep += sleep

    async def bench(ctx: Any) -> None:
        await host.write(ctx, "doorbell", 1)
        await host.write(ctx, "control", 3)
        for _ in range(5):
            await ctx.tick()
        assert halted == 2  # by the doorbell, then by the soft reset
        assert ctx.get(dut.sleep)
        assert await host.read(ctx, "status") == 0
        await host.write(ctx, "doorbell", 1)
        assert not ctx.get(dut.sleep)
        assert await host.read(ctx, "status") == 1
        await host.write(ctx, "control", 0)
        ctx.set(dut.done, 1)
        await ctx.tick()
        ctx.set(dut.done, 0)
        for _ in range(4):
            await ctx.tick()
        assert not ctx.get(dut.sleep)

    simulate(dut, bench, processes=[count])


def test_verilog_export() -> None:
    config = make_config(8, 8)
    assert "module top" in verilog.convert(Control(config))
    text = verilog.convert(FrontEnd(config))
    for engine in Engine:
        assert f"queue_{engine.name.lower()}" in text
    # The words wait in memories, not in flip-flops.
    assert text.count(f"reg [63:0] memory [{8 * config.queue_depth - 1}:0]") == len(Engine)
