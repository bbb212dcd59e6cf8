"""The SDRAM controller and a chip of full size, against a table of bytes."""

from __future__ import annotations

import os
import random
from collections import deque
from typing import Any

import cocotb
from celosia.hw.contract.config import NpuConfig

from tests.kit.bfm.cycles import Cycles, Pins
from tests.kit.designs import DESIGNS, SdramTop

CONFIG: NpuConfig = DESIGNS[os.environ["CELOSIA_DESIGN"]].config
WORDS = SdramTop.CHIP.memory_bytes // CONFIG.bus_bytes
MOST_IN_FLIGHT = 16
NAMES = ("adr", "dat_w", "dat_r", "sel", "cyc", "stb", "we", "ack", "err", "stall")

Request = tuple[int, int | None, int]
"""Word address, what is written, byte selects."""


class Initiator:
    """Does requests as fast as the bus takes them, with pauses; checks every answer.

    Requests that are given up, with ``cyc`` low, must be reads: a write may be done or not.
    """

    def __init__(self, dut: Any, rng: random.Random) -> None:
        self.bus = Pins(dut, "bus", NAMES)
        self.rng = rng
        self.memory: dict[int, int] = {}  # bytes
        self.waiting: deque[Request] = deque()
        self.in_flight: deque[int | None] = deque()  # what a read must give; -1: an error
        self.asking = False
        self.pauses = 0.0
        self.answers = 0

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.in_flight

    def give_up(self) -> None:
        assert all(data is None for _, data, _ in self.waiting)
        self.waiting.clear()
        self.in_flight.clear()

    def sample(self) -> None:
        if not self.bus.get("cyc"):
            return
        ack, err = self.bus.get("ack"), self.bus.get("err")
        if (ack or err) and self.in_flight:
            expected = self.in_flight.popleft()
            assert (ack, err) == ((0, 1) if expected == -1 else (1, 0))
            if expected is not None and expected >= 0:
                assert self.bus.get("dat_r") == expected
            self.answers += 1
        if self.asking and self.waiting and not self.bus.get("stall"):
            self.asking = False
            self.in_flight.append(self.effect(self.waiting.popleft()))

    def effect(self, request: Request) -> int | None:
        adr, data, sel = request
        if adr >= WORDS:
            return -1
        base = adr * CONFIG.bus_bytes
        lanes = range(CONFIG.bus_bytes)
        if data is None:
            return sum(self.memory[base + lane] << 8 * lane for lane in lanes)
        for lane in lanes:
            if sel >> lane & 1:
                self.memory[base + lane] = data >> 8 * lane & 0xFF
        return None

    def drive(self) -> None:
        self.bus.set("cyc", not self.idle)
        if self.waiting and len(self.in_flight) < MOST_IN_FLIGHT:
            self.asking = self.asking or self.rng.random() >= self.pauses
        else:
            self.asking = False
        self.bus.set("stb", self.asking)
        if self.asking:
            adr, data, sel = self.waiting[0]
            self.bus.set("adr", adr)
            self.bus.set("we", data is not None)
            self.bus.set("dat_w", data or 0)
            self.bus.set("sel", sel)


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Runs of words and single ones all over the memory, pauses, errors, reads given up."""
    rng = random.Random(cocotb.RANDOM_SEED)
    cycles = Cycles(dut)
    initiator = Initiator(dut, rng)
    cycles.agents.append(initiator)
    await cycles.start()
    sel = (1 << CONFIG.bus_bytes) - 1
    starts = sorted({0, WORDS - 64, *(rng.randrange(WORDS - 64) for _ in range(20))})
    pool = [start + offset for start in starts for offset in range(40)]
    initiator.waiting.extend((adr, rng.getrandbits(CONFIG.bus_bits), sel) for adr in pool)
    await cycles.until(lambda: initiator.idle)
    assert dut.initialised.value == 1
    for _ in range(150):
        initiator.pauses = rng.choice((0.0, 0.0, 0.5))
        start = rng.randrange(len(pool) - 40)
        count = rng.randrange(1, 40)
        run = pool[start : start + count] if rng.random() < 0.5 else rng.sample(pool, count)
        if rng.random() < 0.2:
            run.insert(rng.randrange(len(run)), WORDS + rng.randrange(WORDS))
        gives_up = rng.random() < 0.3
        writes = 0.0 if gives_up else rng.choice((0.0, 0.5, 1.0))
        initiator.waiting.extend(
            (
                adr,
                rng.getrandbits(CONFIG.bus_bits) if rng.random() < writes else None,
                rng.choice((sel, rng.getrandbits(CONFIG.bus_bytes))),
            )
            for adr in run
        )
        if gives_up:
            await cycles.wait(rng.randrange(40))
            initiator.give_up()
            await cycles.wait(1)
        else:
            await cycles.until(lambda: initiator.idle)
        await cycles.wait(rng.choice((1, 1, 2, 20, 300)))
    initiator.pauses = 0.0
    initiator.waiting.extend((adr, None, sel) for adr in pool)
    await cycles.until(lambda: initiator.idle)
    assert initiator.answers > 2 * len(pool)
