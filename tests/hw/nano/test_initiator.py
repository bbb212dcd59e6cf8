"""The initiator of the firmware machine on a bus that stalls, answers late or not, or fails."""

from __future__ import annotations

import random
from typing import Any

import pytest
from celosia.hw.bus.wishbone import CycleType
from celosia.hw.nano.initiator import MemoryAccess
from celosia.hw.nano.instructions import Out

from tests.kit.bus_memory import WishboneMemory
from tests.kit.clocked import simulate
from tests.kit.configs import make_config

MEMORY_BYTES = 256
LIMIT_CYCLES = 300


async def out(ctx: Any, dut: MemoryAccess, port: Out, value: int = 0) -> None:
    """Write a port, as the processor does every other cycle."""
    ctx.set(dut.port, int(port))
    ctx.set(dut.write, 1)
    ctx.set(dut.write_data, value)
    await ctx.tick()
    ctx.set(dut.write, 0)
    ctx.set(dut.write_data, 0xDEAD_BEEF)
    await ctx.tick()


async def finish(ctx: Any, dut: MemoryAccess) -> int:
    """Wait until nothing is under way; return the cycles."""
    for cycles in range(LIMIT_CYCLES):
        if ctx.get(dut.ready):
            return cycles
        await ctx.tick()
    raise AssertionError("no answer")


@pytest.mark.parametrize(
    ("latency", "stall", "delay"), [(1, 0.0, 0.0), (2, 0.7, 0.0), (9, 0.3, 0.5), (30, 0.0, 0.8)]
)
def test_random_accesses(latency: int, stall: float, delay: float) -> None:
    config = make_config(4, 4, firmware=True)
    dut = MemoryAccess(config)
    memory = WishboneMemory(
        dut.bus, size=MEMORY_BYTES, latency=latency, stall=stall, delay=delay, seed=latency
    )
    model = bytearray(memory.data)
    bad = 17
    memory.error_words.add(bad)
    rng = random.Random(latency)
    accesses = 60

    async def bench(ctx: Any) -> None:
        assert ctx.get(dut.ready)
        assert not ctx.get(dut.failed)
        for _ in range(accesses):
            word = rng.choice([bad, rng.randrange(MEMORY_BYTES // 4)])
            address = 4 * word + rng.randrange(4)
            await out(ctx, dut, Out.MEMORY_ADDRESS, address)
            is_write = rng.random() < 0.5
            place = slice(4 * word, 4 * word + 4)
            if is_write:
                value, mask = rng.getrandbits(32), rng.randrange(1, 16)
                await out(ctx, dut, Out.MEMORY_WRITE_DATA, value)
                await out(ctx, dut, Out.MEMORY_WRITE, mask)
                if word != bad:
                    for lane in range(4):
                        if mask >> lane & 1:
                            model[4 * word + lane] = value >> 8 * lane & 0xFF
            else:
                await out(ctx, dut, Out.MEMORY_READ, rng.getrandbits(32))
            await finish(ctx, dut)
            assert bool(ctx.get(dut.failed)) == (word == bad)
            assert ctx.get(dut.address) == 4 * word
            if not is_write and word != bad:
                assert ctx.get(dut.data) == int.from_bytes(model[place], "little")
            for _ in range(rng.randrange(3)):
                await ctx.tick()
        assert memory.data == model

    simulate(dut, bench, processes=[memory.process], limit_cycles=40_000)
    # One request for each access, never two, and never two at once.
    assert len(memory.requests) == accesses
    assert memory.max_in_flight == 1
    assert {CycleType(cti) for _, _, cti in memory.requests} == {CycleType.CLASSIC}


def test_data_and_address_stay_while_nothing_is_asked() -> None:
    """Ports of others, and values on the way: only what is written counts."""
    config = make_config(4, 4, firmware=True)
    dut = MemoryAccess(config)
    memory = WishboneMemory(dut.bus, size=MEMORY_BYTES)
    word = int.from_bytes(memory.data[40:44], "little")
    others = [port for port in Out if not port.name.startswith("MEMORY_")]

    async def bench(ctx: Any) -> None:
        await out(ctx, dut, Out.MEMORY_ADDRESS, 40)
        await out(ctx, dut, Out.MEMORY_READ)
        await finish(ctx, dut)
        for port in others:
            await out(ctx, dut, port, 0xFFFF_FFFF)
        # The number of a port, without a write.
        for port in (Out.MEMORY_READ, Out.MEMORY_WRITE, Out.MEMORY_ADDRESS):
            ctx.set(dut.port, int(port))
            await ctx.tick()
        assert ctx.get(dut.ready)
        assert (ctx.get(dut.address), ctx.get(dut.data)) == (40, word)

    simulate(dut, bench, processes=[memory.process])
    assert len(memory.requests) == 1


@pytest.mark.parametrize("stalled", [False, True])
@pytest.mark.parametrize("is_write", [False, True])
def test_cancel(stalled: bool, is_write: bool) -> None:
    """At any time: the bus is released, the next access is sound and gets its own answer."""
    config = make_config(4, 4, firmware=True)
    dut = MemoryAccess(config)
    memory = WishboneMemory(dut.bus, size=MEMORY_BYTES, latency=6, stall=0.8 if stalled else 0.0)
    memory.error_words.add(3)
    words = [int.from_bytes(memory.data[4 * n : 4 * n + 4], "little") for n in range(16)]

    async def bench(ctx: Any) -> None:
        for wait_cycles in range(12):
            await out(ctx, dut, Out.MEMORY_ADDRESS, 12)
            await out(ctx, dut, Out.MEMORY_WRITE if is_write else Out.MEMORY_READ, 0)
            for _ in range(wait_cycles):
                await ctx.tick()
            ctx.set(dut.cancel, 1)
            await ctx.tick()
            ctx.set(dut.cancel, 0)
            assert ctx.get(dut.ready)
            assert not ctx.get(dut.failed)
            assert not ctx.get(dut.bus.cyc | dut.bus.stb)
            await ctx.tick()
            word = 4 + wait_cycles
            await out(ctx, dut, Out.MEMORY_ADDRESS, 4 * word)
            await out(ctx, dut, Out.MEMORY_READ)
            await finish(ctx, dut)
            assert not ctx.get(dut.failed)
            assert ctx.get(dut.data) == words[word]

    simulate(dut, bench, processes=[memory.process])


def test_memory_that_never_answers() -> None:
    config = make_config(4, 4, firmware=True)
    dut = MemoryAccess(config)
    memory = WishboneMemory(dut.bus, size=MEMORY_BYTES, latency=2)
    memory.mute = True

    async def bench(ctx: Any) -> None:
        await out(ctx, dut, Out.MEMORY_ADDRESS, 20)
        await out(ctx, dut, Out.MEMORY_READ)
        for _ in range(100):
            await ctx.tick()
            assert not ctx.get(dut.ready)
            assert ctx.get(dut.bus.cyc)
        assert ctx.get(dut.address) == 20

    simulate(dut, bench, processes=[memory.process])
    assert len(memory.requests) == 1
