"""The lanes and what tells them, stage by stage, what to do."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    ADD_LEFT_SHIFT,
    SQUARE_LEFT_SHIFT,
    Rounding,
    Vector,
    VectorOp,
)
from celosia.hw.contract.needed import operation_of
from celosia.hw.contract.operations import Operation
from celosia.hw.control.decode import command_layout
from celosia.hw.fabric.delay import delays, memory_delay
from celosia.hw.vector.lane import LANE_CONTROL, Kind, Lane, RoundMode
from celosia.hw.vector.lent import lent_layout
from celosia.hw.vector.operations import flag, multiplies
from celosia.hw.vector.params import LANE_PARAMS_LAYOUT, PARAMS, place_layout
from celosia.hw.vector.scratch import Scratch
from celosia.hw.vector.uop import (
    STAGE_RESULT,
    STAGE_SCRATCH,
    STAGE_TERM,
    Constants,
    Dest,
    Source,
    beat_bits,
    uop_layout,
)

__all__ = ["MemoryCarry", "Pipeline", "RegisterCarry"]


STAGE_CARRIED = 3
"""After this stage nobody asks where a result goes before it is there: a memory carries it."""
STAGE_SIGN = 5
"""In which lanes know whether the sum of an average is below zero."""

UNITY = 1 << 30
"""The multiplier that leaves a doubled value as it was (see Lane, stage 5)."""

SQUARE_BITS = 16
"""Of a sum that is squared. A product has 31 bits less: 16 zeros below one factor, 15 below the
other."""


def _value(uop: Any, name: str) -> Value:
    return Value.cast(uop[name])


def _is(config: NpuConfig, op: Value, member: VectorOp) -> Value:
    """Return whether `op` is one of the operations, if the machine has it."""
    return op == member if config.can(operation_of(member)) else Const(0, 1)


class RegisterCarry:
    """Registers carry all of a vector's description along with it."""

    @staticmethod
    def late(m: Module, early: Any, uop: Any) -> Any:
        """Return what is known of a vector in STAGE_TERM: `uop`, which comes from registers."""
        return uop

    @staticmethod
    def signs(m: Module, early: Value) -> Value:
        """Return the signs of the lanes' averages in STAGE_TERM, given those in STAGE_SIGN."""
        name, cycles = "negative", STAGE_TERM - STAGE_SIGN
        late: Value = delays(m, early, cycles, name=name, reset_less=True)[-1]
        return late


class MemoryCarry:
    """What only the last stages need comes from a memory."""

    @staticmethod
    def late(m: Module, early: Any, uop: Any) -> Any:
        """Return what is known of a vector in STAGE_TERM, given that of STAGE_CARRIED as well."""
        names = [name for name in ("dest", "index", "last", "beat") if len(_value(early, name))]
        late = memory_delay(
            m,
            Cat(_value(early, name) for name in names),
            STAGE_TERM - STAGE_CARRIED,
            name="carried",
        )
        whole = Signal.like(uop)
        m.d.comb += [
            whole.eq(uop),
            Cat(_value(whole, name) for name in names).eq(late),
        ]
        return whole

    @staticmethod
    def signs(m: Module, early: Value) -> Value:
        """Return the signs of the lanes' averages in STAGE_TERM, given those in STAGE_SIGN."""
        cycles = STAGE_TERM - STAGE_SIGN
        late: Value = memory_delay(m, early, cycles, name="negative", registers=1)
        return late


class Pipeline(Component):
    """Latency 15 cycles from `issue` to `write`; one beat a cycle, never held up.

    Parameters
    ----------
    config : NpuConfig
    lane : type of Lane
    carry : type of RegisterCarry or MemoryCarry
    scratch : type of Scratch

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
        Where they are for the beats in the stages that use them, if they are in memories.
    copy_bias, copy_left, copy_mult, copy_right : Out(1)
        The first vector with new parameters is in the stage before the one of each.
    table_index : Out, table_beat : Out, table_data : In
        Table look-up of each lane, in the stage of the lanes' operands and the two before it.
    active : Out(1)
        There is a vector in it, or one comes.
    writes : Out(1)
        There is a `write` in the next cycle.
    write : Out(1)
        `result` is a line of the result, the one after the line of the last `write`.
    write_last : Out(1)
        It is the last line of the command.
    lent : In(lent_layout), high : Out(signed(32)), element : Out(8)
        Not used: see :class:`celosia.hw.vector.lending.LendingPipeline`.
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        lane: type[Lane] = Lane,
        carry: type[RegisterCarry | MemoryCarry] = RegisterCarry,
        scratch: type[Scratch] = Scratch,
    ) -> None:
        self._config = config
        self._lane, self._carry, self._scratch = lane, carry, scratch
        self._operands = lane.OPERAND_STAGE
        lanes = config.vector_lanes
        super().__init__(
            {
                "lent": In(lent_layout(config)),
                "high": Out(signed(32)),
                "element": Out(8),
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
                "writes": Out(1),
                "write": Out(1),
                "write_last": Out(1),
                "result": Out(8 * config.cols),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._config.vector_lanes
        m.submodules.scratch_middle = scratch_middle = self._scratch(width_bits=8 * lanes)
        m.submodules.scratch_a = scratch_a = self._scratch(width_bits=32 * lanes)
        m.submodules.scratch_b = scratch_b = self._scratch(width_bits=32 * lanes)

        self._elaborate_stages(m)
        control = Signal(LANE_CONTROL)
        # In stage 2: the first channel of the line is taken for all.
        self._spread = Signal(reset_less=True)
        self._elaborate_control(m, control)
        act = self._beat_of_line(m)
        if self._config.can(Operation.SPREAD):
            act = Mux(self._spread, act[:8].replicate(lanes), act)
        results = Signal(8 * lanes)
        self._collect(m, results)

        negative = Signal(lanes)
        negative_late = self._carry.signs(m, negative)
        for j in range(lanes):
            m.submodules[f"lane_{j}"] = lane = self._lane(beats=self._config.vector_beats)
            self._lend(m, lane, j)
            m.d.comb += [
                lane.beat.eq(self._uops[3].beat),
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
                negative[j].eq(lane.negative),
                lane.negative_late.eq(negative_late[j]),
                results.word_select(j, 8).eq(lane.result),
                scratch_middle.write_data.word_select(j, 8).eq(lane.result),
                scratch_a.write_data.word_select(j, 32).eq(lane.term),
                scratch_b.write_data.word_select(j, 32).eq(lane.term),
            ]

        for scratch, dests, stage in (
            (scratch_middle, (Dest.MIDDLE,), STAGE_RESULT),
            (scratch_a, (Dest.TERM_A, Dest.TERMS), STAGE_TERM),
            (scratch_b, (Dest.TERM_B, Dest.TERMS), STAGE_TERM),
        ):
            uop = self._uops[stage]
            goes_there = reduce(or_, (uop.dest == dest for dest in dests))
            m.d.comb += [
                scratch.read_index.eq(self._uops[STAGE_SCRATCH].index),
                scratch.write.eq(self._valid[stage] & goes_there),
                scratch.write_index.eq(uop.index),
            ]
        # No beat adds the second term in the cycle in which an earlier one is multiplied by it.
        with m.If(control.term_operands):
            m.d.comb += scratch_b.read_index.eq(self._uops[self._operands].index)
        return m

    def _beat_of_line(self, m: Module) -> Value:
        """Keep a line of the activation SRAM for the beats after its first one."""
        config = self._config
        beat = self._uops[STAGE_SCRATCH].beat
        if config.vector_beats == 1:
            return self.act
        kept = Signal(8 * config.cols, reset_less=True)
        with m.If(beat == 0):
            m.d.sync += kept.eq(self.act)
        later = kept.word_select(self._beat_in_line(beat), 8 * config.vector_lanes)
        return Mux(beat == 0, self.act[: 8 * config.vector_lanes], later)

    def _beat_in_line(self, beat: Value) -> Value:
        """Return which of the line's beats has the channels that are wanted."""
        return Mux(self._spread, 0, beat)

    def _lend(self, m: Module, lane: Lane, place: int) -> None:
        """Connect a lane with who borrows of it."""

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
            if stage == STAGE_TERM:
                uop = self._carry.late(m, self._uops[STAGE_CARRIED], uop)
            self._valid.append(valid)
            self._uops.append(uop)
        m.d.comb += self.active.eq(Cat(*self._valid).any())

        m.d.comb += self.table_beat.eq(self._uops[self._operands - 1].beat)
        for name, stage in zip(PARAMS, (2, 3, self._operands, 9), strict=True):
            uop = self._uops[stage]
            copy = getattr(self, f"copy_{name}")
            m.d.comb += [
                copy.eq(self._valid[stage - 1] & self._uops[stage - 1].new_oc),
                self.params_place[name].beat.eq(uop.beat),
                self.params_place[name].half.eq(uop.params_half),
            ]
        # Of stage STAGE_RESULT, decided in the one before: a write is what others must wait for.
        ahead = self._uops[STAGE_RESULT - 1]
        writes = self._valid[STAGE_RESULT - 1] & (ahead.dest == Dest.LINE)
        if self._config.vector_beats > 1:
            writes = writes & (ahead.beat == self._config.vector_beats - 1)
        m.d.comb += self.writes.eq(writes)
        m.d.sync += [
            self.write.eq(writes),
            self.write_last.eq(writes & ahead.last),
        ]

    def _elaborate_control(self, m: Module, control: Signal) -> None:
        """Registered selections, made one stage before the one that uses them."""
        command, uops, operands = self.command, self._uops, self._operands
        config = self._config
        # Of the command, which is there some cycles before its first vector: from registers.
        is_mul, is_square = Signal(reset_less=True), Signal(reset_less=True)
        kind = Signal(Kind, reset_less=True)
        m.d.sync += [
            is_mul.eq(_is(config, command.op, VectorOp.MUL)),
            is_square.eq(_is(config, command.op, VectorOp.SQUARED_DIFFERENCE)),
            kind.eq(Kind.SUM),
        ]
        with m.Switch(command.op):
            with m.Case(VectorOp.AVERAGE):
                m.d.sync += kind.eq(Kind.AVERAGE)
            with m.Case(VectorOp.MAX):
                m.d.sync += kind.eq(Kind.MAX)
            with m.Case(VectorOp.TABLE):
                m.d.sync += kind.eq(Kind.TABLE)

        def registered(name: str, stage: int | str) -> Signal:
            """Register that feeds a member of the control word, set in the stage before."""
            member = f"{name}_{stage}"
            signal = Signal(LANE_CONTROL[member].shape, name=member, reset_less=True)
            m.d.comb += control[member].eq(signal)
            return signal

        def is_channel(stage: int) -> Signal:
            return uops[stage].constants == Constants.CHANNEL

        offset, left = registered("offset", 2), registered("left", 3)
        m.d.sync += [
            offset.eq(0),
            registered("act", 2).eq(uops[1].source == Source.ACT),
        ]
        with m.Switch(uops[1].constants):
            with m.Case(Constants.TERM_A):
                m.d.sync += offset.eq(-command.zero_a)
            with m.Case(Constants.TERM_B):
                m.d.sync += offset.eq(-command.zero_b)
            if config.can(Operation.MUL):
                with m.Case(Constants.PRODUCT):
                    m.d.sync += offset.eq(Mux(is_mul, -command.zero_a, 0))
        m.d.sync += left.eq(0)
        with m.Switch(uops[2].constants):
            with m.Case(Constants.TERM_A, Constants.TERM_B):
                m.d.sync += left.eq(Mux(is_square, SQUARE_LEFT_SHIFT, ADD_LEFT_SHIFT))
            if multiplies(config):
                with m.Case(Constants.PRODUCT):
                    m.d.sync += left.eq(Mux(is_square, 1, ADD_LEFT_SHIFT))
            if config.can(Operation.SQUARED_DIFFERENCE):
                with m.Case(Constants.PASS):
                    m.d.sync += left.eq(Mux(is_square, SQUARE_BITS, 0))
        with m.If(kind == Kind.MAX):
            # For lanes that have a maximum where a sum is: it comes doubled.
            m.d.sync += left.eq(1)
        channel_9 = registered("channel", 9)
        m.d.sync += [
            registered("channel", 3).eq(is_channel(2) & ~command.shared),
            registered("channel", "operands").eq(is_channel(operands - 1) & ~command.shared),
            channel_9.eq(is_channel(8) & ~command.shared),
        ]

        mult, right = registered("mult", "operands"), registered("right", 9)
        m.d.sync += [mult.eq(UNITY), right.eq(0)]
        for constants, mult_value, right_value in (
            (Constants.CHANNEL, command.mult_a, command.shift_a),  # shared
            (Constants.TERM_A, command.mult_a, command.shift_a),
            (Constants.TERM_B, command.mult_b, command.shift_b),
            (Constants.OUTPUT, command.mult_o, command.shift_o),
        ):
            with m.If(uops[operands - 1].constants == constants):
                m.d.sync += mult.eq(mult_value)
            with m.If(uops[8].constants == constants):
                m.d.sync += right.eq(right_value)

        rounds_down = kind != Kind.SUM
        if multiplies(config):
            term = registered("term", "operands")
            m.d.sync += [
                term.eq(uops[operands - 1].constants == Constants.PRODUCT),
                # Both terms are added once: to the difference that is squared.
                registered("alone", 2).eq(
                    (is_mul | is_square) & (uops[1].constants != Constants.PASS)
                ),
            ]
            with m.If((uops[8].constants == Constants.PRODUCT) & is_mul):
                m.d.sync += right.eq(command.shift_a)
            rounds_down = rounds_down | (uops[9].constants == Constants.PRODUCT)
        mode_10, mode_11 = registered("mode", 10), registered("mode", 11)
        m.d.sync += [mode_10.eq(RoundMode.DOUBLE), mode_11.eq(mode_10)]
        with m.If(rounds_down):
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

        # The second of a pair follows the first, whatever its constants are.
        of_b = (uops[1].constants == Constants.TERM_B) | (
            flag(command, "pair", config) & ~uops[1].first
        )
        m.d.sync += self._spread.eq(flag(command, "b_oc", config) & of_b)
        m.d.comb += [
            control.least.eq(flag(command, "least", config)),
            control.source_2.eq(uops[2].source),
            control.valid_3.eq(self._valid[3]),
            control.accumulate_3.eq(~uops[3].first),
            control.half.eq(command.half),
            control.kind.eq(kind),
        ]
        lent = {"channel": channel_9, "right": right, "mode": mode_10}
        self._control_lent(m, kind, lent | {"zero": zero, "min": least, "max": most})

    def _control_lent(self, m: Module, kind: Signal, registers: dict[str, Signal]) -> None:
        """Override what lanes are told, for who borrows of them."""
