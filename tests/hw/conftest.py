"""What the gateware's tests share: configurations, models of a bus and of memories."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth.sim import Simulator
from celosia.hw.contract.config import KIB, NpuConfig

Bench = Callable[[Any], Coroutine[Any, Any, None]]

PERIOD_SECONDS = 1e-8
RUN_CYCLES = 64


def make_config(bus_bytes: int, n: int, **changes: int) -> NpuConfig:
    """Return a small configuration with a line of `n` bytes."""
    values: dict[str, int] = {
        "rows": n,
        "cols": n,
        "bus_bits": 8 * bus_bytes,
        "act_bytes": 8 * KIB,
        "wgt_bytes": 4 * KIB,
        "param_bytes": 2 * KIB,
        "acc_depth": 64,
        "queue_depth": 4,
    }
    return NpuConfig(name="test", **(values | changes))


CONFIGS = {
    f"bus{bus_bytes}_line{n}": make_config(bus_bytes, n)
    for bus_bytes, n in ((4, 4), (4, 8), (8, 8), (16, 16))
}


@pytest.fixture(params=list(CONFIGS.values()), ids=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> NpuConfig:
    """One after the other: every ratio of bus word and line that matters."""
    value: NpuConfig = request.param
    return value


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


def simulate(
    dut: Any, bench: Bench, *, processes: list[Bench] | None = None, limit_cycles: int = 20_000
) -> int:
    """Run `bench` with the processes in the background; return the cycles it took.

    Raises
    ------
    AssertionError
        If `bench` is not through after `limit_cycles`.
    """
    simulator = Simulator(dut)
    simulator.add_clock(PERIOD_SECONDS)
    finished: list[bool] = []
    cycles = 0

    async def main(ctx: Any) -> None:
        await bench(ctx)
        finished.append(True)

    async def clock(ctx: Any) -> None:
        nonlocal cycles
        while True:
            await ctx.tick()
            cycles += 1

    simulator.add_testbench(main)
    for process in [*(processes or []), clock]:
        simulator.add_process(process)
    for end in range(RUN_CYCLES, limit_cycles + RUN_CYCLES, RUN_CYCLES):
        simulator.run_until(PERIOD_SECONDS * end)
        if finished:
            return cycles
    raise AssertionError(f"not through after {limit_cycles} cycles")


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Models and helpers, by name."""
    return SimpleNamespace(
        WishboneMemory=WishboneMemory, simulate=simulate, make_config=make_config, configs=CONFIGS
    )
