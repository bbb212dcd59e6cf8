"""Issues the vectors of a `Vector` command as their sources allow."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect
from celosia.hw.bus.buffer import StreamBuffer
from celosia.hw.config import NpuConfig
from celosia.hw.control.decode import command_layout
from celosia.hw.isa import Vector
from celosia.hw.memory.ports import AccRead, BankRead
from celosia.hw.vector.planner import STEP_LAYOUT, Planner
from celosia.hw.vector.uop import HAZARD, LINE_SUM_BITS, UOP_LAYOUT

__all__ = ["Sequencer"]


class Sequencer(Component):
    """Issues one vector a cycle when its source allows.

    The steps are planned ahead of it, so that a grant moves on nothing but a buffer.

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
                "act": Out(BankRead(config)),
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
        m.submodules.planner = planner = Planner(self._config)
        m.submodules.steps = steps = StreamBuffer(STEP_LAYOUT)
        connect(m, planner.o, steps.i)
        step = steps.o.payload
        live = Signal()
        index = Signal.like(self.acc.index)
        pause = Signal(range(HAZARD))
        rested = Signal(init=1)  # `pause` is over
        m.d.comb += [
            planner.command.eq(self.command),
            planner.start.eq(self.start),
            live.eq(steps.o.valid & ~self.halt),
            self.line.eq(step.line),
            self.outside.eq(steps.o.valid & step.outside),
            # A read does no harm; only its issue would.
            self.act.bank.eq(Mux(steps.o.valid, step.bank, 0)),
            self.act.line.eq(step.line),
            self.wait_act.eq(steps.o.valid & step.reads_act & ~self.act.gnt),
            self.wait_acc.eq(live & step.reads_acc & ~self.acc.avail),
            self.acc.req.eq(
                live & step.reads_acc & self.acc.avail & (self.params_ready | ~step.uop.new_oc)
            ),
            self.issue.eq(
                (live & step.reads_act & self.act.gnt)
                | (live & step.reads_scratch & rested)
                | self.acc.req
            ),
            self.uop.eq(step.uop),
            steps.o.ready.eq(self.issue),
            # The half is read from 0 up and given back with its last vector.
            self.acc.index.eq(index),
            self.acc.release.eq(self.acc.req & step.tile_end),
            self.params_taken.eq(self.acc.req & step.uop.new_oc),
            self.params_reload.eq(self.acc.req & step.reload),
        ]
        with m.If(self.start):
            m.d.sync += index.eq(0)
        with m.Elif(self.acc.req):
            m.d.sync += index.eq(Mux(step.tile_end, 0, index + 1))
        with m.If(self.issue & step.sets_pause):
            m.d.sync += [pause.eq(step.pause), rested.eq(step.no_pause)]
        with m.Elif(~rested):
            m.d.sync += [pause.eq(pause - 1), rested.eq(pause == 1)]
        return m
