"""The multiplier of the firmware machine: 32 x 32 bits, three views of the product."""

from __future__ import annotations

import random
from typing import Any

from celosia.hw.nano.multiplier import Multiplier

from tests.kit.clocked import simulate

EDGES = (0, 1, -1, 2, -2, 1 << 30, -(1 << 30), (1 << 31) - 1, -(1 << 31), 1 - (1 << 31), 0xFFFF)
WORD = (1 << 32) - 1


def test_products() -> None:
    """All pairs of edges and random ones; now the first factor is new, now the second, now both."""
    rng = random.Random(1)
    dut = Multiplier()
    pairs = [(a, b) for a in EDGES for b in EDGES]
    pairs += [
        (rng.randint(-(1 << 31), (1 << 31) - 1) >> rng.randrange(31), rng.choice(EDGES))
        for _ in range(100)
    ]
    pairs += [(rng.getrandbits(31), -rng.getrandbits(31)) for _ in range(100)]

    async def load(ctx: Any, value: int, which: str) -> None:
        for name in "ab":
            ctx.set(getattr(dut, f"load_{name}"), name in which)
        ctx.set(dut.factor, value & WORD)
        await ctx.tick()
        ctx.set(dut.load_a, 0)
        ctx.set(dut.load_b, 0)
        ctx.set(dut.factor, rng.getrandbits(32))

    async def bench(ctx: Any) -> None:
        a = b = 0
        await load(ctx, 0, "ab")
        for new_a, new_b in pairs:
            order = rng.choice(["ab", "ba"])
            for name in order:
                if name == "a" and new_a != a:
                    a = new_a
                    await load(ctx, a, "a")
                elif name == "b" and new_b != b:
                    b = new_b
                    await load(ctx, b, "b")
            if rng.random() < 0.1:
                a = b = new_a
                await load(ctx, a, "ab")
            await ctx.tick()
            product = a * b
            for port, expected in (
                (dut.low, product),
                (dut.high, product >> 31),
                (dut.rounded, (product + (1 << 30)) >> 31),
            ):
                assert ctx.get(port) == expected & WORD, f"{a} * {b}"

    simulate(dut, bench)
