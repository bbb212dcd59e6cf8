"""Weight loader: shifts the next pass's weights into the array while the current one streams."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv
from celosia.hw.control.decode import command_layout
from celosia.hw.fabric.delay import delays
from celosia.hw.memory.ports import LINE_BITS, LINES_A_CYCLE, WeightRead

__all__ = ["WeightLoader", "loader_members", "read_pairs"]


def loader_members(config: NpuConfig) -> dict[str, Any]:
    """Return the members of a weight loader, of either kind."""
    return {
        "conv": In(command_layout(Conv)),
        "start": In(1),
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

    The tiles of one oc read the same weights again. Two rows of shadow weights are written 3
    cycles after their lines were asked for.

    Members
    -------
    conv : In(command_layout(Conv))
    start : In(1)
        Second cycle of a command: the first pass is two more away.
    line : In(17)
        Not looked at: it counts lines itself, ahead of the passes.
    ready : Out(1)
        The next pass is announced: its first wave may be asked for.
    take : In(1)
        The first wave of a pass is asked for in this cycle.
    walked : Out(1)
        The command's last weights are being read: another command may come.
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
        lines_taken = Signal(LINE_BITS + 1)
        begin = Signal()
        self._elaborate_passes(m, begin, lines_taken)

        reading = Signal()
        # Two cycles after a pass is announced its lines are read, a pair a cycle.
        stages = delays(m, Cat(begin, lines_taken), 2, name="begin")
        asked, first = [begin, stages[1][0], stages[2][0]], stages[2][1:]
        pair = read_pairs(
            m, self, self._config, reading=reading, asked=asked[2], first=first, moves_on=reading
        )
        # A register: the next command waits for it.
        m.d.sync += self.walked.eq(~Cat(self._walking, *asked).any())
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

    def _elaborate_passes(self, m: Module, begin: Signal, line: Signal) -> None:
        """Announce pass after pass: `begin` for one cycle, with its first `line`.

        The shadow rows fill twice as fast as the wave that empties them runs down; the last pair
        must not be overtaken. So passes are rows / 2 + 1 cycles apart at least, and the four that
        the accumulator needs.
        """
        conv = self.conv
        apart_cycles = self._config.min_pass_cycles
        cooldown = Signal(range(apart_cycles))
        cool = Signal(init=1)  # it is over
        self._walking = walking = Signal()
        oc_line = Signal(LINE_BITS + 1)
        # Loops as in PassWalker. Where a loop ends is compared while the pass before is announced,
        # which is three cycles earlier at least.
        ic, kx, ky, oc = Signal(12), Signal(8), Signal(8), Signal(12)
        rows_left = Signal(12)
        ic_end, kx_end, ky_end, oc_end = Signal(), Signal(), Signal(), Signal()
        last_tile = Signal()
        m.d.comb += [begin.eq(walking & ~self.ready & cool), self.settled.eq(cool)]
        m.d.sync += [
            last_tile.eq(rows_left <= conv.tile_rows),
            ic_end.eq(ic == conv.n_ic - 1),
            kx_end.eq(kx == conv.n_kx - 1),
            ky_end.eq(ky == conv.n_ky - 1),
            oc_end.eq(oc == conv.n_oc - 1),
        ]
        with m.If(self.take):
            m.d.sync += [self.ready.eq(0), cooldown.eq(apart_cycles - 2), cool.eq(0)]
        with m.Elif(~cool):
            m.d.sync += [cooldown.eq(cooldown - 1), cool.eq(cooldown == 1)]
        with m.If(self.start):
            m.d.sync += [
                walking.eq(1),
                line.eq(conv.wgt_addr),
                oc_line.eq(conv.wgt_addr),
                rows_left.eq(conv.out_h),
                ic.eq(0),
                kx.eq(0),
                ky.eq(0),
                oc.eq(0),
                # The first pass may be announced in the next cycle.
                last_tile.eq(conv.out_h <= conv.tile_rows),
                ic_end.eq(conv.n_ic == 1),
                kx_end.eq(conv.n_kx == 1),
                ky_end.eq(conv.n_ky == 1),
                oc_end.eq(conv.n_oc == 1),
            ]
        with m.Elif(begin):
            m.d.sync += [self.ready.eq(1), line.eq(line + self._config.rows)]
            with m.If(~ic_end):
                m.d.sync += ic.eq(ic + 1)
            with m.Elif(~kx_end):
                m.d.sync += [ic.eq(0), kx.eq(kx + 1)]
            with m.Elif(~ky_end):
                m.d.sync += [ic.eq(0), kx.eq(0), ky.eq(ky + 1)]
            with m.Else():
                m.d.sync += [ic.eq(0), kx.eq(0), ky.eq(0)]
                with m.If(~last_tile):
                    m.d.sync += [rows_left.eq(rows_left - conv.tile_rows), line.eq(oc_line)]
                with m.Elif(~oc_end):
                    m.d.sync += [
                        rows_left.eq(conv.out_h),
                        oc.eq(oc + 1),
                        oc_line.eq(line + self._config.rows),
                    ]
                with m.Else():
                    m.d.sync += walking.eq(0)
