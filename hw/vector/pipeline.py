"""The lanes and what tells them, stage by stage, what to do."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.config import NpuConfig
from celosia.hw.control.decode import command_layout
from celosia.hw.isa import Rounding, Vector, VectorOp
from celosia.hw.vector.lane import LANE_CONTROL_LAYOUT, Kind, Lane, RoundMode
from celosia.hw.vector.params import LANE_PARAMS_LAYOUT, PARAM_STAGES, place_layout
from celosia.hw.vector.scratch import Scratch
from celosia.hw.vector.uop import (
    STAGE_RESULT,
    STAGE_SCRATCH,
    STAGE_TERM,
    Constants,
    Dest,
    beat_bits,
    uop_layout,
)

__all__ = ["Pipeline"]

ADD_LEFT_SHIFT = 20
"""TFLite's ADD works on inputs shifted left by this much."""

UNITY = 1 << 30
"""The multiplier that leaves a doubled value as it was (see Lane, stage 5)."""


class Pipeline(Component):
    """Latency 15 cycles from `issue` to `write`; one beat a cycle, never held up.

    Members
    -------
    command : In
        Stable while anything is in the pipeline.
    issue : In(1), uop : In(uop_layout)
        Stage 0.
    acc : In(32 * vector_lanes)
        Data of the accumulator, in stage 2: the beat's channels.
    act : In(8 * cols)
        The activation SRAM's line, in stage 2 of a vector's first beat.
    params : In
        Parameters of the lanes.
    params_place : Out
        Where they are for the beats in the stages of :data:`PARAM_STAGES`, if they are in memories.
    copy_bias, copy_left, copy_mult, copy_right : Out(1)
        The first vector with new parameters is in stage 1, 2, 4, 8.
    table_index : Out, table_beat : Out, table_data : In
        Table look-up of each lane, stages 3, 4 and 5.
    active : Out(1)
        There is a vector in it, or one comes.
    write : Out(1)
        `result` is a line of the result, the one after the line of the last `write`.
    write_last : Out(1)
        It is the last line of the command.
    borrow, borrow_x, borrow_m : In, product : Out
        Of a compact machine: the first lane's multiplier, for softmax.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        lanes = config.vector_lanes
        lending = {
            "borrow": In(1),
            "borrow_x": In(signed(32)),
            "borrow_m": In(signed(32)),
            "product": Out(signed(33)),
        }
        super().__init__(
            (lending if config.compact else {})
            | {
                "command": In(command_layout(Vector)),
                "issue": In(1),
                "uop": In(uop_layout(config)),
                "acc": In(32 * lanes),
                "act": In(8 * config.cols),
                "params": In(data.ArrayLayout(LANE_PARAMS_LAYOUT, lanes)),
                "params_place": Out(place_layout(config)),
                "copy_bias": Out(1),
                "copy_left": Out(1),
                "copy_mult": Out(1),
                "copy_right": Out(1),
                "table_index": Out(data.ArrayLayout(8, lanes)),
                "table_beat": Out(beat_bits(config)),
                "table_data": In(data.ArrayLayout(8, lanes)),
                "active": Out(1),
                "write": Out(1),
                "write_last": Out(1),
                "result": Out(8 * config.cols),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._config.vector_lanes
        m.submodules.scratch_middle = scratch_middle = Scratch(width_bits=8 * lanes)
        m.submodules.scratch_a = scratch_a = Scratch(width_bits=32 * lanes)
        m.submodules.scratch_b = scratch_b = Scratch(width_bits=32 * lanes)

        self._elaborate_stages(m)
        control = Signal(LANE_CONTROL_LAYOUT)
        self._elaborate_control(m, control)
        act = self._beat_of_line(m)
        results = Signal(8 * lanes)
        self._collect(m, results)

        for j in range(lanes):
            lends = self._config.compact and j == 0
            lane = Lane(beats=self._config.vector_beats, lends=lends)
            m.submodules[f"lane_{j}"] = lane
            if lends:
                m.d.comb += [
                    lane.borrow.eq(self.borrow),
                    lane.borrow_x.eq(self.borrow_x),
                    lane.borrow_m.eq(self.borrow_m),
                    self.product.eq(lane.product),
                ]
            m.d.comb += [
                lane.control.eq(control),
                lane.acc.eq(self.acc.word_select(j, 32)),
                lane.act.eq(act.word_select(j, 8)),
                lane.middle.eq(scratch_middle.read_data.word_select(j, 8)),
                lane.term_a.eq(scratch_a.read_data.word_select(j, 32)),
                lane.term_b.eq(scratch_b.read_data.word_select(j, 32)),
                lane.bias.eq(self.params[j].bias),
                lane.left.eq(self.params[j].left),
                lane.mult.eq(self.params[j].mult),
                lane.right.eq(self.params[j].right),
                self.table_index[j].eq(lane.table_index),
                lane.table_value.eq(self.table_data[j]),
                results.word_select(j, 8).eq(lane.result),
                scratch_middle.write_data.word_select(j, 8).eq(lane.result),
                scratch_a.write_data.word_select(j, 32).eq(lane.term),
                scratch_b.write_data.word_select(j, 32).eq(lane.term),
            ]

        for scratch, dest, stage in (
            (scratch_middle, Dest.MIDDLE, STAGE_RESULT),
            (scratch_a, Dest.TERM_A, STAGE_TERM),
            (scratch_b, Dest.TERM_B, STAGE_TERM),
        ):
            uop = self._uops[stage]
            m.d.comb += [
                scratch.read_index.eq(self._uops[STAGE_SCRATCH].index),
                scratch.write.eq(self._valid[stage] & (uop.dest == dest)),
                scratch.write_index.eq(uop.index),
            ]
        return m

    def _beat_of_line(self, m: Module) -> Signal:
        """Keep a line of the activation SRAM for the beats after its first one."""
        act = Signal(8 * self._config.vector_lanes)
        if self._config.vector_beats == 1:
            m.d.comb += act.eq(self.act)
            return act
        kept = Signal(8 * self._config.cols, reset_less=True)
        beat = self._uops[STAGE_SCRATCH].beat
        with m.If(beat == 0):
            m.d.comb += act.eq(self.act)
            m.d.sync += kept.eq(self.act)
        with m.Else():
            m.d.comb += act.eq(kept.word_select(beat, len(act)))
        return act

    def _collect(self, m: Module, results: Signal) -> None:
        """Put the beats of a line together."""
        line = Cat(results)
        if self._config.vector_beats > 1:
            earlier = Signal(len(self.result) - len(results), reset_less=True)
            line = Cat(earlier, results)
            with m.If(self._valid[STAGE_RESULT]):
                m.d.sync += earlier.eq(line[len(results) :])
        m.d.comb += self.result.eq(line)

    def _elaborate_stages(self, m: Module) -> None:
        """Carry each vector's description along with it."""
        self._valid = [self.issue]
        self._uops = [self.uop]
        for stage in range(1, STAGE_RESULT + 1):
            valid = Signal(name=f"valid_{stage}")
            uop = Signal(uop_layout(self._config), name=f"uop_{stage}", reset_less=True)
            m.d.sync += [valid.eq(self._valid[-1]), uop.eq(self._uops[-1])]
            if stage == 4:
                # Only a window's last element, whose sum is complete, has a result.
                m.d.sync += valid.eq(self._valid[-1] & self._uops[-1].emit)
            self._valid.append(valid)
            self._uops.append(uop)
        m.d.comb += self.active.eq(Cat(*self._valid).any())

        for copy, stage in (
            (self.copy_bias, 1),
            (self.copy_left, 2),
            (self.copy_mult, 4),
            (self.copy_right, 8),
        ):
            m.d.comb += copy.eq(self._valid[stage] & self._uops[stage].new_oc)
        m.d.comb += self.table_beat.eq(self._uops[4].beat)
        for name, stage in PARAM_STAGES.items():
            uop = self._uops[stage]
            m.d.comb += [
                self.params_place[name].beat.eq(uop.beat),
                self.params_place[name].half.eq(uop.params_half),
            ]
        # Of stage STAGE_RESULT, decided in the one before: a write is what others must wait for.
        ahead = self._uops[STAGE_RESULT - 1]
        writes = self._valid[STAGE_RESULT - 1] & (ahead.dest == Dest.LINE)
        if self._config.vector_beats > 1:
            writes = writes & (ahead.beat == self._config.vector_beats - 1)
        m.d.sync += [
            self.write.eq(writes),
            self.write_last.eq(writes & ahead.last),
        ]

    def _elaborate_control(self, m: Module, control: Signal) -> None:
        """Registered selections, made one stage before the one that uses them."""
        command, uops = self.command, self._uops

        kind = Signal(Kind)
        with m.Switch(command.op):
            with m.Case(VectorOp.AVERAGE):
                m.d.comb += kind.eq(Kind.AVERAGE)
            with m.Case(VectorOp.MAX):
                m.d.comb += kind.eq(Kind.MAX)
            with m.Case(VectorOp.TABLE):
                m.d.comb += kind.eq(Kind.TABLE)

        def registered(name: str, stage: int) -> Signal:
            """Register that feeds a member of the control word, set in the stage before."""
            member = f"{name}_{stage}"
            signal = Signal(LANE_CONTROL_LAYOUT[member].shape, name=member, reset_less=True)
            m.d.comb += control[member].eq(signal)
            return signal

        def is_channel(stage: int) -> Signal:
            return uops[stage].constants == Constants.CHANNEL

        offset, left = registered("offset", 2), registered("left", 3)
        m.d.sync += offset.eq(0)
        with m.Switch(uops[1].constants):
            with m.Case(Constants.TERM_A):
                m.d.sync += offset.eq(-command.zero_a)
            with m.Case(Constants.TERM_B):
                m.d.sync += offset.eq(-command.zero_b)
        term_in_2 = (uops[2].constants == Constants.TERM_A) | (
            uops[2].constants == Constants.TERM_B
        )
        m.d.sync += [
            left.eq(Mux(term_in_2, ADD_LEFT_SHIFT, 0)),
            registered("channel", 3).eq(is_channel(2) & ~command.shared),
            registered("channel", 5).eq(is_channel(4) & ~command.shared),
            registered("channel", 9).eq(is_channel(8) & ~command.shared),
        ]

        mult, right = registered("mult", 5), registered("right", 9)
        m.d.sync += [mult.eq(UNITY), right.eq(0)]
        for constants, mult_value, right_value in (
            (Constants.CHANNEL, command.mult_a, command.shift_a),  # shared
            (Constants.TERM_A, command.mult_a, command.shift_a),
            (Constants.TERM_B, command.mult_b, command.shift_b),
            (Constants.OUTPUT, command.mult_o, command.shift_o),
        ):
            with m.If(uops[4].constants == constants):
                m.d.sync += mult.eq(mult_value)
            with m.If(uops[8].constants == constants):
                m.d.sync += right.eq(right_value)

        mode_10, mode_11 = registered("mode", 10), registered("mode", 11)
        m.d.sync += [mode_10.eq(RoundMode.DOUBLE), mode_11.eq(mode_10)]
        with m.If(kind != Kind.SUM):
            m.d.sync += mode_10.eq(RoundMode.FLOOR)
        with m.Elif(is_channel(9) & (command.rounding == Rounding.SINGLE)):
            m.d.sync += mode_10.eq(RoundMode.SINGLE)

        zero, least, most = registered("zero", 13), registered("min", 14), registered("max", 14)
        m.d.sync += [zero.eq(0), least.eq(command.act_min), most.eq(command.act_max)]
        with m.If(is_channel(12)):
            m.d.sync += zero.eq(command.zero_a)
        with m.Elif((uops[12].constants == Constants.OUTPUT) & (kind == Kind.SUM)):
            m.d.sync += zero.eq(command.zero_out)
        with m.If(uops[13].dest == Dest.MIDDLE):
            m.d.sync += [least.eq(command.mid_min), most.eq(command.mid_max)]
        with m.Elif(kind == Kind.TABLE):
            m.d.sync += [least.eq(-128), most.eq(127)]

        m.d.comb += [
            control.source_2.eq(uops[2].source),
            control.valid_3.eq(self._valid[3]),
            control.accumulate_3.eq(~uops[3].first),
            control.half_4.eq(command.half),
            control.kind_4.eq(kind),
            control.kind_5.eq(kind),
        ]
