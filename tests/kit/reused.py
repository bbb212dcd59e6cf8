"""A design on Amaranth's simulator that several tests run, each from its reset values.

To elaborate and compile a design takes as long as a thousand cycles of it.
"""

from __future__ import annotations

from typing import Any

from amaranth.sim import Simulator

from tests.kit.clocked import PERIOD_SECONDS, Bench

__all__ = ["ReusedDesign"]


class ReusedDesign:
    """A design with one clock."""

    def __init__(self, design: Any) -> None:
        self._design = design
        self._simulator: Simulator | None = None
        self._bench: Bench | None = None

    def run(self, bench: Bench) -> None:
        """Run `bench` to its end, with every signal and memory as after power-on."""
        simulator, self._simulator, self._bench = self._simulator, None, bench
        if simulator is None:
            simulator = Simulator(self._design)
            simulator.add_clock(PERIOD_SECONDS)
            simulator.add_testbench(self._current)
        else:
            simulator.reset()
        simulator.run()
        # After a bench that fails the next one begins with a new simulator.
        self._simulator = simulator

    async def _current(self, ctx: Any) -> None:
        assert self._bench is not None
        await self._bench(ctx)
