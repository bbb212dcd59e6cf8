"""System memory on a pipelined Wishbone bus, for Amaranth's simulator."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

__all__ = ["WishboneMemory"]


class WishboneMemory:
    """System memory on a pipelined Wishbone bus; a process for the simulator.

    Parameters
    ----------
    bus : Wishbone interface, as seen by the initiator's outside
    size : int
        Bytes.
    latency : int
        Cycles from a request to its answer, at least 1.
    stall, delay : float
        Probability of a stalled cycle, of an answer held back for a cycle.
    """

    def __init__(
        self,
        bus: Any,
        *,
        size: int,
        latency: int = 8,
        stall: float = 0.0,
        delay: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.bus = bus
        self.data = bytearray(random.Random(seed).randbytes(size))
        self.latency = latency
        self.stall = stall
        self.delay = delay
        self.rng = random.Random(seed)
        self.word_bytes = len(bus.dat_w) // 8
        self.error_words: set[int] = set()
        self.mute = False
        self.requests: list[tuple[bool, int, int]] = []  # we, word address, cti
        self.cycles: list[int] = []  # of each request
        self.max_in_flight = 0

    async def process(self, ctx: Any) -> None:
        bus = self.bus
        pending: deque[tuple[int, int | None, bool]] = deque()  # due cycle, data, error
        cycle = 0
        stalled = False
        while True:
            _, _, cyc, stb, we, adr, dat_w, sel, cti = await ctx.tick().sample(
                bus.cyc, bus.stb, bus.we, bus.adr, bus.dat_w, bus.sel, bus.cti
            )
            cycle += 1
            if not cyc:
                pending.clear()
                assert not stb
            elif stb and not stalled:
                self.requests.append((bool(we), adr, cti.value))
                self.cycles.append(cycle)
                pending.append((cycle + self.latency - 1, *self._access(we, adr, dat_w, sel)))
                self.max_in_flight = max(self.max_in_flight, len(pending))
            stalled = self.rng.random() < self.stall
            ctx.set(bus.stall, stalled)
            due = bool(pending) and pending[0][0] <= cycle and not self.mute
            if due and self.rng.random() >= self.delay:
                _, value, error = pending.popleft()
                ctx.set(bus.ack, not error)
                ctx.set(bus.err, error)
                ctx.set(bus.dat_r, value or 0)
            else:
                ctx.set(bus.ack, 0)
                ctx.set(bus.err, 0)
                ctx.set(bus.dat_r, self.rng.getrandbits(8 * self.word_bytes))

    def _access(self, we: int, adr: int, dat_w: int, sel: int) -> tuple[int | None, bool]:
        if adr in self.error_words:
            return None, True
        base = adr * self.word_bytes
        assert base + self.word_bytes <= len(self.data), f"word {adr:#x} is not in the memory"
        if not we:
            return int.from_bytes(self.data[base : base + self.word_bytes], "little"), False
        for lane in range(self.word_bytes):
            if sel >> lane & 1:
                self.data[base + lane] = dat_w >> 8 * lane & 0xFF
        return None, False
