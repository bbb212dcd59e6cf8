"""A pipeline whose first lane, and whose lines, softmax borrows."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from celosia.hw.vector.lane import Kind, Lane, RoundMode
from celosia.hw.vector.pipeline import Pipeline
from celosia.hw.vector.uop import STAGE_RESULT, STAGE_SCRATCH

__all__ = ["LendingPipeline"]


class LendingPipeline(Pipeline):
    """A pipeline that softmax borrows: for a `lane` that lends.

    Members
    -------
    lent : In(lent_layout)
        What softmax wants.
    high : Out(signed(32)), element : Out(8)
        What it gets: the rounded product of the first lane, a byte of the line that is kept.
    """

    def _beat_of_line(self, m: Module) -> Value:
        """Keep a line also for softmax."""
        config = self._config
        lanes, beat, lent = config.vector_lanes, self._uops[STAGE_SCRATCH].beat, self.lent
        lane_bits = (lanes - 1).bit_length()
        kept = Signal(8 * config.cols, reset_less=True)
        with m.If(Mux(lent.valid, lent.keep, beat == 0)):
            m.d.sync += kept.eq(self.act)
        later = kept
        if config.vector_beats > 1:
            word = Mux(lent.valid, lent.place >> lane_bits, self._beat_in_line(beat))
            later = kept.word_select(word, 8 * lanes)
        m.d.comb += self.element.eq(later.word_select(lent.place[:lane_bits], 8))
        return Mux(beat == 0, self.act[: 8 * lanes], later)

    def _collect(self, m: Module, results: Signal) -> None:
        """Do the same with the bytes of softmax, which come one by one."""
        lent = self.lent
        earlier = Signal(len(self.result) - 8, reset_less=True)
        line = Cat(earlier[: len(self.result) - len(results)], results)
        bytes_line = Cat(earlier, Mux(lent.real, results[:8], 0))
        m.d.comb += self.result.eq(Mux(lent.pack, bytes_line, line))
        with m.If(self._valid[STAGE_RESULT] | lent.pack):
            # What is above the beats before the last one is not looked at.
            m.d.sync += earlier.eq(bytes_line[8:])
        with m.If(~lent.pack & self._valid[STAGE_RESULT]):
            before = line[len(results) :]
            m.d.sync += earlier[: len(before)].eq(before)

    def _lend(self, m: Module, lane: Lane, place: int) -> None:
        if place == 0:
            m.d.comb += [
                lane.borrow.eq(self.lent.valid),
                lane.borrow_x.eq(self.lent.x),
                lane.borrow_m.eq(self.lent.m),
                self.high.eq(lane.high),
            ]

    def _control_lent(self, m: Module, kind: Signal, registers: dict[str, Signal]) -> None:
        with m.If(self.lent.valid):
            m.d.sync += [
                kind.eq(Kind.SUM),
                registers["mode"].eq(RoundMode.UP),
                registers["channel"].eq(0),
                registers["right"].eq(self.lent.right),
                registers["zero"].eq(-128),
                registers["min"].eq(-128),
                registers["max"].eq(127),
            ]
