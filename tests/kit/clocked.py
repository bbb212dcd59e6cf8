"""Runs a design on Amaranth's simulator, with one clock, until a bench is through."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from amaranth.sim import Simulator

__all__ = ["PERIOD_SECONDS", "Bench", "simulate"]

Bench = Callable[[Any], Coroutine[Any, Any, None]]

PERIOD_SECONDS = 1e-8
RUN_CYCLES = 64


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
