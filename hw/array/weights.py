"""Weight loader: shifts the next pass's weights into the array while the current one streams."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.fabric.delay import delays
from celosia.hw.memory.ports import LINE_BITS, LINES_A_CYCLE, WeightRead

__all__ = ["WeightLoader", "loader_members", "read_pairs"]


def loader_members(config: NpuConfig) -> dict[str, Any]:
    """Return the members of a weight loader, of either kind."""
    return {
        "offered": In(1),
        "offered_line": In(LINE_BITS + 1),
        "announced": Out(1),
        "moves": In(1),
        "line": In(LINE_BITS + 1),
        "ready": Out(1),
        "take": In(1),
        "walked": Out(1, init=1),
        "settled": Out(1, init=1),
        "accepted": In(1),
        "wgt": Out(WeightRead(config)),
        "load_en": Out(1),
        "load_pair": Out(range(config.rows // LINES_A_CYCLE)),
        "load_data": Out(8 * config.line_bytes).array(LINES_A_CYCLE),
        "out_of_range": Out(1),
        "out_ahead": Out(1),
    }


def read_pairs(
    m: Module,
    loader: Any,
    config: NpuConfig,
    *,
    reading: Signal,
    asked: Value,
    first: Value,
    moves_on: Value,
) -> Signal:
    """Read the lines of one pass, a pair of rows at a time, up to the first beyond the memory.

    Parameters
    ----------
    m : Module
    loader : WeightLoader or DirectWeightLoader
        Whose `wgt` and `out_of_range` are driven.
    config : NpuConfig
    reading : Signal
        Lines are being asked for; driven here.
    asked, first : Value
        Begin in the next cycle, with this line.
    moves_on : Value
        The last cycle of a pair.

    Returns
    -------
    Signal
        The pair that is asked for.
    """
    pairs = config.rows // LINES_A_CYCLE
    pair = Signal(range(pairs))
    line = Signal(LINE_BITS + 1)
    with m.If(asked):
        m.d.sync += [reading.eq(1), pair.eq(0), line.eq(first)]
    with m.Elif(moves_on & ~loader.out_of_range):
        m.d.sync += [line.eq(line + LINES_A_CYCLE), pair.eq(pair + 1)]
        with m.If(pair == pairs - 1):
            m.d.sync += reading.eq(0)
    m.d.comb += [
        loader.wgt.req.eq(reading),
        loader.wgt.line.eq(line),
        loader.out_of_range.eq(reading & (line >= config.wgt_lines)),
    ]
    return pair


class WeightLoader(Component):
    """Loads `rows` lines a pass, in the order in which the passes stream.

    Two rows of shadow weights are written 3 cycles after their lines were asked for.

    Members
    -------
    offered : In(1), offered_line : In(17)
        There is a pass that has not been taken; the first line of its weights.
    announced : Out(1)
        That pass may be taken: its weights are on their way.
    moves : In(1)
        It is taken in this cycle.
    line : In(17)
        Not looked at: of the pass at hand.
    ready : Out(1)
        The first wave of the pass that was announced may be asked for.
    take : In(1)
        The first wave of a pass is asked for in this cycle.
    walked : Out(1)
        The weights of all passes that were announced are being read, or have been.
    settled : Out(1)
        The weights of the pass that was taken last have been read.
    accepted : In(1)
        The command that has been walked gives way.
    wgt : Out(WeightRead)
    load_en, load_pair, load_data : Out
        To the array.
    out_of_range : Out(1)
        A line beyond the weight SRAM is asked for, from now on.
    out_ahead : Out(1)
        By the command that is there, not by the one that was accepted last.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(loader_members(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        begin = self._announce(m)
        reading = Signal()
        # Two cycles after a pass is announced its lines are read, a pair a cycle.
        stages = delays(m, Cat(begin, self.offered_line), 2, name="begin")
        asked, first = [begin, stages[1][0], stages[2][0]], stages[2][1:]
        pair = read_pairs(
            m, self, self._config, reading=reading, asked=asked[2], first=first, moves_on=reading
        )
        # A register: the next command waits for it.
        m.d.sync += self.walked.eq(~Cat(asked).any())
        with m.If(asked[2]):
            m.d.sync += self.out_ahead.eq(1)
        with m.Elif(self.accepted):
            m.d.sync += self.out_ahead.eq(0)
        # The lines are on the port two cycles after the request.
        arrives = delays(m, Cat(self.wgt.req, pair), 2, name="request")
        m.d.comb += [
            Cat(self.load_en, self.load_pair).eq(arrives[-1]),
            *(self.load_data[i].eq(self.wgt.data[i]) for i in range(LINES_A_CYCLE)),
        ]
        return m

    def _announce(self, m: Module) -> Signal:
        """Announce the pass that is offered, in the cycle returned, once.

        The shadow rows fill twice as fast as the wave that empties them runs down; the last pair
        must not be overtaken. So passes are rows / 2 + 1 cycles apart at least, and the four that
        the accumulator needs.
        """
        apart_cycles = self._config.min_pass_cycles
        cooldown = Signal(range(apart_cycles))
        cool = Signal(init=1)  # it is over
        begin, announced = Signal(), Signal()
        m.d.comb += [
            begin.eq(self.offered & ~announced & ~self.ready & cool),
            self.announced.eq(announced | begin),
            self.settled.eq(cool),
        ]
        with m.If(self.take):
            m.d.sync += [self.ready.eq(0), cooldown.eq(apart_cycles - 2), cool.eq(0)]
        with m.Elif(~cool):
            m.d.sync += [cooldown.eq(cooldown - 1), cool.eq(cooldown == 1)]
        with m.If(begin):
            m.d.sync += self.ready.eq(1)
        with m.If(self.moves):
            m.d.sync += announced.eq(0)
        with m.Elif(begin):
            m.d.sync += announced.eq(1)
        return begin
