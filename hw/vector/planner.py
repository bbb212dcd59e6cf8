"""Plans the vectors of a `Vector` command: loops, phases, addresses."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw import parts
from celosia.hw.contract.config import ACT_BANKS, NpuConfig
from celosia.hw.contract.isa import Vector, VectorOp
from celosia.hw.contract.needed import operation_of
from celosia.hw.contract.operations import Operation
from celosia.hw.control.decode import command_layout
from celosia.hw.memory.ports import bank_of
from celosia.hw.vector.operations import flag, is_any
from celosia.hw.vector.uop import (
    GROUP,
    GROUP_BITS,
    HAZARD,
    LINE_SUM_BITS,
    Constants,
    Dest,
    Source,
    beat_bits,
    uop_layout,
)

__all__ = ["Phase", "Planner", "step_layout"]


class Phase(enum.Enum, shape=unsigned(3)):
    """Steps of a group of vectors, in this order.

    REQUANT is the first alone; AVERAGE, MAX and TABLE are TERM_A alone; ADD and MUL begin with
    TERM_B, SQUARED_DIFFERENCE does as well and is alone in going through DIFFERENCE and SQUARE;
    REQUANT_ADD goes through the other four. With TERM_B between them, even groups of seven vectors
    can go from MIDDLE to TERM_A without a pause.
    """

    MIDDLE = 0
    TERM_B = 1
    TERM_A = 2
    DIFFERENCE = 3
    SQUARE = 4
    TOTAL = 5


def step_layout(config: NpuConfig) -> data.StructLayout:
    """Return the layout of one vector, or one element of a window, to be issued."""
    return data.StructLayout(
        {
            "uop": uop_layout(config),
            # Line of the activation SRAM, its bank if it is wanted; wanted, but does not exist.
            "line": LINE_SUM_BITS,
            "bank": ACT_BANKS,
            "reads_act": 1,
            "outside": 1,
            "reads_acc": 1,
            # What earlier vectors wrote to a scratch memory must have come through the pipeline.
            "reads_scratch": 1,
            # Cycles until such a one may follow this one, if it is to set them; whether there are
            # none.
            "sets_pause": 1,
            "pause": range(HAZARD),
            "no_pause": 1,
            # Last one of its accumulator half.
            "tile_end": 1,
            # Takes a block of parameters, and there is another one behind it.
            "reload": 1,
        }
    )


class Planner(Component):
    """One step a cycle, whatever the memories do.

    Members
    -------
    command : In
        Stable from `start` on until the last vector has been written.
    start : In(1)
        Begin; the counts of the command have been checked.
    o : Out(stream of step_layout)
        In order; the first one in the cycle after the start.
    grouped : Out(1)
        Groups of vectors of this command go through several phases.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(command_layout(Vector)),
                "start": In(1),
                "o": Out(stream.Signature(step_layout(config))),
                "grouped": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker_a = self._walker_a = parts.walker(self._config, windowed=True)
        m.submodules.walker_b = self._walker_b = parts.second_walker(self._config)

        # What kind of command it is, decoded once.
        self._from_acc = Signal()
        # In MUL terms of A are products with those of B; a pair takes turns reading A and B.
        self._is_mul, self._is_square = Signal(), Signal()
        self._is_pair = Signal()
        op = self.command.op
        with m.If(self.start):
            m.d.sync += [
                self.grouped.eq(is_any(op, lambda op: op.has_b)),
                self._from_acc.eq(is_any(op, lambda op: op.reads_acc)),
            ]
            m.d.sync += self._is_pair.eq(flag(self.command, "pair", self._config))
            for signal, member in (
                (self._is_mul, VectorOp.MUL),
                (self._is_square, VectorOp.SQUARED_DIFFERENCE),
            ):
                if self._config.can(operation_of(member)):
                    m.d.sync += signal.eq(op == member)

        self._running = Signal()
        self._step = Signal()
        self._phase = Signal(Phase)
        # Beside the phase: addresses depend on it.
        self._in_a = Signal()
        self._in_b = Signal()
        self._reads_act = Signal()
        self._master = Signal()
        self._vector_done = Signal()
        self._phase_end = Signal()
        self._oc_end = Signal()
        self._oc_last = Signal()
        self._tile_end = Signal()
        self._command_end = Signal()
        self._ends_command = Signal()
        self._new_oc = Signal()
        self._elaborate_addresses(m)
        self._elaborate_loops(m)
        self._elaborate_phases(m)
        self._elaborate_step(m)
        self._elaborate_uop(m)
        return m

    def _elaborate_addresses(self, m: Module) -> None:
        a, b, command = self._walker_a, self._walker_b, self.command
        m.d.comb += [
            self._step.eq(self._running & self.o.ready),
            self._vector_done.eq(self._step & a.last & ~(self._is_pair & self._in_a)),
            a.start.eq(self.start),
            a.base.eq(command.a_addr),
            a.stride_x.eq(command.a_x),
            a.stride_y.eq(command.a_y),
            a.stride_kx.eq(command.a_kx),
            a.stride_ky.eq(command.a_ky),
            a.out_w.eq(command.out_w),
            a.out_h.eq(command.out_h),
            a.n_kx.eq(command.n_kx),
            a.n_ky.eq(command.n_ky),
            a.step.eq(self._step & self._in_a),
            b.start.eq(self.start),
            b.base.eq(command.b_addr),
            b.stride_x.eq(command.b_x),
            b.stride_y.eq(command.b_y),
            b.out_w.eq(command.out_w),
            b.out_h.eq(command.out_h),
            b.step.eq(self._step & self._in_b),
            b.stay.eq(flag(command, "b_oc", self._config)),
        ]

    def _elaborate_step(self, m: Module) -> None:
        """What the vector needs before it can be issued."""
        step = self.o.payload
        size_bits = (self._config.act_lines - 1).bit_length()
        in_middle = self._phase == Phase.MIDDLE
        outside = Signal()
        takes_params = Signal()
        beats_less_1 = Cat(
            Const(self._config.vector_beats - 1, beat_bits(self._config)), self._place
        )
        m.d.comb += [
            self.o.valid.eq(self._running),
            step.line.eq(Mux(self._in_b, self._walker_b.line, self._walker_a.line)),
            outside.eq(step.line[size_bits:].any()),
            step.reads_act.eq(self._reads_act & ~outside),
            step.bank.eq(Mux(step.reads_act, bank_of(step.line), 0)),
            step.outside.eq(self._reads_act & outside),
            step.reads_acc.eq(in_middle),
            step.reads_scratch.eq(
                (self._phase == Phase.TOTAL)
                | (self._phase == Phase.DIFFERENCE)
                | (self._phase == Phase.SQUARE)
                | (self._in_a & (self._from_acc | self._is_mul))
            ),
            # A short group must wait before what it has just written is read; with 16 vectors the
            # pipeline is shorter than the phase.
            step.sets_pause.eq(
                self.grouped & self._phase_end & ((self._phase != Phase.TERM_B) | self._is_mul),
            ),
            step.no_pause.eq(beats_less_1 >= HAZARD - 1),
            step.pause.eq(Mux(step.no_pause, 0, HAZARD - 1 - beats_less_1)),
            step.tile_end.eq(self._tile_end),
            takes_params.eq(in_middle & self._new_oc),
            step.reload.eq(takes_params & ~self._oc_last),
            step.uop.new_oc.eq(takes_params),
        ]
        with m.If(self._step & in_middle):
            m.d.sync += self._new_oc.eq(self._oc_end)
        with m.If(self.start):
            m.d.sync += self._new_oc.eq(1)

    def _elaborate_loops(self, m: Module) -> None:
        """The loops over x, y, tiles and oc; they go with the first phase of each group."""
        command, counter = self.command, parts.loop_counter(self._config)
        m.submodules.x = x = counter(width_bits=12)
        m.submodules.rows = rows = counter(width_bits=12)
        m.submodules.tile_rows = tile_rows = counter(width_bits=12, late=True)
        m.submodules.oc = oc = counter(width_bits=12)
        step = Signal()
        m.d.comb += [
            step.eq(self._vector_done & self._master),
            self._oc_end.eq(x.last & rows.last),
            self._tile_end.eq(self._from_acc & x.last & (rows.last | tile_rows.last)),
            self._command_end.eq(self._oc_end & oc.last),
            self._oc_last.eq(oc.last),
            x.count.eq(command.out_w),
            x.start.eq(self.start),
            x.step.eq(step),
            rows.count.eq(command.out_h),
            rows.start.eq(self.start),
            rows.step.eq(step & x.last),
            # The last tile of an oc may be shorter than the others.
            tile_rows.count.eq(command.tile_rows),
            tile_rows.start.eq(self.start | (step & self._tile_end)),
            tile_rows.step.eq(step & x.last),
            oc.count.eq(command.n_oc),
            oc.start.eq(self.start),
            oc.step.eq(step & self._oc_end),
        ]

    def _elaborate_phases(self, m: Module) -> None:
        """Groups of up to 16 beats go through the phases one after another."""
        group = GROUP // self._config.vector_beats
        self._place = Signal(GROUP_BITS)
        group_last = Signal(GROUP_BITS, reset_less=True)
        left = Signal(GROUP_BITS, reset_less=True)
        group_ends_command = Signal(reset_less=True)
        first_phase = Signal(Phase, reset_less=True)
        first_is_b = Signal(reset_less=True)

        with m.If(self.start):
            m.d.sync += [self._running.eq(1), self._master.eq(1), self._place.eq(0)]
            for phase, ops in (
                (Phase.MIDDLE, (VectorOp.REQUANT, VectorOp.REQUANT_ADD)),
                (Phase.TERM_B, (VectorOp.ADD, VectorOp.MUL, VectorOp.SQUARED_DIFFERENCE)),
                (Phase.TERM_A, (VectorOp.AVERAGE, VectorOp.MAX, VectorOp.TABLE)),
            ):
                with m.Switch(self.command.op):
                    with m.Case(*ops):
                        m.d.sync += [
                            self._phase.eq(phase),
                            self._in_a.eq(phase is Phase.TERM_A),
                            self._in_b.eq(phase is Phase.TERM_B),
                            self._reads_act.eq(phase is not Phase.MIDDLE),
                            first_phase.eq(phase),
                            first_is_b.eq(phase is Phase.TERM_B),
                        ]

        with m.If(self._master):
            # The first phase decides how long the group is.
            m.d.comb += [
                self._ends_command.eq(self._command_end),
                self._phase_end.eq((self._place == group - 1) | self._oc_end | self._tile_end),
            ]
        with m.Else():
            m.d.comb += [
                self._phase_end.eq(left == 0),
                self._ends_command.eq(self._phase_end & group_ends_command),
            ]

        with m.If(self.grouped & self._step):
            m.d.sync += [self._place.eq(self._place + 1), left.eq(left - 1)]
            with m.If(self._master):
                m.d.sync += [
                    group_last.eq(self._place),
                    group_ends_command.eq(self._command_end),
                ]
            with m.If(self._phase_end):
                m.d.sync += [
                    self._place.eq(0),
                    left.eq(Mux(self._master, self._place, group_last)),
                    self._master.eq(self._phase == Phase.TOTAL),
                ]
                with m.Switch(self._phase):
                    with m.Case(Phase.MIDDLE):
                        m.d.sync += [
                            self._phase.eq(Phase.TERM_B),
                            self._in_b.eq(1),
                            self._reads_act.eq(1),
                        ]
                    with m.Case(Phase.TERM_B):
                        m.d.sync += [
                            self._phase.eq(Phase.TERM_A),
                            self._in_a.eq(1),
                            self._in_b.eq(0),
                            self._reads_act.eq(~self._from_acc),
                        ]
                    with m.Case(Phase.TERM_A):
                        m.d.sync += [
                            self._phase.eq(
                                Mux(self._is_square, Phase.DIFFERENCE, Phase.TOTAL),
                            ),
                            self._in_a.eq(0),
                            self._reads_act.eq(0),
                        ]
                    if self._config.can(Operation.SQUARED_DIFFERENCE):
                        with m.Case(Phase.DIFFERENCE):
                            m.d.sync += self._phase.eq(Phase.SQUARE)
                        with m.Case(Phase.SQUARE):
                            m.d.sync += self._phase.eq(Phase.TOTAL)
                    with m.Case(Phase.TOTAL):
                        # The first phase of a group of an addition is MIDDLE or TERM_B.
                        m.d.sync += [
                            self._phase.eq(first_phase),
                            self._in_b.eq(first_is_b),
                            self._reads_act.eq(first_is_b),
                        ]

        with m.If(self._is_pair & self._step):
            m.d.sync += [self._in_a.eq(~self._in_a), self._in_b.eq(self._in_a)]

        self._is_final = Signal()
        m.d.comb += self._is_final.eq(~self.grouped | (self._phase == Phase.TOTAL))
        with m.If(self._vector_done & self._is_final & self._ends_command):
            m.d.sync += self._running.eq(0)

    def _elaborate_uop(self, m: Module) -> None:
        uop, a = self.o.payload.uop, self._walker_a
        m.d.comb += [
            uop.index.eq(self._place),
            # Without a window every element is both.
            uop.first.eq(a.first & ~(self._is_pair & self._in_b)),
            uop.emit.eq(a.last & ~(self._is_pair & self._in_a)),
            uop.last.eq(self._is_final & self._ends_command),
        ]
        with m.Switch(self._phase):
            with m.Case(Phase.MIDDLE):
                m.d.comb += [uop.source.eq(Source.ACC), uop.constants.eq(Constants.CHANNEL)]
                with m.If(self.grouped):
                    m.d.comb += uop.dest.eq(Dest.MIDDLE)
            with m.Case(Phase.TERM_B):
                m.d.comb += [
                    uop.source.eq(Source.ACT),
                    uop.constants.eq(Constants.TERM_B),
                    uop.dest.eq(Dest.TERM_B),
                ]
            with m.Case(Phase.TERM_A):
                m.d.comb += uop.source.eq(Mux(self._from_acc, Source.MIDDLE, Source.ACT))
                with m.If(self.grouped):
                    m.d.comb += [
                        uop.constants.eq(
                            Mux(self._is_mul, Constants.PRODUCT, Constants.TERM_A),
                        ),
                        uop.dest.eq(Dest.TERM_A),
                    ]
                with m.Elif(self.command.op == VectorOp.AVERAGE):
                    m.d.comb += uop.constants.eq(Constants.OUTPUT)
                with m.Else():
                    m.d.comb += uop.constants.eq(Constants.PASS)
            if self._config.can(Operation.SQUARED_DIFFERENCE):
                with m.Case(Phase.DIFFERENCE):
                    m.d.comb += [
                        uop.source.eq(Source.TERMS),
                        uop.constants.eq(Constants.PASS),
                        uop.dest.eq(Dest.TERMS),
                    ]
                with m.Case(Phase.SQUARE):
                    m.d.comb += [
                        uop.source.eq(Source.TERMS),
                        uop.constants.eq(Constants.PRODUCT),
                        uop.dest.eq(Dest.TERM_A),
                    ]
            with m.Case(Phase.TOTAL):
                m.d.comb += [uop.source.eq(Source.TERMS), uop.constants.eq(Constants.OUTPUT)]
