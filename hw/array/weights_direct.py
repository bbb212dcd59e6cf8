"""Weight loader of machines without shadow weights: a pass's rows take theirs from the memory."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, Out
from celosia.hw.array.weights import loader_members, read_pairs
from celosia.hw.contract.config import NpuConfig
from celosia.hw.fabric.delay import delays
from celosia.hw.memory.ports import LINE_BITS, LINES_A_CYCLE

__all__ = ["DirectWeightLoader"]


class DirectWeightLoader(Component):
    """Reads a pass's `rows` lines as its first wave runs down the rows, each pair for two cycles.

    Members
    -------
    offered : In(1), offered_line : In(17), moves : In(1)
        Not looked at: it waits for a pass that has begun.
    announced : Out(1)
        Always 1.
    ready : Out(1)
        The next pass may begin: the last row of the one before has its weights by then.
    take : In(1)
        The first wave of a pass is asked for in this cycle.
    line : In(17)
        First line of the pass's weights, in that cycle.
    walked : Out(1)
        Always 1: it walks no loops.
    settled : Out(1)
        The weights of the pass that was taken last have been read, but for two pairs.
    accepted : In(1)
        Not looked at.
    wgt : Out(WeightRead)
    load_en, load_pair : Out
        Always 0: rows take `load_data` as a wave reaches them.
    load_data : Out
        To the array.
    out_of_range : Out(1)
        A line beyond the weight SRAM is asked for, from now on.
    out_ahead : Out(1)
        Always 0: it asks for what a pass has been taken for.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(loader_members(config) | {"ready": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cooldown = Signal(range(self._config.min_pass_cycles))
        first_line = Signal(LINE_BITS + 1, reset_less=True)
        with m.If(self.take):
            m.d.sync += [
                self.ready.eq(0),
                cooldown.eq(self._config.min_pass_cycles - 1),
                first_line.eq(self.line),
            ]
        with m.Elif(~self.ready):
            m.d.sync += [cooldown.eq(cooldown - 1), self.ready.eq(cooldown == 1)]

        # A wave reaches row 0 five cycles after it was asked for, and the rows below one after
        # another; a line takes two cycles from the memory.
        asked = delays(m, self.take, 2, name="take")
        reading, second_row = Signal(), Signal()
        m.d.sync += second_row.eq(reading & ~second_row)
        read_pairs(
            m,
            self,
            self._config,
            reading=reading,
            asked=asked[2],
            first=first_line,
            moves_on=reading & second_row,
        )
        m.d.comb += [self.load_data[i].eq(self.wgt.data[i]) for i in range(LINES_A_CYCLE)]
        m.d.comb += [self.announced.eq(1), self.walked.eq(1), self.settled.eq(self.ready)]
        return m
