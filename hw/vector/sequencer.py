"""Issues the vectors of a `Vector` command as their sources allow."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect
from celosia.hw import parts
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Vector
from celosia.hw.control.decode import command_layout
from celosia.hw.memory.ports import AccRead, BankRead
from celosia.hw.vector.planner import Planner, step_layout
from celosia.hw.vector.uop import HAZARD, LINE_SUM_BITS, uop_layout

__all__ = ["Sequencer"]


class Sequencer(Component):
    """Issues one beat a cycle when its source allows: a vector takes ``config.vector_beats``.

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
    params_ready : In(1), params_half : In(1), params_taken : Out(1), params_reload : Out(1)
        See :class:`celosia.hw.vector.params.ParamLoader`.
    issue : Out(1)
        `uop` enters the pipeline (stage 0): all beats of a vector one after another. A line of the
        activation SRAM is asked for with the first one; an accumulator's vector with each.
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
                "params_half": In(1),
                "params_taken": Out(1),
                "params_reload": Out(1),
                "issue": Out(1),
                "uop": Out(uop_layout(config)),
                "outside": Out(1),
                "line": Out(LINE_SUM_BITS),
                "wait_acc": Out(1),
                "wait_act": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.planner = planner = Planner(self._config)
        m.submodules.steps = steps = parts.step_buffer(self._config, step_layout(self._config))
        connect(m, planner.o, steps.i)
        step = steps.o.payload
        live = Signal()
        awaited = Signal()
        index = Signal.like(self.acc.index)
        pause = Signal(range(HAZARD))
        rested = Signal(init=1)  # `pause` is over
        beats = self._config.vector_beats
        beat = Signal(range(beats))
        first, last = Signal(init=1), Signal()
        m.d.comb += [first.eq(beat == 0), last.eq(beat == beats - 1)]
        with m.If(self.issue):
            m.d.sync += beat.eq(beat + 1)
        m.d.comb += [
            planner.command.eq(self.command),
            planner.start.eq(self.start),
            live.eq(steps.o.valid & ~self.halt),
            # A product reads the activation SRAM and a scratch memory.
            awaited.eq(rested | ~step.reads_scratch),
            self.line.eq(step.line),
            self.outside.eq(steps.o.valid & step.outside),
            # A read does no harm; only its issue would: what the step waits for is not looked at.
            self.act.bank.eq(Mux(steps.o.valid & first, step.bank, 0)),
            self.act.line.eq(step.line),
            self.wait_act.eq(steps.o.valid & step.reads_act & first & awaited & ~self.act.gnt),
            self.wait_acc.eq(live & step.reads_acc & ~self.acc.avail),
            self.acc.req.eq(
                live
                & step.reads_acc
                & self.acc.avail
                & (self.params_ready | ~(step.uop.new_oc & first))
            ),
            self.issue.eq(
                (live & awaited & step.reads_act & (self.act.gnt | ~first))
                | (live & awaited & step.reads_scratch & ~step.reads_act)
                | self.acc.req
            ),
            self.uop.eq(step.uop),
            self.uop.index.eq((step.uop.index * beats) | beat),
            self.uop.new_oc.eq(step.uop.new_oc & first),
            self.uop.beat.eq(beat),
            # What waits to be taken is in the half that is used from now on.
            self.uop.params_half.eq(self.params_half ^ ~self.params_taken),
            steps.o.ready.eq(self.issue & last),
            # The half is read from 0 up and given back with its last vector.
            self.acc.index.eq(index),
            self.acc.steady.eq(~planner.grouped),
            self.acc.release.eq(self.acc.req & step.tile_end & last),
            self.params_taken.eq(self.acc.req & step.uop.new_oc & first),
            self.params_reload.eq(self.acc.req & step.reload & first),
        ]
        m.d.comb += self.acc.beat.eq(beat)
        with m.If(self.start):
            m.d.sync += index.eq(0)
        with m.Elif(self.acc.req & last):
            m.d.sync += index.eq(Mux(step.tile_end, 0, index + 1))
        with m.If(self.issue & step.sets_pause & last):
            m.d.sync += [pause.eq(step.pause), rested.eq(step.no_pause)]
        with m.Elif(~rested):
            m.d.sync += [pause.eq(pause - 1), rested.eq(pause == 1)]
        return m
