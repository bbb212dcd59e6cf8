"""Delays in a memory are those of a chain of registers."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import EnableInserter, Fragment, Module, Signal, signed
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator, SimulatorContext
from celosia.hw.fabric.delay import MEMORY_CYCLES, delays, memory_delay

RUN_CYCLES = 200
PAIR = StructLayout({"low": 3, "high": signed(6)})


class Both(Component):
    """A value by registers and by a memory."""

    def __init__(self, cycles: int, registers: int) -> None:
        self._cycles, self._registers = cycles, registers
        super().__init__({"value": In(PAIR), "expected": Out(PAIR), "late": Out(PAIR)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chain = delays(m, self.value, self._cycles, name="chain", reset_less=True)
        late = memory_delay(m, self.value, self._cycles, name="memory", registers=self._registers)
        assert late.shape() == PAIR
        m.d.comb += [self.expected.eq(chain[-1]), self.late.eq(late)]
        return m


@pytest.mark.parametrize(
    ("cycles", "registers"),
    [(2, 0), (3, 0), (4, 1), (5, 2), (7, 0), (8, 0), (13, 1), (MEMORY_CYCLES, 0), (19, 0), (35, 1)],
)
def test_a_memory_delays_as_registers_do(cycles: int, registers: int) -> None:
    """With a clock enable that falls at random, and from the first cycle on."""
    rng = random.Random(cycles)
    dut = Both(cycles, registers)
    enable = Signal()

    async def bench(ctx: SimulatorContext) -> None:
        moved = 0
        for _ in range(RUN_CYCLES):
            ctx.set(dut.value, {"low": rng.randrange(8), "high": rng.randrange(-32, 32)})
            enabled = rng.random() < 0.7
            ctx.set(enable, enabled)
            if moved >= cycles:
                assert ctx.get(dut.late) == ctx.get(dut.expected)
            moved += enabled
            await ctx.tick()
        assert moved > 2 * cycles

    simulator = Simulator(EnableInserter(enable)(dut))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("cycles", "registers"), [(1, 0), (4, 3)])
def test_a_delay_that_no_memory_has_is_refused(cycles: int, registers: int) -> None:
    m = Module()
    with pytest.raises(ValueError, match=rf"not {cycles} with {registers} registers"):
        memory_delay(m, Signal(4), cycles, name="memory", registers=registers)
    Fragment.get(m, None)  # a module that nobody takes gives a warning
