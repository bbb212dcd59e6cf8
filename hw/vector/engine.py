"""The vector engine: command handling, and the wiring of its parts."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw import parts
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    COMMAND_BITS,
    Opcode,
    Softmax,
    Vector,
    VectorOp,
    counts_of,
)
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.control.decode import command_layout
from celosia.hw.fabric.gating import idles
from celosia.hw.fabric.ports import CommandPort, FaultPort
from celosia.hw.memory.ports import AccRead, BankRead, LineRead, LineWrite, WindowWrite
from celosia.hw.vector.operations import flag, is_any, is_lacking, is_none
from celosia.hw.vector.sequencer import Sequencer

__all__ = ["VectorEngine"]


class VectorEngine(Component):
    """Executes `Vector` and `Softmax` commands.

    A command starts two cycles after ``cmd.valid``, issues its first vector in the next cycle at
    the earliest, and is answered in the cycle after its last line is written. A vector takes 15
    cycles from its read to its write, and a parameter block (REQUANT*) 9 cycles before that. After
    a fault nothing more is issued until the engine is reset from outside.

    Members
    -------
    cmd : In(CommandPort)
    fault : Out(FaultPort)
        ACT_RANGE and PARAM_RANGE with the byte address, ILLEGAL_FIELD, ILLEGAL_OPCODE.
    acc : Out(AccRead)
        Halves of the accumulator.
    act : Out(BankRead), dst : Out(LineWrite)
        Activation SRAM.
    param : Out(LineRead)
        Parameter SRAM.
    table : In(WindowWrite)
        Loads the look-up tables (see :class:`celosia.hw.vector.table.Table`).
    busy : Out(1)
        A vector, or an element of a window or of a softmax, was issued in this cycle.
    wait_acc, wait_act : Out(1)
        Nothing was issued for want of a full accumulator half, of the activation SRAM's port.
    waits : Out(1)
        Nothing changes before a half of the accumulator is full.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "cmd": In(CommandPort()),
                "fault": Out(FaultPort()),
                "acc": Out(AccRead(config)),
                "act": Out(BankRead(config)),
                "dst": Out(LineWrite(config)),
                "param": Out(LineRead(config)),
                "table": In(WindowWrite(config)),
                "busy": Out(1),
                "wait_acc": Out(1),
                "wait_act": Out(1),
                "waits": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.sequencer = self._sequencer = Sequencer(config)
        self._pipeline = parts.pipeline(config)
        m.submodules.params = self._params = parts.param_loader(config)
        m.submodules.table_ram = self._table = parts.table(config)
        self._softmax = parts.softmax_unit(config)
        m.submodules.walker_d = self._walker_d = parts.walker(config, windowed=False)

        word = Signal(COMMAND_BITS, reset_less=True)
        self._vector = data.View(command_layout(Vector), word)
        self._softmax_fields = data.View(command_layout(Softmax), word)
        self._is_softmax = Signal()
        # First cycle of a command, by its kind.
        self._start_vector, self._start_softmax = Signal(), Signal()
        for name, part, active in (
            ("pipeline", self._pipeline, self._pipeline.active | self._softmax.lent.valid),
            ("softmax", self._softmax, self._is_softmax),
        ):
            m.submodules[name] = idles(m, part, active, domain=name, platform=platform)
        m.d.comb += [
            self._softmax.active.eq(self._is_softmax),
            self._pipeline.lent.eq(self._softmax.lent),
            self._softmax.high.eq(self._pipeline.high),
            self._softmax.element.eq(self._pipeline.element),
            self._softmax.packed.eq(self._pipeline.result),
        ]
        self._halt = Signal()
        self._elaborate_wiring(m)
        self._elaborate_memories(m)
        self._elaborate_control(m, word)
        self._elaborate_faults(m)
        return m

    def _elaborate_wiring(self, m: Module) -> None:
        sequencer, pipeline, params = self._sequencer, self._pipeline, self._params
        vector, walker = self._vector, self._walker_d
        start = self._start_vector
        m.d.comb += [
            sequencer.command.eq(vector),
            sequencer.start.eq(start),
            sequencer.halt.eq(self._halt),
            sequencer.params_ready.eq(params.ready),
            params.start.eq(start & is_any(vector.op, lambda op: op.reads_acc)),
            params.base.eq(vector.param_addr),
            params.shared.eq(vector.shared),
            params.taken.eq(sequencer.params_taken),
            params.reload.eq(sequencer.params_reload),
            params.copy_bias.eq(pipeline.copy_bias),
            params.copy_left.eq(pipeline.copy_left),
            params.copy_mult.eq(pipeline.copy_mult),
            params.copy_right.eq(pipeline.copy_right),
            params.place.eq(pipeline.params_place),
            sequencer.params_half.eq(params.half),
            pipeline.command.eq(vector),
            pipeline.issue.eq(sequencer.issue),
            pipeline.uop.eq(sequencer.uop),
            pipeline.params.eq(params.lanes),
            walker.start.eq(start),
            walker.base.eq(vector.d_addr),
            walker.stride_x.eq(vector.d_x),
            walker.stride_y.eq(vector.d_y),
            walker.out_w.eq(vector.out_w),
            walker.step.eq(pipeline.write),
            walker.out_h.eq(vector.out_h),
            self._softmax.command.eq(self._softmax_fields),
            self._softmax.start.eq(self._start_softmax),
            self._softmax.halt.eq(self._halt),
        ]

    def _elaborate_memories(self, m: Module) -> None:
        sequencer, pipeline, softmax = self._sequencer, self._pipeline, self._softmax
        connect(m, sequencer.acc, flipped(self.acc))
        # Like `_is_softmax`, a cycle later; a register of its own, as grants wait for it.
        softmax_reads = Signal()
        with m.If(self._start_softmax):
            m.d.sync += softmax_reads.eq(1)
        with m.Elif(self._start_vector):
            m.d.sync += softmax_reads.eq(0)
        connect(m, self._params.param, flipped(self.param))
        m.d.comb += [
            pipeline.acc.eq(self.acc.data),
            pipeline.act.eq(self.act.data),
            softmax.act.data.eq(self.act.data),
            # Only one of them has a command.
            self.act.bank.eq(sequencer.act.bank | softmax.act.bank),
            self.act.line.eq(Mux(softmax_reads, softmax.act.line, sequencer.act.line)),
            sequencer.act.gnt.eq(self.act.gnt),
            softmax.act.gnt.eq(self.act.gnt),
        ]

        # Softmax has the table to itself while it works: all lanes read its entry.
        table = self._table
        connect(m, flipped(self.table), table.write)
        for j in range(self._config.vector_lanes):
            m.d.comb += table.index[j].eq(
                Mux(self._is_softmax, softmax.table_index, pipeline.table_index[j])
            )
        m.d.comb += [
            table.beat.eq(pipeline.table_beat),
            pipeline.table_data.eq(table.data),
            softmax.table_data.eq(table.entry),
        ]

        # Results. A line that does not exist is not written.
        size_bits = (self._config.act_lines - 1).bit_length()
        lines = (self._walker_d.line, softmax.dst_line)
        outside = [line[size_bits:].any() for line in lines]
        self._dst_line = Mux(softmax.write, lines[1], lines[0])
        self._dst_outside = Signal()
        # A register of its own: loads wait for it.
        comes = Signal()
        m.d.sync += comes.eq(pipeline.writes | softmax.writes)
        m.d.comb += [
            self._dst_outside.eq((pipeline.write & outside[0]) | (softmax.write & outside[1])),
            self.dst.req.eq(comes),
            self.dst.outside.eq(self._dst_outside | self._halt),
            self.dst.line.eq(self._dst_line),
            self.dst.data.eq(pipeline.result),
        ]
        with m.If(self._is_softmax):
            m.d.comb += self.dst.data.eq(softmax.result)

    def _elaborate_control(self, m: Module, word: Signal) -> None:
        vector, softmax = self._vector, self._softmax_fields
        held = parts.held_command(self._config)
        op, opcode = vector.op, vector.opcode
        from_acc = is_any(op, lambda op: op.reads_acc)
        pair, least = (flag(vector, name, self._config) for name in ("pair", "least"))
        has_b = is_any(op, lambda op: op.has_b) | pair
        windowed = is_any(op, lambda op: op.windowed) & ~pair
        illegal = Signal()
        assert set(counts_of(Vector)) == {"n_oc", "out_h", "out_w", "n_kx", "n_ky"}
        assert set(counts_of(Softmax)) == {"channels", "n_rows"}
        self._illegal = Signal()
        self._unknown = Signal()
        m.d.comb += illegal.eq(
            Mux(
                self._is_softmax,
                (softmax.channels == 0) | (softmax.n_rows == 0),
                (vector.n_oc == 0)
                | (vector.out_h == 0)
                | (vector.out_w == 0)
                | (from_acc & (vector.tile_rows == 0))
                | (vector.n_kx == 0)
                | (vector.n_ky == 0)
                | (~windowed & ((vector.n_kx != 1) | (vector.n_ky != 1)))
                | (vector.shared & is_none(op, lambda op: op.shares))
                | ((pair | least) & (op != VectorOp.MAX))
                | (vector.b_oc & ~has_b)
                | is_lacking(vector, self._config),
            )
        )

        with m.FSM():
            with m.State("IDLE"):
                is_softmax = Signal()
                begin = Signal()
                m.d.comb += [
                    is_softmax.eq(self._softmax.takes(self.cmd.payload[:8])),
                    begin.eq(self.cmd.valid & ~self._halt),
                ]
                held.take(m, word, self.cmd.payload)
                m.d.sync += [
                    self._is_softmax.eq(is_softmax),
                    # It starts whatever it is: an error halts it before it has done anything.
                    self._start_vector.eq(begin & ~is_softmax),
                    self._start_softmax.eq(begin & is_softmax),
                ]
                with m.If(begin):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [self._start_vector.eq(0), self._start_softmax.eq(0)]
                m.d.comb += [
                    self._unknown.eq(~self._is_softmax & (opcode != Opcode.VECTOR)),
                    self._illegal.eq(illegal & ~self._unknown),
                ]
                m.next = "RUN"
            with m.State("RUN"):
                with m.If(self._pipeline.write_last | self._softmax.done):
                    m.next = "DONE"
            with m.State("DONE"):
                # From registers: a whole command moves up behind it.
                m.d.comb += self.cmd.ready.eq(~self._halt)
                m.next = "IDLE"

        held.show(m, word, self.cmd.payload)
        sequencer = self._sequencer
        m.d.comb += [
            self.waits.eq(sequencer.wait_acc & ~self._params.loading & ~self._pipeline.active),
            self.busy.eq(sequencer.issue | self._softmax.busy),
            self.wait_acc.eq(sequencer.wait_acc),
            self.wait_act.eq(sequencer.wait_act | self._softmax.wait_act),
        ]

    def _elaborate_faults(self, m: Module) -> None:
        """The first fault is registered and held; it halts the engine."""
        sequencer, params, softmax = self._sequencer, self._params, self._softmax
        line_bits = (self._config.line_bytes - 1).bit_length()
        m.d.comb += self._halt.eq(self.fault.valid)
        with m.If(~self.fault.valid):
            # Cause and address of no fault are not looked at: they wait for none.
            m.d.sync += [
                self.fault.valid.eq(self._dst_outside),
                self.fault.cause.eq(ErrorCause.ACT_RANGE),
                self.fault.address.eq(self._dst_line << line_bits),
            ]
            for condition, cause, address in (
                (self._unknown, ErrorCause.ILLEGAL_OPCODE, 0),
                (self._illegal, ErrorCause.ILLEGAL_FIELD, 0),
                (params.outside, ErrorCause.PARAM_RANGE, params.line << line_bits),
                (sequencer.outside, ErrorCause.ACT_RANGE, sequencer.line << line_bits),
                (softmax.outside, ErrorCause.ACT_RANGE, softmax.line << line_bits),
            ):
                with m.If(condition & ~self._dst_outside):
                    m.d.sync += [
                        self.fault.valid.eq(1),
                        self.fault.cause.eq(cause),
                        self.fault.address.eq(address),
                    ]
