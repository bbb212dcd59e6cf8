"""Register file and arbiter."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from amaranth.back import verilog
from celosia.hw.bus.arbiter import BusArbiter
from celosia.hw.bus.csr import RegisterFile
from celosia.hw.bus.wishbone import Wishbone
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import FETCH_REST_WORDS, MAX_BURST_WORDS
from celosia.hw.contract.regs import ACCESS, REGISTERS, ErrorCause, address_of
from celosia.hw.fabric.buffer import StreamBuffer, StreamQueue

from tests.kit.bus_memory import WishboneMemory
from tests.kit.clocked import simulate
from tests.kit.configs import make_config
from tests.kit.traffic import register_traffic

PORTS = 3


# Streams


@pytest.mark.parametrize(
    "make",
    [
        StreamBuffer,
        lambda shape: StreamBuffer(shape, spare=False),
        lambda shape: StreamQueue(shape, depth=4),
        lambda shape: StreamQueue(shape, depth=4, spare=False),
    ],
)
@pytest.mark.parametrize(("send", "take"), [(1.0, 1.0), (0.5, 0.9), (0.9, 0.4)])
def test_stream_keeps_order(make: Any, send: float, take: float) -> None:
    rng = random.Random(1)
    dut = make(16)
    sent: deque[int] = deque()
    received = 0

    async def bench(ctx: Any) -> None:
        nonlocal received
        offered = None
        cycles = 0
        while received < 200:
            cycles += 1
            if offered is None and rng.random() < send:
                offered = rng.getrandbits(16)
                ctx.set(dut.i.payload, offered)
            ctx.set(dut.i.valid, offered is not None)
            ctx.set(dut.o.ready, rng.random() < take)
            _, _, pushed, valid, ready, payload = await ctx.tick().sample(
                dut.i.ready, dut.o.valid, dut.o.ready, dut.o.payload
            )
            if valid and ready:
                assert payload == sent.popleft()
                received += 1
            if offered is not None and pushed:
                sent.append(offered)
                offered = None
        if send == take == 1.0:
            assert cycles <= 204

    simulate(dut, bench)


# Registers


async def access(ctx: Any, bus: Any, address: int, data: int | None = None, sel: int = 15) -> Any:
    """One classic access; return (answer, data read, cycles)."""
    ctx.set(bus.cyc, 1)
    ctx.set(bus.stb, 1)
    ctx.set(bus.adr, address // 4)
    ctx.set(bus.we, data is not None)
    ctx.set(bus.dat_w, data or 0)
    ctx.set(bus.sel, sel)
    for cycles in range(1, 10):
        _, _, ack, err, dat_r = await ctx.tick().sample(bus.ack, bus.err, bus.dat_r)
        assert ack or not dat_r
        assert not (ack and err)
        if ack or err:
            ctx.set(bus.cyc, 0)
            ctx.set(bus.stb, 0)
            return ("ack" if ack else "err", dat_r, cycles)
    raise AssertionError("no answer")


def test_register_fields() -> None:
    dut = RegisterFile()
    rng = random.Random(2)

    async def bench(ctx: Any) -> None:
        for entry in REGISTERS:
            written = rng.getrandbits(32)
            expected = 0
            for field in entry.fields:
                port = dut.fields[entry.name][field.name]
                mask = (1 << field.width_bits) - 1
                if field.access is ACCESS.R:
                    value = rng.getrandbits(field.width_bits)
                    ctx.set(port, value)
                    expected |= value << field.offset_bits
                elif field.access is ACCESS.RW:
                    expected |= written & mask << field.offset_bits
            answer, _, cycles = await access(ctx, dut.bus, entry.address, written)
            assert (answer, cycles) == ("ack", 4)
            for field in entry.fields:
                if field.access is ACCESS.RW:
                    value = written >> field.offset_bits & ((1 << field.width_bits) - 1)
                    assert ctx.get(dut.fields[entry.name][field.name]) == value
            answer, data, cycles = await access(ctx, dut.bus, entry.address)
            assert (answer, data, cycles) == ("ack", expected, 4), entry.name

    simulate(dut, bench)


def test_byte_selects_pulses_and_write_one_to_clear() -> None:
    dut = RegisterFile()
    scratch, pending = address_of("scratch"), address_of("irq_pending")
    pulses = 0

    async def count(ctx: Any) -> None:
        nonlocal pulses
        while True:
            _, _, start = await ctx.tick().sample(dut.fields["doorbell"]["start"])
            pulses += start

    async def bench(ctx: Any) -> None:
        await access(ctx, dut.bus, scratch, 0x11223344)
        await access(ctx, dut.bus, scratch, 0xAABBCCDD, sel=0b0101)
        assert (await access(ctx, dut.bus, scratch))[1] == 0x11BB33DD

        for port in dut.fields["irq_pending"].values():
            ctx.set(port.set, 1)
        await ctx.tick()
        for port in dut.fields["irq_pending"].values():
            ctx.set(port.set, 0)
        assert (await access(ctx, dut.bus, pending))[1] == 3
        await access(ctx, dut.bus, pending, 1, sel=0b1110)
        assert (await access(ctx, dut.bus, pending))[1] == 3
        await access(ctx, dut.bus, pending, 1)
        assert (await access(ctx, dut.bus, pending))[1] == 2

        assert pulses == 0
        await access(ctx, dut.bus, address_of("doorbell"), 1)
        await access(ctx, dut.bus, address_of("doorbell"), 0)
        assert pulses == 1
        assert (await access(ctx, dut.bus, address_of("doorbell")))[1] == 0

    simulate(dut, bench, processes=[count])


def test_registers_in_a_memory() -> None:
    """By bytes, at random; one is shown while there is no request."""
    stored = ("watchdog", "bus_timeout", "scratch", "region0_base", "region3_size")
    dut = RegisterFile(stored=stored, watched="scratch")
    rng = random.Random(8)
    model = dict.fromkeys(stored, 0)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.bus.cyc, 1)
        ctx.set(dut.bus.stb, 1)
        ctx.set(dut.bus.dat_w, 0xFFFF_FFFF)
        # It may hold anything when a reset comes.
        assert ctx.get(dut.clearing)
        for _ in range(16):
            assert ctx.get(dut.bus.stall)
            written = ctx.get(dut.written)
            assert written.bytes == 15
            assert written.data == 0
            await ctx.tick()
        for _ in range(300):
            name, sel = rng.choice(stored), rng.randrange(16)
            data = rng.getrandbits(32) if rng.random() < 0.5 else None
            kind, value, _ = await access(ctx, dut.bus, address_of(name), data, sel)
            assert kind == "ack"
            if data is None:
                assert value == model[name]
            else:
                mask = sum(0xFF << 8 * byte for byte in range(4) if sel >> byte & 1)
                model[name] = model[name] & ~mask | data & mask
            await ctx.tick()
            assert ctx.get(dut.shows)
            assert ctx.get(dut.shown) == model["scratch"]

    simulate(dut, bench)


def test_unmapped_address_is_an_error() -> None:
    dut = RegisterFile()
    used = {entry.address for entry in REGISTERS}
    free = [address for address in range(0, max(used), 4) if address not in used]
    assert free

    async def bench(ctx: Any) -> None:
        for address in free:
            assert (await access(ctx, dut.bus, address))[0] == "err"
            assert (await access(ctx, dut.bus, address, 1))[0] == "err"
        assert (await access(ctx, dut.bus, 0))[0] == "ack"

    simulate(dut, bench)


def test_registers_in_pipelined_mode() -> None:
    """Back-to-back requests are answered once each, in order; nothing else is answered."""
    dut = RegisterFile()
    model = dict.fromkeys((address_of("scratch"), address_of("watchdog")), 0)

    async def bench(ctx: Any) -> None:
        await register_traffic(ctx, dut.bus, random.Random(4), model, accesses=200)

    simulate(dut, bench)


# Arbiter


class Initiator:
    """Sends random bursts through one port and checks the answers."""

    def __init__(self, kit_memory: Any, port: Any, index: int, *, bursts: int, rate: float) -> None:
        self.memory = kit_memory
        self.port = port
        self.rate = rate
        self.rng = random.Random(index)
        self.word_bytes = kit_memory.word_bytes
        words = len(kit_memory.data) // self.word_bytes // 4
        self.requests: deque[dict[str, int]] = deque()
        self.first_word = index * words
        self.shadow = bytearray(kit_memory.data)
        for _ in range(bursts):
            length = self.rng.choice((1, 1, 3, 8, 40))
            begin = self.first_word + self.rng.randrange(words - length)
            we = self.rng.getrandbits(1)
            for k in range(length):
                self.requests.append(
                    {
                        "adr": begin + k,
                        "we": we,
                        "dat_w": self.rng.getrandbits(8 * self.word_bytes),
                        "sel": self.rng.getrandbits(self.word_bytes) if we else -1,
                        "last": int(k == length - 1),
                    }
                )
        self.total = len(self.requests)
        self.answered = 0

    async def process(self, ctx: Any) -> None:
        port = self.port
        expected: deque[bytes | None] = deque()
        current: dict[str, int] | None = None
        while True:
            if current is None and self.requests and self.rng.random() < self.rate:
                current = self.requests.popleft()
                ctx.set(port.request.payload, current)
            ctx.set(port.request.valid, current is not None)
            _, _, ready, ack, dat_r = await ctx.tick().sample(
                port.request.ready, port.ack, port.dat_r
            )
            if ack:
                value = expected.popleft()
                assert value is None or dat_r.to_bytes(self.word_bytes, "little") == value
                self.answered += 1
            if current is not None and ready:
                place = current["adr"] * self.word_bytes
                if current["we"]:
                    expected.append(None)
                    data = current["dat_w"].to_bytes(self.word_bytes, "little")
                    for lane in range(self.word_bytes):
                        if current["sel"] >> lane & 1:
                            self.shadow[place + lane] = data[lane]
                else:
                    expected.append(bytes(self.shadow[place : place + self.word_bytes]))
                current = None


def check_hints(requests: list[tuple[bool, int, int]]) -> None:
    """Incrementing burst: the next request is for the next word. End: the last one was one."""
    for k, (we, adr, cti) in enumerate(requests):
        if cti == 0b010:
            assert requests[k + 1][:2] == (we, adr + 1)
        elif cti == 0b111:
            assert requests[k - 1][:2] == (we, adr - 1)
        else:
            assert cti == 0
        if k and requests[k - 1][2] != 0b010:
            assert cti != 0b111


@pytest.mark.parametrize(
    ("stall", "delay", "latency", "rate"),
    [(0.0, 0.0, 8, 1.0), (0.3, 0.3, 3, 0.8), (0.6, 0.1, 1, 1.0), (0.0, 0.7, 2, 0.5)],
)
def test_arbiter_serves_all_ports(
    config: NpuConfig,
    stall: float,
    delay: float,
    latency: int,
    rate: float,
) -> None:
    dut = BusArbiter(config, ports=PORTS)
    memory = WishboneMemory(
        dut.bus, size=1 << 13, latency=latency, stall=stall, delay=delay, seed=7
    )
    initiators = [
        Initiator(memory, port, index, bursts=10, rate=rate) for index, port in enumerate(dut.ports)
    ]
    counted = {"read": 0, "write": 0, "wait": 0}

    async def bench(ctx: Any) -> None:
        while any(one.answered < one.total for one in initiators) or not ctx.get(dut.idle):
            _, _, read, write, wait = await ctx.tick().sample(dut.read, dut.write, dut.wait)
            counted["read"] += read
            counted["write"] += write
            counted["wait"] += wait
        for _ in range(3):
            await ctx.tick()

    simulate(dut, bench, processes=[memory.process, *(one.process for one in initiators)])
    assert len(memory.requests) == sum(one.total for one in initiators)
    assert counted["read"] == sum(not we for we, _, _ in memory.requests)
    assert counted["write"] == sum(we for we, _, _ in memory.requests)
    assert counted["wait"] > 0
    assert memory.max_in_flight <= config.max_outstanding
    quarter = len(memory.data) // 4
    for index, one in enumerate(initiators):
        part = slice(index * quarter, (index + 1) * quarter)
        assert memory.data[part] == one.shadow[part]
    check_hints(memory.requests)
    if rate == 1.0 and stall == 0.0:
        spent = memory.cycles[-1] - memory.cycles[0] + 1
        assert spent <= len(memory.requests) + 2
        assert sum(cti == 0b010 for _, _, cti in memory.requests) > len(memory.requests) // 2


@pytest.mark.parametrize("readers", [0, 1, 2])
def test_a_long_burst_does_not_starve_others(readers: int) -> None:
    config = make_config(8, 8)
    dut = BusArbiter(config, ports=2, readers=readers)
    memory = WishboneMemory(dut.bus, size=1 << 13)

    async def bench(ctx: Any) -> None:
        for index, port in enumerate(dut.ports):
            ctx.set(port.request.payload, {"adr": 512 * index, "sel": -1, "last": 0})
            ctx.set(port.request.valid, 1)
        address = [0, 512]
        for _ in range(200):
            _, _, *ready = await ctx.tick().sample(*(port.request.ready for port in dut.ports))
            for index, is_ready in enumerate(ready):
                if is_ready:
                    address[index] += 1
                    payload = {"adr": address[index], "sel": -1, "last": 0}
                    ctx.set(dut.ports[index].request.payload, payload)

    simulate(dut, bench, processes=[memory.process])
    owners = [adr >= 512 for _, adr, _ in memory.requests]
    turns = "".join("ab"[owner] for owner in owners).replace("ab", "a b").replace("ba", "b a")
    assert {len(turn) for turn in turns.split()[:-1]} == {MAX_BURST_WORDS}
    assert memory.cycles[150] - memory.cycles[0] == 150


@pytest.mark.parametrize("wanted_late", [0, 1])
def test_the_first_port_is_asked_to_rest_beside_others(wanted_late: int) -> None:
    """Beside a port that always asks its bursts are so many words apart; alone at once."""
    apart = FETCH_REST_WORDS if wanted_late else MAX_BURST_WORDS
    config = make_config(8, 8)
    dut = BusArbiter(config, ports=2)
    memory = WishboneMemory(dut.bus, size=1 << 13)
    burst, alone = 4, 40

    async def bench(ctx: Any) -> None:
        address, left = [0, 512], 0
        for cycle in range(400):
            left = left or (burst if ctx.get(dut.rested[wanted_late]) else 0)
            for port, adr, valid, last in (
                (dut.ports[0], address[0], left > 0, left == 1),
                (dut.ports[1], address[1], cycle >= alone, True),
            ):
                ctx.set(port.request.payload, {"adr": adr, "sel": -1, "last": last})
                ctx.set(port.request.valid, valid)
            _, _, *taken = await ctx.tick().sample(
                *(port.request.valid & port.request.ready for port in dut.ports)
            )
            left -= taken[0]
            address = [adr + is_taken for adr, is_taken in zip(address, taken, strict=True)]
        for port in dut.ports:
            ctx.set(port.request.valid, 0)

    simulate(dut, bench, processes=[memory.process])
    turns = "".join("ba"[adr < 512] for _, adr, _ in memory.requests)
    assert turns.startswith("a" * (alone - 4))
    between = [len(turn) for turn in turns[turns.index("b") :].split("a" * burst)[1:-1]]
    assert len(between) >= 4, between
    assert min(between) >= apart, between
    assert max(between) <= apart + 4, between


def test_bus_error_names_the_oldest_request(config: NpuConfig) -> None:
    dut = BusArbiter(config, ports=PORTS)
    memory = WishboneMemory(dut.bus, size=1 << 13, latency=6)
    memory.error_words = {37}
    seen: list[tuple[int, int, int]] = []

    async def bench(ctx: Any) -> None:
        port = dut.ports[1]
        adr = 30
        ctx.set(port.request.valid, 1)
        acks = 0
        while not seen:
            ctx.set(port.request.payload, {"adr": adr, "sel": -1})
            _, _, ready, ack, valid, cause, address, unit = await ctx.tick().sample(
                port.request.ready,
                port.ack,
                dut.fault.valid,
                dut.fault.cause,
                dut.fault.address,
                dut.fault_port,
            )
            adr += ready
            acks += ack
            if valid:
                seen.append((cause, address, unit))
        assert acks == 7

    simulate(dut, bench, processes=[memory.process], limit_cycles=500)
    assert seen == [(ErrorCause.BUS_ERROR, 37 * config.bus_bytes, 1)]


@pytest.mark.parametrize("mute", [True, False])
def test_bus_timeout(mute: bool) -> None:
    """A memory that never answers, and one that stalls for ever."""
    config = make_config(4, 8)
    dut = BusArbiter(config, ports=PORTS)
    memory = WishboneMemory(dut.bus, size=1 << 13, stall=0.0 if mute else 1.1)
    memory.mute = mute
    limit = 100

    async def bench(ctx: Any) -> None:
        port = dut.ports[2]
        ctx.set(dut.timeout, limit)
        for _ in range(150):  # idle time does not count
            await ctx.tick()
            assert not ctx.get(dut.fault.valid)
        ctx.set(port.request.payload, {"adr": 5, "we": 1, "sel": -1, "last": 1})
        ctx.set(port.request.valid, 1)
        cycles = 0
        while not ctx.get(dut.fault.valid):
            await ctx.tick()
            ctx.set(port.request.payload.adr, 6)
            cycles += 1
        assert limit <= cycles <= limit + 5
        assert ctx.get(dut.fault.cause) == ErrorCause.BUS_TIMEOUT
        assert ctx.get(dut.fault.address) == 20
        assert ctx.get(dut.fault_port) == 2

    simulate(dut, bench, processes=[memory.process], limit_cycles=1000)


def test_who_only_reads_reads_whole_words() -> None:
    """Whatever else its requests say; those of other ports mean what they say."""
    dut = BusArbiter(make_config(8, 8), ports=2, readers=1)
    payload = {"adr": 5, "we": 1, "sel": 0b1010, "dat_w": 7, "last": 1}
    seen = []

    async def bench(ctx: Any) -> None:
        for index in range(2):
            ctx.set(dut.ports[index].request.payload, payload)
            ctx.set(dut.ports[index].request.valid, 1)
            await ctx.tick()
            ctx.set(dut.ports[index].request.valid, 0)
        for _ in range(6):
            bus = dut.bus
            _, _, stb, *request = await ctx.tick().sample(bus.stb, bus.adr, bus.we, bus.sel)
            if stb:
                seen.append(tuple(request))

    simulate(dut, bench)
    whole = (1 << len(dut.bus.sel)) - 1
    assert seen == [(5, 0, whole), (5, 1, 0b1010)]


def test_no_limit_no_timeout() -> None:
    config = make_config(4, 8)
    dut = BusArbiter(config, ports=1)
    memory = WishboneMemory(dut.bus, size=1 << 13)
    memory.mute = True

    async def bench(ctx: Any) -> None:
        ctx.set(dut.ports[0].request.valid, 1)
        for _ in range(300):
            await ctx.tick()
            assert not ctx.get(dut.fault.valid)

    simulate(dut, bench, processes=[memory.process])


def test_wishbone_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match="data_width .* not 24"):
        Wishbone(addr_width=4, data_width=24)
    with pytest.raises(ValueError, match="lock"):
        Wishbone(addr_width=4, data_width=32, features=("lock",))


def test_verilog_export() -> None:
    assert "module top" in verilog.convert(BusArbiter(make_config(8, 8), ports=PORTS))
    assert "module top" in verilog.convert(RegisterFile())
