"""Tests that fail on purpose, in the bench's own task and in an agent: the runner must notice."""

from __future__ import annotations

from typing import Any

import cocotb

from tests.kit.bfm.cycles import Cycles, Pins


class Broken:
    """An agent whose check fails after a while."""

    def __init__(self, cycles: Cycles, pins: Pins) -> None:
        self._cycles, self._pins = cycles, pins

    def sample(self) -> None:
        assert self._cycles.now < 10, "on purpose"

    def drive(self) -> None:
        self._pins.set("done", 0)


@cocotb.test()
async def passes(dut: Any) -> None:
    cycles = Cycles(dut)
    await cycles.start()
    await cycles.wait(3)


@cocotb.test()
async def fails_in_the_test(dut: Any) -> None:
    cycles = Cycles(dut)
    await cycles.start()
    await cycles.wait(3)
    raise AssertionError("on purpose")


@cocotb.test()
async def fails_in_an_agent(dut: Any) -> None:
    cycles = Cycles(dut)
    cycles.agents.append(Broken(cycles, Pins(dut, "", ("done",))))
    await cycles.start()
    await cycles.wait(100)
