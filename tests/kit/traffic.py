"""Random reads and writes against a model, for Amaranth's simulator."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

__all__ = ["local_traffic", "register_traffic"]


async def local_traffic(
    ctx: Any, port: Any, rng: random.Random, addresses: list[int], accesses: int
) -> int:
    """Read and write words of a ``LocalPort`` that hold 0; return how many were read.

    Bytes are written in any mask; a read answers in the next cycle. What is read by a write is
    undefined.
    """
    model = dict.fromkeys(addresses, 0)
    reads = 0
    for _ in range(accesses):
        address, value = rng.choice(addresses), rng.getrandbits(32)
        mask = rng.getrandbits(4) if rng.random() < 0.5 else 0
        ctx.set(port.address, address)
        ctx.set(port.write, mask)
        ctx.set(port.write_data, value)
        await ctx.tick()
        if mask:
            bits = sum(0xFF << 8 * lane for lane in range(4) if mask >> lane & 1)
            model[address] = model[address] & ~bits | value & bits
        else:
            assert ctx.get(port.read_data) == model[address]
            reads += 1
    return reads


async def register_traffic(
    ctx: Any, bus: Any, rng: random.Random, model: dict[int, int], accesses: int
) -> None:
    """Read and write registers, back to back: each is answered once, in order.

    Parameters
    ----------
    bus : pipelined Wishbone target
    model : dict of int to int
        Contents of plain registers by byte address; kept up to date.
    """
    expected: deque[int | None] = deque()
    asked = answered = 0
    while asked < accesses or expected:
        want = asked < accesses and rng.random() < 0.7
        address = rng.choice(list(model))
        data = rng.getrandbits(32) if rng.random() < 0.5 else None
        ctx.set(bus.cyc, bool(want or expected))
        ctx.set(bus.stb, bool(want))
        ctx.set(bus.adr, address // 4)
        ctx.set(bus.we, data is not None)
        ctx.set(bus.dat_w, data or 0)
        ctx.set(bus.sel, 15)
        stall = ctx.get(bus.stall)
        _, _, ack, err, dat_r = await ctx.tick().sample(bus.ack, bus.err, bus.dat_r)
        assert not err
        if ack:
            word = expected.popleft()
            answered += 1
            assert word is None or dat_r == word
        if want and not stall:
            asked += 1
            expected.append(model[address] if data is None else None)
            if data is not None:
                model[address] = data
    ctx.set(bus.cyc, 0)
    assert answered == accesses
