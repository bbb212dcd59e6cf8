"""The activation SRAM: random traffic on all ports against a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from celosia.hw import parts
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.memory.act import ARRAY_LINES, SEGMENTS

CYCLES = 1500


def random_traffic(config: NpuConfig, seed: int) -> None:
    """Drive every port at random for CYCLES cycles and check grants and data."""
    dut = parts.act_sram(config)
    rng = np.random.default_rng(seed)
    size, lines, banks = config.line_bytes, config.act_lines, config.act_banks
    memory = np.zeros(config.act_bytes, np.uint8)

    def line(number: int) -> int:
        return int.from_bytes(memory[number * size : (number + 1) * size].tobytes(), "little")

    def pair(first: int | None, second: int | None) -> Any:
        assert first is not None
        assert second is not None
        return np.concatenate([memory[n * size : (n + 1) * size] for n in (first, second)])

    def window(addr: int) -> int:
        index = (addr + np.arange(size)) % config.act_bytes
        return int.from_bytes(memory[index].tobytes(), "little")

    async def bench(ctx: Any) -> None:
        lower: list[Any] = [np.zeros(2 * size, int)] * 2  # of the windows that come, from now on
        offsets = [0, 0]  # of the array's windows, from this cycle on
        due: list[tuple[int, Any, int]] = []  # cycle, port's data, value
        late: list[tuple[Any, Any]] = []  # bytes written a cycle ago: not to be read yet
        result: tuple[int, Any] | None = None  # of a cycle ago: it is now that it takes its bank
        seen = {"vector refused": 0, "store refused": 0, "load refused": 0, "granted": 0}
        seen["line outside"] = 0
        if config.joins_rows:
            seen["joined"] = 0
        if config.compact:
            seen["store beside a window"] = 0
        for cycle in range(CYCLES):
            ctx.set(dut.array.below, sum(int(bit) << i for i, bit in enumerate(lower.pop(0))))
            for at, data, value in due:
                if at == cycle:
                    assert ctx.get(data) == value, f"cycle {cycle}"
            due = [entry for entry in due if entry[0] > cycle]

            wanted = rng.permutation(banks)[:ARRAY_LINES]
            joined = config.joins_rows and bool(rng.random() < 0.3)
            if joined:
                # Lines 2 and 3 are two banks further than 0 and 1.
                wanted = (rng.integers(0, banks) + np.array([0, 1, 2, 3])) % banks
            busy = set()
            asked: list[int | None] = []
            for s in range(ARRAY_LINES):
                asks = joined or (s < SEGMENTS and bool(rng.random() < 0.4))
                number = int(rng.integers(0, lines // banks)) * banks + int(wanted[s])
                ctx.set(dut.array.bank[s], asks << number % banks)
                ctx.set(dut.array.line[s], number)
                asked.append(number if asks else None)
                if asks:
                    busy.add(number % banks)
                    if s < SEGMENTS and not joined:
                        due.append((cycle + 2, dut.array.data[s], line(number)))
            lower.append(rng.integers(0, 2, 2 * size) * joined)
            offsets.append(int(rng.integers(0, size)))
            ctx.set(dut.array.offset, offsets.pop(0))
            begin, end = asked[:2]
            if begin is not None and end is not None:
                window_lines = line(begin) | line(end) << 8 * size
                if joined:
                    own = pair(begin, end)
                    under = pair(asked[2], asked[3])
                    both = np.where(lower[-1] == 1, under, own).astype(np.uint8)
                    window_lines = int.from_bytes(both.tobytes(), "little")
                    seen["joined"] += 1
                expected = window_lines >> 8 * offsets[-1] & (1 << 8 * size) - 1
                due.append((cycle + 3, dut.array.window, expected))

            asks, number = bool(rng.random() < 0.5), int(rng.integers(0, lines))
            ctx.set(dut.vector.bank, asks << number % banks)
            ctx.set(dut.vector.line, number)
            vector_granted = asks and number % banks not in busy
            if config.compact:
                vector_granted &= asked[2] is None  # one way out for both
            if vector_granted:
                due.append((cycle + 2, dut.vector.data, line(number)))
            if asks:
                busy.add(number % banks)  # a refused request keeps the store engine out as well

            asks_store, addr = bool(rng.random() < 0.5), int(rng.integers(0, config.act_bytes))
            addr -= addr % config.bus_bytes if rng.random() < 0.5 else 0
            ctx.set(dut.store.req, asks_store)
            ctx.set(dut.store.addr, addr)
            needed = {addr // size % banks}
            if addr % size:
                needed.add((addr // size + 1) % banks)
            ctx.set(dut.store.banks, sum(1 << bank for bank in needed))
            store_granted = asks_store and not needed & busy
            beside = False
            if config.compact and asked[:2] != [None, None]:
                # A bus word may take the third way, if nobody else wants it.
                beside = addr % config.bus_bytes == 0 and asked[2] is None and not asks
                store_granted &= beside
                seen["store beside a window"] += store_granted
            if store_granted:
                word = dut.store.data[: config.bus_bits]
                due.append((cycle + 3, word, window(addr) & (1 << config.bus_bits) - 1))

            writes, target = bool(rng.random() < 0.4), int(rng.integers(0, lines))
            value = rng.integers(0, 256, size).astype(np.uint8)
            outside = bool(rng.random() < 0.1)  # nothing is written; a load waits all the same
            ctx.set(dut.result.req, writes)
            ctx.set(dut.result.outside, outside)
            ctx.set(dut.result.line, target)
            ctx.set(dut.result.data, int.from_bytes(value.tobytes(), "little"))

            loads, place = bool(rng.random() < 0.6), int(rng.integers(0, config.act_bytes))
            data = rng.integers(0, 256, size).astype(np.uint8)
            mask = rng.integers(0, 2, size)
            mask[config.bus_bytes :] = 0
            ctx.set(dut.load.req, loads)
            ctx.set(dut.load.addr, place)
            ctx.set(dut.load.data, int.from_bytes(data.tobytes(), "little"))
            ctx.set(dut.load.mask, int(sum(int(bit) << i for i, bit in enumerate(mask))))
            touched = {
                (place + i) % config.act_bytes // size % banks for i in range(config.bus_bytes)
            }
            coming = (target, value) if writes and not outside else None
            seen["line outside"] += writes and outside
            if config.compact:
                # There is one register for what is written, and none before it.
                result, coming = coming, None
                load_granted = loads and not writes
            else:
                load_granted = loads and not (result and result[0] % banks in touched)

            assert not asks or ctx.get(dut.vector.gnt) == vector_granted
            assert ctx.get(dut.store.gnt) == store_granted
            assert ctx.get(dut.load.gnt) == load_granted
            seen["vector refused"] += asks and not vector_granted
            seen["store refused"] += asks_store and not store_granted
            seen["load refused"] += loads and not load_granted
            seen["granted"] += vector_granted and store_granted and load_granted
            for index, written in late:
                memory[index] = written
            late = []
            if result:
                late.append((result[0] * size + np.arange(size), result[1]))
            result = coming
            if load_granted:
                index = (place + np.arange(size)) % config.act_bytes
                late.append((index[mask == 1], data[mask == 1]))
            await ctx.tick()
        assert all(seen.values()), f"never seen: {seen}"

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("name", ["tiny", "base", "large"])
@pytest.mark.parametrize("seed", range(2))
def test_all_ports_at_once(name: str, seed: int) -> None:
    random_traffic(PRESETS[name].with_(act_bytes=1024), seed)


@pytest.mark.parametrize("seed", range(2))
def test_shared_ports_with_joined_windows(seed: int) -> None:
    random_traffic(PRESETS["base"].with_(act_bytes=1024, compact=("SHARED_ACT_PORTS",)), seed)
