"""The heart of a bench: one clock, and agents that look and act once a cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Event, FallingEdge, RisingEdge

__all__ = ["Agent", "Cycles", "Pins"]

PERIOD_NS = 10
RESET_CYCLES = 4


class Pins:
    """The ports of one interface, as integers.

    Parameters
    ----------
    dut : cocotb handle
        The top level.
    prefix : str
        Name of the interface; Amaranth joins names with two underscores. Empty: the top itself.
    names : iterable of str
        Ports of the interface.
    """

    def __init__(self, dut: Any, prefix: str, names: Iterable[str]) -> None:
        joint = f"{prefix}__" if prefix else ""
        self._handles: dict[str, Any] = {name: getattr(dut, joint + name) for name in names}
        self._driven: dict[str, int] = {}

    def width(self, name: str) -> int:
        """Return the bits of a port."""
        value = self._handles[name].value
        return len(value) if hasattr(value, "__len__") else 1

    def get(self, name: str) -> int:
        """Return the value of a port, unsigned."""
        return int(self._handles[name].value)

    def set(self, name: str, value: int) -> None:
        """Drive an input; what it has already is not driven again, which costs time."""
        value = int(value)
        if self._driven.get(name) != value:
            self._driven[name] = value
            self._handles[name].value = value


class Agent(Protocol):
    """What takes part in a bench, once a cycle."""

    def sample(self) -> None:
        """Look at the settled values of this cycle, shortly before the clock edge ends it."""

    def drive(self) -> None:
        """Set the inputs of the next cycle, right after the clock edge."""


class Cycles:
    """Clock, reset and the agents.

    Values are sampled at the falling edge, when all that depends on the cycle's inputs has
    settled, and inputs change right after the rising edge. So nothing races, whatever order the
    simulator runs its callbacks in, and agents see each other's combinational handshakes.

    Parameters
    ----------
    dut : cocotb handle
        A top level with ports ``clk`` and ``rst``.
    limit : int
        Cycles after which the bench counts as hanging.

    Attributes
    ----------
    now : int
        Number of the present cycle.
    agents : list of Agent
        In the order in which they sample and drive.
    """

    def __init__(self, dut: Any, *, limit: int = 200_000) -> None:
        self.now = 0
        self.agents: list[Agent] = []
        self._dut = dut
        self._limit = limit
        self._waiting: list[tuple[Callable[[], bool], Event]] = []

    async def start(self) -> None:
        """Start the clock, reset the design, set the agents going."""
        self._dut.rst.value = 1
        Clock(self._dut.clk, PERIOD_NS, "ns").start()
        for agent in self.agents:
            agent.drive()
        for _ in range(RESET_CYCLES):
            await RisingEdge(self._dut.clk)
        self._dut.rst.value = 0
        # The reset goes through a register of the top level.
        for _ in range(2):
            await RisingEdge(self._dut.clk)
        cocotb.start_soon(self._loop())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at in every cycle, after sampling."""
        event = Event()
        self._waiting.append((condition, event))
        await event.wait()

    async def wait(self, count: int) -> None:
        """Wait for some cycles."""
        end = self.now + count
        await self.until(lambda: self.now >= end)

    async def _loop(self) -> None:
        falling, rising = FallingEdge(self._dut.clk), RisingEdge(self._dut.clk)
        while True:
            await falling
            for agent in self.agents:
                agent.sample()
            if self._waiting:
                still = []
                for condition, event in self._waiting:
                    if condition():
                        event.set()
                    else:
                        still.append((condition, event))
                self._waiting = still
            await rising
            self.now += 1
            assert self.now < self._limit, f"the bench hangs: {self.now} cycles"
            for agent in self.agents:
                agent.drive()
