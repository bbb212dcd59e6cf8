"""Issues the vectors of a `Vector` command: loops, phases, addresses, waiting."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import enum
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.config import NpuConfig
from celosia.hw.control.decode import command_layout
from celosia.hw.isa import Vector, VectorOp
from celosia.hw.memory.ports import AccRead, LineRead
from celosia.hw.vector.counter import LoopCounter
from celosia.hw.vector.uop import (
    GROUP,
    GROUP_BITS,
    HAZARD,
    LINE_SUM_BITS,
    UOP_LAYOUT,
    Constants,
    Dest,
    Source,
)
from celosia.hw.vector.walker import Walker

__all__ = ["Phase", "Sequencer"]


class Phase(enum.Enum, shape=unsigned(2)):
    """Steps of a group of vectors, in this order.

    REQUANT is the first alone; AVERAGE, MAX and TABLE are TERM_A alone; ADD begins with TERM_B;
    REQUANT_ADD goes through all four. With TERM_B between them, even groups of seven vectors can
    go from MIDDLE to TERM_A without a pause.
    """

    MIDDLE = 0
    TERM_B = 1
    TERM_A = 2
    TOTAL = 3


class Sequencer(Component):
    """Issues one vector a cycle when its source allows.

    Members
    -------
    command : In
        Stable from `start` on until the last vector has been written.
    start : In(1)
        Begin; the counts of the command have been checked.
    halt : In(1)
        Issue nothing more: there was an error.
    acc, act : Out
        The two sources in memory.
    params_ready : In(1), params_taken : Out(1), params_reload : Out(1)
        See :class:`celosia.hw.vector.params.ParamLoader`.
    issue : Out(1)
        `uop` enters the pipeline (stage 0).
    outside : Out(1)
        Line `line` of the activation SRAM is wanted and does not exist.
    wait_acc, wait_act : Out(1)
        Nothing is issued because the accumulator half is not full; because the read is refused.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(command_layout(Vector)),
                "start": In(1),
                "halt": In(1),
                "acc": Out(AccRead(config)),
                "act": Out(LineRead(config)),
                "params_ready": In(1),
                "params_taken": Out(1),
                "params_reload": Out(1),
                "issue": Out(1),
                "uop": Out(UOP_LAYOUT),
                "outside": Out(1),
                "line": Out(LINE_SUM_BITS),
                "wait_acc": Out(1),
                "wait_act": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker_a = self._walker_a = Walker(windowed=True)
        m.submodules.walker_b = self._walker_b = Walker(windowed=False)

        # What kind of command it is, decoded once.
        self._grouped = Signal()
        self._from_acc = Signal()
        op = self.command.op
        with m.If(self.start):
            m.d.sync += [
                self._grouped.eq((op == VectorOp.ADD) | (op == VectorOp.REQUANT_ADD)),
                self._from_acc.eq((op == VectorOp.REQUANT) | (op == VectorOp.REQUANT_ADD)),
            ]

        self._running = Signal()
        self._phase = Signal(Phase)
        # Beside the phase: the read of the activation SRAM begins with it.
        self._in_b = Signal()
        self._reads_act = Signal()
        self._master = Signal()
        self._vector_done = Signal()
        self._oc_end = Signal()
        self._tile_end = Signal()
        self._command_end = Signal()
        self._ends_command = Signal()
        self._new_oc = Signal()
        self._elaborate_issue(m)
        self._elaborate_loops(m)
        self._elaborate_phases(m)
        self._elaborate_uop(m)
        return m

    def _elaborate_issue(self, m: Module) -> None:
        """Stage 0: which source the vector needs and whether it can have it."""
        a, b, command = self._walker_a, self._walker_b, self.command
        size_bits = (self._config.act_lines - 1).bit_length()
        self._pause = Signal(range(HAZARD))
        in_middle = Signal()
        in_b, needs_act = self._in_b, self._reads_act
        in_a = Signal()
        needs_scratch = Signal()
        m.d.comb += [
            in_middle.eq(self._phase == Phase.MIDDLE),
            in_a.eq(self._phase == Phase.TERM_A),
            needs_scratch.eq((self._phase == Phase.TOTAL) | (in_a & self._from_acc)),
        ]
        live = self._running & ~self.halt

        m.d.comb += [
            self.line.eq(Mux(in_b, b.line, a.line)),
            self.outside.eq(self._running & needs_act & self.line[size_bits:].any()),
            self.act.req.eq(live & needs_act & ~self.outside),
            self.act.line.eq(self.line),
            self.wait_act.eq(self.act.req & ~self.act.gnt),
            self.wait_acc.eq(live & in_middle & ~self.acc.avail),
        ]
        with m.If(needs_act):
            m.d.comb += self.issue.eq(self.act.req & self.act.gnt)
        with m.Elif(needs_scratch):
            m.d.comb += self.issue.eq(live & (self._pause == 0))
        with m.Else():
            m.d.comb += self.issue.eq(live & self.acc.avail & (self.params_ready | ~self._new_oc))
        m.d.comb += self._vector_done.eq(self.issue & a.last)

        m.d.comb += [
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
            a.step.eq(self.issue & in_a),
            b.start.eq(self.start),
            b.base.eq(command.b_addr),
            b.stride_x.eq(command.b_x),
            b.stride_y.eq(command.b_y),
            b.out_w.eq(command.out_w),
            b.out_h.eq(command.out_h),
            b.step.eq(self.issue & in_b),
        ]
        # The half is read from 0 up and given back with its last vector.
        index = Signal.like(self.acc.index)
        m.d.comb += [
            self.acc.req.eq(self.issue & in_middle),
            self.acc.index.eq(index),
            self.acc.release.eq(self.acc.req & self._tile_end),
            self.params_taken.eq(self.acc.req & self._new_oc),
        ]
        with m.If(self.acc.req):
            m.d.sync += [index.eq(index + 1), self._new_oc.eq(self._oc_end)]
            with m.If(self._tile_end):
                m.d.sync += index.eq(0)
        with m.If(self.start):
            m.d.sync += [index.eq(0), self._new_oc.eq(1)]

    def _elaborate_loops(self, m: Module) -> None:
        """The loops over x, y, tiles and oc; they go with the first phase of each group."""
        command = self.command
        m.submodules.x = x = LoopCounter(width_bits=12)
        m.submodules.rows = rows = LoopCounter(width_bits=12)
        m.submodules.tile_rows = tile_rows = LoopCounter(width_bits=12)
        m.submodules.oc = oc = LoopCounter(width_bits=12)
        step = Signal()
        m.d.comb += [
            step.eq(self._vector_done & self._master),
            self._oc_end.eq(x.last & rows.last),
            self._tile_end.eq(self._from_acc & x.last & (rows.last | tile_rows.last)),
            self._command_end.eq(self._oc_end & oc.last),
            self.params_reload.eq(self.params_taken & ~oc.last),
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
        """Groups of up to 16 vectors go through the phases one after another."""
        self._place = Signal(GROUP_BITS)
        group_last = Signal(GROUP_BITS, reset_less=True)
        left = Signal(GROUP_BITS, reset_less=True)
        group_ends_command = Signal(reset_less=True)
        first_phase = Signal(Phase, reset_less=True)
        first_is_b = Signal(reset_less=True)
        phase_end = Signal()

        with m.If(self.start):
            m.d.sync += [self._running.eq(1), self._master.eq(1), self._place.eq(0)]
            for phase, ops in (
                (Phase.MIDDLE, (VectorOp.REQUANT, VectorOp.REQUANT_ADD)),
                (Phase.TERM_B, (VectorOp.ADD,)),
                (Phase.TERM_A, (VectorOp.AVERAGE, VectorOp.MAX, VectorOp.TABLE)),
            ):
                with m.Switch(self.command.op):
                    with m.Case(*ops):
                        m.d.sync += [
                            self._phase.eq(phase),
                            self._in_b.eq(phase is Phase.TERM_B),
                            self._reads_act.eq(phase is not Phase.MIDDLE),
                            first_phase.eq(phase),
                            first_is_b.eq(phase is Phase.TERM_B),
                        ]

        with m.If(self._master):
            # The first phase decides how long the group is.
            m.d.comb += [
                self._ends_command.eq(self._command_end),
                phase_end.eq((self._place == GROUP - 1) | self._oc_end | self._tile_end),
            ]
        with m.Else():
            m.d.comb += [
                phase_end.eq(left == 0),
                self._ends_command.eq(phase_end & group_ends_command),
            ]

        with m.If(self._pause != 0):
            m.d.sync += self._pause.eq(self._pause - 1)
        with m.If(self._grouped & self.issue):
            m.d.sync += [self._place.eq(self._place + 1), left.eq(left - 1)]
            with m.If(self._master):
                m.d.sync += [
                    group_last.eq(self._place),
                    group_ends_command.eq(self._command_end),
                ]
            with m.If(phase_end):
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
                            self._in_b.eq(0),
                            self._reads_act.eq(~self._from_acc),
                        ]
                    with m.Case(Phase.TERM_A):
                        m.d.sync += [
                            self._phase.eq(Phase.TOTAL),
                            self._in_b.eq(0),
                            self._reads_act.eq(0),
                        ]
                    with m.Case(Phase.TOTAL):
                        # The first phase of a group of an addition is MIDDLE or TERM_B.
                        m.d.sync += [
                            self._phase.eq(first_phase),
                            self._in_b.eq(first_is_b),
                            self._reads_act.eq(first_is_b),
                        ]
                # A short group must wait before what it has just written is read; with 16
                # vectors the pipeline is shorter than the phase.
                with m.If(self._phase != Phase.TERM_B):
                    m.d.sync += self._pause.eq(
                        Mux(self._place < HAZARD - 1, HAZARD - 1 - self._place, 0)
                    )

        self._is_final = Signal()
        m.d.comb += self._is_final.eq(~self._grouped | (self._phase == Phase.TOTAL))
        with m.If(self._vector_done & self._is_final & self._ends_command):
            m.d.sync += self._running.eq(0)

    def _elaborate_uop(self, m: Module) -> None:
        uop, a = self.uop, self._walker_a
        m.d.comb += [
            uop.index.eq(self._place),
            # Without a window every element is both.
            uop.first.eq(a.first),
            uop.emit.eq(a.last),
            uop.new_oc.eq(self.params_taken),
            uop.last.eq(self._is_final & self._ends_command),
        ]
        with m.Switch(self._phase):
            with m.Case(Phase.MIDDLE):
                m.d.comb += [uop.source.eq(Source.ACC), uop.constants.eq(Constants.CHANNEL)]
                with m.If(self._grouped):
                    m.d.comb += uop.dest.eq(Dest.MIDDLE)
            with m.Case(Phase.TERM_B):
                m.d.comb += [
                    uop.source.eq(Source.ACT),
                    uop.constants.eq(Constants.TERM_B),
                    uop.dest.eq(Dest.TERM_B),
                ]
            with m.Case(Phase.TERM_A):
                m.d.comb += uop.source.eq(Mux(self._from_acc, Source.MIDDLE, Source.ACT))
                with m.If(self._grouped):
                    m.d.comb += [
                        uop.constants.eq(Constants.TERM_A),
                        uop.dest.eq(Dest.TERM_A),
                    ]
                with m.Elif(self.command.op == VectorOp.AVERAGE):
                    m.d.comb += uop.constants.eq(Constants.OUTPUT)
                with m.Else():
                    m.d.comb += uop.constants.eq(Constants.PASS)
            with m.Case(Phase.TOTAL):
                m.d.comb += [uop.source.eq(Source.TERMS), uop.constants.eq(Constants.OUTPUT)]
