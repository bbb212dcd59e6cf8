# amaranth: UnusedElaboratable=no
"""System memory in the single-port memories of an iCE40: random traffic against a model."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from amaranth.sim import Simulator
from celosia.boards.fpga.spram import LocalSpram, Spram
from celosia.hw.contract.config import preset
from celosia.hw.nano.layout import LocalMap
from celosia.hw.nano.local import LocalPort
from celosia.quantities import KIB

from tests.kit.traffic import local_traffic

MEMORY_BYTES = 128 * 1024
CYCLES = 2000
LATENCY_CYCLES = 3


def test_random_traffic() -> None:
    config = preset("nano")
    memory = Spram(config, memory_bytes=MEMORY_BYTES)
    rng = random.Random(1)
    words = MEMORY_BYTES // 4
    # Few addresses, so that what is written is read: both rows, and beyond the end.
    addresses = [0, 1, 16383, 16384, 16385, words - 1, words, words + 5]
    model: dict[int, int] = {}
    expected: deque[tuple[int, bool, int | None]] = deque()
    answers = 0

    async def bench(ctx: Any) -> None:
        nonlocal answers
        bus = memory.bus
        for address in addresses:
            if address < words:  # the chip's memory begins with anything
                model[address] = 0
        ctx.set(bus.cyc, 1)
        for cycle in range(CYCLES):
            stb, we = rng.random() < 0.7, rng.random() < 0.5
            address, value, sel = rng.choice(addresses), rng.getrandbits(32), rng.getrandbits(4)
            for port, level in (
                (bus.stb, stb),
                (bus.we, we),
                (bus.adr, address),
                (bus.dat_w, value),
                (bus.sel, sel),
            ):
                ctx.set(port, level)
            assert ctx.get(bus.stall) == 0
            if stb:
                exists = address < words
                expected.append(
                    (cycle + LATENCY_CYCLES, exists, None if we or not exists else model[address])
                )
                if we and exists:
                    mask = sum(0xFF << 8 * lane for lane in range(4) if sel >> lane & 1)
                    model[address] = model[address] & ~mask | value & mask
            ack, err = ctx.get(bus.ack), ctx.get(bus.err)
            if expected and expected[0][0] == cycle:
                _, exists, word = expected.popleft()
                assert (ack, err) == (exists, not exists)
                if word is not None:
                    assert ctx.get(bus.dat_r) == word
                answers += 1
            else:
                assert not ack
                assert not err
            await ctx.tick()

    simulator = Simulator(memory)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert answers > CYCLES // 2


@pytest.mark.parametrize("memory_bytes", [0, 32 * 1024, 100_000])
def test_other_sizes_are_refused(memory_bytes: int) -> None:
    with pytest.raises(ValueError, match=str(memory_bytes)):
        Spram(preset("nano"), memory_bytes=memory_bytes)


def test_local_memory() -> None:
    """Bytes in any mask, in both halves of a word; a read answers in the next cycle."""
    config = preset("nano")
    memory = LocalSpram(config)
    rng = random.Random(2)
    words = LocalMap(config).bytes // 4
    addresses = [0, 1, 2, words // 2 - 1, words // 2, words - 2, words - 1]
    reads = 0

    async def bench(ctx: Any) -> None:
        nonlocal reads
        reads = await local_traffic(ctx, memory.port, rng, addresses, CYCLES)

    simulator = Simulator(memory)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert reads > CYCLES // 3


def test_local_memory_has_the_port_of_the_machine() -> None:
    config = preset("nano")
    assert LocalSpram(config).port.signature == LocalPort(config).flip()


def test_local_memory_that_is_too_small() -> None:
    large = preset("nano").with_(act_bytes=64 * KIB)
    with pytest.raises(ValueError, match=f"takes {LocalMap(large).bytes} bytes, there are 65536"):
        LocalSpram(large)
