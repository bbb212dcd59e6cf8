# amaranth: UnusedElaboratable=no
"""Runs of the array of the firmware machine against numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.isa import ADDRESS_MASK
from celosia.hw.nano.instructions import Out
from celosia.hw.nano.runs import ArrayRuns

from tests.kit.clocked import simulate
from tests.kit.configs import make_config

COLUMNS = 4
LOCAL_WORDS = 1 << 12
WEIGHTS_WORD = 3000
"""Where weights are, beyond the activations."""
ALL_VECTORS = 2 * 64


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run is told."""

    step: int = COLUMNS
    tap_step: int = 1
    limit: int = 64
    count: int = 8
    x: int = 0
    address: int = 0
    vector: int = 0
    weights: int = WEIGHTS_WORD
    zero_point: int = 0
    same_byte: bool = True
    taps: int = 4
    overwrites: bool = True
    exists: bool = True


class Model:
    """Sums, and the first byte beyond the memory."""

    def __init__(self, local: npt.NDArray[np.int8], act_bytes: int) -> None:
        self.local = local
        self.act_bytes = act_bytes
        self.sums = np.zeros((ALL_VECTORS, COLUMNS), np.int32)
        self.beyond: int | None = None

    def run(self, run: Run) -> None:
        """Carry out a run."""
        memory = self.local.reshape(-1)
        self.beyond = None
        for tap in range(run.taps):
            weights = self.local[(run.weights + tap) % len(self.local)].astype(np.int64)
            for window in range(run.count):
                offset = tap * run.tap_step + window * run.step
                x, address = run.x + offset, (run.address + offset) & ADDRESS_MASK
                inside = run.exists and 0 <= x < run.limit
                if inside and address >= self.act_bytes and self.beyond is None:
                    self.beyond = address & -COLUMNS
                if not inside:
                    values = np.full(COLUMNS, run.zero_point, np.int64)
                elif run.same_byte:
                    values = np.full(COLUMNS, memory[address % memory.size], np.int64)
                else:
                    values = self.local[(address >> 2) % len(self.local)].astype(np.int64)
                vector = (run.vector + window) % ALL_VECTORS
                before = 0 if run.overwrites and tap == 0 else self.sums[vector].astype(np.int64)
                self.sums[vector] = (before + values * weights).astype(np.int32)


def random_run(rng: np.random.Generator) -> Run:
    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    same_byte = bool(rng.random() < 0.6)
    step = pick(0, 30) if same_byte else COLUMNS * pick(0, 6)
    x = int(rng.choice([0, pick(-40, 10), pick(-1000, 70_000), 131_071, -131_072]))
    return Run(
        step=step,
        tap_step=1 if rng.random() < 0.5 else pick(0, 200) * COLUMNS,
        limit=int(rng.choice([0, 1, pick(0, 300), 131_071])),
        count=pick(1, 20),
        x=x,
        address=int(
            rng.choice([pick(0, 6000), pick(0, 100), pick(8000, 8200), (x + 40) & ADDRESS_MASK])
        ),
        vector=pick(0, ALL_VECTORS - 1),
        weights=pick(WEIGHTS_WORD, WEIGHTS_WORD + 800),
        zero_point=pick(-128, 127),
        same_byte=same_byte,
        taps=pick(1, 12),
        overwrites=bool(rng.random() < 0.4),
        exists=bool(rng.random() < 0.85),
    )


class Bench:
    """The array and a local memory."""

    def __init__(self, seed: int) -> None:
        self.config = make_config(4, 4, firmware=True)
        self.dut = ArrayRuns(self.config)
        rng = np.random.default_rng(seed)
        local = rng.integers(-128, 128, (LOCAL_WORDS, COLUMNS), np.int8)
        local[rng.random(local.shape) < 0.1] = -128
        self.model = Model(local, self.config.act_bytes)
        assert 2 * self.config.acc_depth == ALL_VECTORS
        self.words = local.view("<u4").ravel()

    async def memory(self, ctx: Any) -> None:
        """Answer in the next cycle, if it is asked; else with anything."""
        rng = np.random.default_rng(1)
        while True:
            _, _, address, busy = await ctx.tick().sample(self.dut.local_address, self.dut.busy)
            noise = int(rng.integers(1 << 32))
            word = int(self.words[address % LOCAL_WORDS]) if busy else noise
            ctx.set(self.dut.local_data, word)

    async def out(self, ctx: Any, port: Out, value: int) -> None:
        """Write a port."""
        ctx.set(self.dut.port, int(port))
        ctx.set(self.dut.write, 1)
        ctx.set(self.dut.write_data, value & 0xFFFF_FFFF)
        await ctx.tick()
        ctx.set(self.dut.write, 0)
        ctx.set(self.dut.write_data, 0x5A5A_5A5A)

    async def start(self, ctx: Any, run: Run) -> None:
        """Tell the array what to do."""
        for port, value in (
            (Out.ARRAY_STEP, run.step),
            (Out.ARRAY_TAP, run.tap_step),
            (Out.ARRAY_LIMIT, run.limit),
            (Out.ARRAY_COUNT, run.count),
            (Out.ARRAY_X, run.x),
            (Out.ARRAY_ADDRESS, run.address),
            (Out.ARRAY_VECTOR, run.vector),
            (Out.ARRAY_WEIGHTS, run.weights),
            (Out.ARRAY_SETUP, run.zero_point & 0xFF | run.same_byte << 8),
        ):
            await self.out(ctx, port, value)
        assert not ctx.get(self.dut.busy)
        assert not ctx.get(self.dut.beyond)
        await self.out(ctx, Out.ARRAY_RUN, run.taps | run.overwrites << 14 | run.exists << 15)

    async def wait(self, ctx: Any) -> int:
        """Wait for the end of a run; return the cycles."""
        cycles = 0
        while ctx.get(self.dut.busy):
            await ctx.tick()
            cycles += 1
        return cycles

    async def sums(self, ctx: Any, first: int, count: int, column: int) -> list[int]:
        """Read sums of one column, the next vector's every two cycles as the processor does."""
        ctx.set(self.dut.acc_load, 1)
        ctx.set(self.dut.write_data, first * COLUMNS + column)
        await ctx.tick()
        ctx.set(self.dut.acc_load, 0)
        await ctx.tick()
        found = []
        for _ in range(count):
            value = ctx.get(self.dut.acc_data)
            found.append(value - (value >> 31 << 32))
            ctx.set(self.dut.acc_next, 1)
            await ctx.tick()
            ctx.set(self.dut.acc_next, 0)
            await ctx.tick()
        return found

    async def check(self, ctx: Any) -> None:
        """Compare all sums, and the flag."""
        for column in range(COLUMNS):
            found = await self.sums(ctx, 0, ALL_VECTORS, column)
            assert found == self.model.sums[:, column].tolist(), f"column {column}"

    def check_flag(self, ctx: Any) -> None:
        """Compare the flag and its address."""
        assert bool(ctx.get(self.dut.beyond)) == (self.model.beyond is not None)
        if self.model.beyond is not None:
            assert ctx.get(self.dut.beyond_address) == self.model.beyond


@pytest.mark.parametrize("seed", range(4))
def test_random_runs(seed: int) -> None:
    bench = Bench(seed)
    rng = np.random.default_rng((seed, 1))
    beyond = 0

    async def main(ctx: Any) -> None:
        nonlocal beyond
        # All sums are given a value.
        for half in range(2):
            whole = Run(count=ALL_VECTORS // 2, vector=half * ALL_VECTORS // 2, limit=400, taps=1)
            await bench.start(ctx, whole)
            bench.model.run(whole)
            await bench.wait(ctx)
        for _ in range(25):
            run = random_run(rng)
            await bench.start(ctx, run)
            bench.model.run(run)
            cycles = await bench.wait(ctx)
            assert cycles <= run.taps * (run.count + 6)
            bench.check_flag(ctx)
            beyond += bench.model.beyond is not None
        await bench.check(ctx)

    simulate(bench.dut, main, processes=[bench.memory])
    assert 0 < beyond < 25


def test_sums_wrap() -> None:
    """Products of the largest size, one run after another in the same vectors, with zero point."""
    bench = Bench(9)
    bench.model.local[:] = -128
    run = Run(taps=100, count=3, exists=False, zero_point=-128, overwrites=False, vector=5)

    async def main(ctx: Any) -> None:
        first = Run(taps=1, count=3, vector=5, overwrites=True, exists=False, zero_point=-128)
        for part in (first, run, run):
            await bench.start(ctx, part)
            bench.model.run(part)
            await bench.wait(ctx)
        for column in range(COLUMNS):
            assert await bench.sums(ctx, 5, 3, column) == [201 << 14] * 3

    simulate(bench.dut, main, processes=[bench.memory])
    assert bench.model.sums[5, 0] == 201 << 14


def test_the_flag_stays_until_the_next_setup() -> None:
    """The first byte beyond counts; bytes beyond that lie outside of their row do not."""
    bench = Bench(10)
    size = bench.config.act_bytes

    async def main(ctx: Any) -> None:
        for run, expected in (
            (Run(address=size - 4, count=1, taps=4, limit=8), None),
            (Run(address=size - 4, count=2, taps=4, limit=4), None),
            (Run(address=size - 4, count=2, taps=4, limit=5), size),
            (Run(address=size - 3, count=1, taps=4, limit=8), size),
            (Run(address=size, count=3, taps=1, limit=8, x=-4), size + 4),
            (Run(address=ADDRESS_MASK, count=2, taps=1, limit=8), ADDRESS_MASK - 3),
            (Run(address=ADDRESS_MASK, count=2, taps=1, limit=8, x=-1, step=1), None),
            (Run(address=size + 4, count=3, exists=False), None),
        ):
            await bench.start(ctx, run)
            bench.model.run(run)
            assert bench.model.beyond == expected
            await bench.wait(ctx)
            bench.check_flag(ctx)
        await bench.start(ctx, Run(address=size + 8, count=1, taps=1))
        await bench.wait(ctx)
        # Another run, without a setup: the flag is still about the one before.
        await bench.out(ctx, Out.ARRAY_ADDRESS, 0)
        await bench.out(ctx, Out.ARRAY_RUN, 1 | 1 << 15)
        await bench.wait(ctx)
        assert ctx.get(bench.dut.beyond)
        assert ctx.get(bench.dut.beyond_address) == size + 8

    simulate(bench.dut, main, processes=[bench.memory])


def test_more_weights_than_a_run_can_count() -> None:
    ArrayRuns(make_config(4, 4, firmware=True, wgt_bytes=32 * 1024))
    with pytest.raises(ValueError, match="must be 65532 at most, not 65536"):
        ArrayRuns(make_config(4, 4, firmware=True, wgt_bytes=64 * 1024))
