"""The softmax unit against the golden model (and that against the reference interpreter)."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Softmax
from celosia.hw.vector.multiplier import Multiplier
from celosia.hw.vector.reciprocal import HighMul, Reciprocal
from celosia.hw.vector.softmax import SoftmaxUnit
from celosia.sim.golden import softmax as golden_softmax

Int8 = npt.NDArray[np.int8]


class Bench:
    """A softmax unit with models of the activation SRAM and of the table."""

    def __init__(self, config: NpuConfig, act: Int8, *, seed: int, grant: float) -> None:
        self.config, self.act, self.grant = config, act, grant
        self.random = random.Random(seed)
        # With a multiplier of its own; tests/hw/vector/test_vector.py has the other one.
        self.unit = SoftmaxUnit(config)

    def run(self, jobs: list[tuple[Softmax, npt.NDArray[np.int32]]]) -> list[int]:
        """Run commands, each with its table; return their cycles."""
        cycles: list[int] = []

        async def testbench(ctx: Any) -> None:
            for command, table in jobs:
                cycles.append(await self._execute(ctx, command, table))

        simulator = Simulator(self.unit)
        simulator.add_clock(1e-6)
        simulator.add_testbench(testbench)
        simulator.run()
        return cycles

    async def _execute(self, ctx: Any, command: Softmax, table: npt.NDArray[np.int32]) -> int:
        u, n = self.unit, self.config.line_bytes
        for name in ("channels", "n_rows", "a_addr", "a_y", "d_addr", "d_y"):
            ctx.set(getattr(u.command, name), getattr(command, name))
        line: bytes | None = None
        entry = 0
        ctx.set(u.start, 1)
        for cycle in range(100_000):
            ctx.set(u.act.gnt, self.random.random() < self.grant)
            (
                _,
                _,
                req,
                act_line,
                index,
                write,
                dst_line,
                result,
                done,
                outside,
            ) = await ctx.tick().sample(
                u.act.bank.any() & u.act.gnt,
                u.act.line,
                u.table_index,
                u.write,
                u.dst_line,
                u.result,
                u.done,
                u.outside,
            )
            assert not outside
            ctx.set(u.start, 0)
            # Both memories answer two cycles after the address; in between there is garbage.
            data = line if line is not None else self.random.randbytes(n)
            ctx.set(u.act.data, int.from_bytes(data, "little"))
            ctx.set(u.table_data, entry)
            line = self.act[act_line].tobytes() if req else None
            entry = int(table[index])
            if write:
                self.act[dst_line] = np.frombuffer(result.to_bytes(n, "little"), np.int8)
            if done:
                return cycle
        raise AssertionError("softmax does not end")


def rows_as_lines(rows: Int8, n: int) -> Int8:
    """Return rows padded with zeros to whole lines: [row, line, byte]."""
    count, channels = rows.shape
    lines = -(-channels // n)
    out = np.zeros((count, lines * n), np.int8)
    out[:, :channels] = rows
    return out.reshape(count, lines, n)


def check(
    config: NpuConfig, cases: list[tuple[int, int, float, float]], *, seed: int, grant: float
) -> list[int]:
    """Each case: rows, channels, scale, beta. Return the cycles of each."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    n = config.line_bytes
    act = rng.integers(-128, 128, (config.act_lines, n)).astype(np.int8)
    expected = act.copy()
    jobs = []
    src, dst = 0, config.act_lines // 2
    for count, channels, scale, beta in cases:
        spread = int(rng.integers(1, 128))
        rows = rng.integers(-spread, spread, (count, channels)).astype(np.int8)
        lines = -(-channels // n)
        src_pitch, dst_pitch = (lines + int(rng.integers(0, 3)) for _ in range(2))
        for row, cut in enumerate(rows_as_lines(rows, n)):
            act[src + row * src_pitch :][:lines] = expected[src + row * src_pitch :][:lines] = cut
        wanted = golden_softmax.softmax(rows, x_scale=scale, beta=beta)
        for row, cut in enumerate(rows_as_lines(wanted, n)):
            expected[dst + row * dst_pitch :][:lines] = cut
        command = Softmax(
            channels=channels, n_rows=count, a_addr=src, a_y=src_pitch, d_addr=dst, d_y=dst_pitch
        )
        jobs.append((command, golden_softmax.softmax_exp_table(scale, beta)))
        src += count * src_pitch
        dst += count * dst_pitch
        assert dst <= config.act_lines
    bench = Bench(config, act, seed=seed, grant=grant)
    cycles = bench.run(jobs)
    np.testing.assert_array_equal(act, expected)
    return cycles


@pytest.mark.parametrize(("name", "grant"), [("nano", 1.0), ("base", 0.4)])
def test_random_rows(name: str, grant: float) -> None:
    rng = np.random.default_rng(11)
    cases = [
        (
            int(rng.integers(1, 4)),
            int(rng.choice([1, 2, 3, 4, 5, 8, 10, 12, 17, 33])),
            float(np.float32(10 ** rng.uniform(-3, 0.3))),
            float(np.float32(rng.choice([1.0, 1.0, 0.5, 2.0]))),
        )
        for _ in range(24)
    ]
    check(preset(name), cases, seed=12, grant=grant)


def test_many_equal_elements() -> None:
    """The sum grows by three decimal digits and the shift with it."""
    cases = [(1, channels, 1e-4, 1.0) for channels in (255, 256, 257, 1000)]
    check(preset("base"), cases, seed=13, grant=1.0)


def test_cycles() -> None:
    cycles = check(preset("base"), [(1, 3, 0.1, 1.0), (1, 12, 0.1, 1.0)], seed=14, grant=1.0)
    print(f"3 channels: {cycles[0]} cycles; 12 channels: {cycles[1]} cycles")
    assert cycles[1] <= 3 * (12 + 2 * 3) + 75


def test_reciprocal() -> None:
    """Over the whole range of sums: one element to 4096 equal ones."""
    rng = np.random.default_rng(15)
    sums = [1 << 19, (1 << 19) + 1, (1 << 20) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
    sums += [int(2 ** rng.uniform(19, 32)) for _ in range(60)]

    m = Module()
    m.submodules.reciprocal = reciprocal = Reciprocal()
    m.submodules.multiplier = multiplier = Multiplier()
    m.submodules.high_mul = high_mul = HighMul()
    m.d.comb += [
        multiplier.x.eq(reciprocal.x),
        multiplier.m.eq(reciprocal.m),
        high_mul.t.eq(multiplier.t),
        reciprocal.high.eq(high_mul.high),
    ]

    async def testbench(ctx: Any) -> None:
        for value in sums:
            ctx.set(reciprocal.sum, value)
            ctx.set(reciprocal.start, 1)
            await ctx.tick()
            ctx.set(reciprocal.start, 0)
            await ctx.tick().until(reciprocal.done)
            scale, over_unit = golden_softmax.softmax_reciprocal(value)
            assert ctx.get(reciprocal.scale) == scale
            assert 12 - ctx.get(reciprocal.leading_zeros) == over_unit

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
