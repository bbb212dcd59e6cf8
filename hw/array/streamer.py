"""Streamer: one position a cycle of the current pass, as reads of the activation SRAM."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.array.accumulator import tag_layout
from celosia.hw.array.passes import X_BITS, Y_BITS, pass_layout
from celosia.hw.contract.config import ACT_BANKS, NpuConfig
from celosia.hw.contract.isa import Conv, Mode
from celosia.hw.control.decode import command_layout
from celosia.hw.fabric.delay import delays
from celosia.hw.memory.act import ARRAY_LINES, SEGMENTS
from celosia.hw.memory.ports import ADDR_BITS, LINE_BITS, bank_of

__all__ = ["Streamer", "wave_layout"]


def wave_layout(config: NpuConfig) -> data.StructLayout:
    """Return a wave as it is asked of the activation SRAM.

    Bytes `left` to `right` - 1 of the window are inside the input row. In a machine that joins rows
    bytes from `own` on are of the row below, and bytes `left_below` to `right_below` - 1 are inside
    it. The others are padding.
    """
    count = unsigned(config.line_bytes.bit_length())
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "swap": unsigned(1),
            "mode": unsigned(2),
            "addr": data.ArrayLayout(unsigned(ADDR_BITS), ARRAY_LINES),
            "inside": data.ArrayLayout(unsigned(1), SEGMENTS),  # input row of each segment exists
            "bank": data.ArrayLayout(unsigned(ACT_BANKS), ARRAY_LINES),  # of wanted lines
            "left": count,
            "right": count,
            "own": count,
            "left_below": count,
            "right_below": count,
            "tag": tag_layout(config),
        }
    )


KEPT = (
    *("mode", "row_pitch", "out_w", "row_len", "extra"),
    *("step_x", "step_y", "step_kx", "stride_x", "stride_y", "ky_rows", "zero_point"),
)
"""Fields of a Conv that its positions depend on, behind its passes."""


class Streamer(Component):
    """Streams the positions of a pass; passes follow one another without a gap.

    What it needs of a command it takes with each of its passes, so that the next command may be
    walked while the positions of the last pass are streamed.

    Members
    -------
    conv : In(command_layout(Conv))
        The command that `passes` are of; there two cycles before its first one.
    passes : In(stream of pass_layout)
    announced : In(1)
        The weights of the pass that is offered are on their way: it is not taken before.
    weights_ready : In(1)
        The weights of the pass at hand are on their way.
    acc_free : In(1)
        There is a free accumulator half.
    take_weights, take_acc : Out(1)
    line : Out(17)
        First line of the weights of the pass at hand.
    wave : Out(wave_layout)
        Registered: one cycle after the position.
    zero_point : Out(signed(8))
        Value of padding, three cycles after the wave.
    last : Out(1)
        The last position of the command is taken in this cycle.
    busy, wait_weights, wait_acc : Out(1)
        For the performance counters; at most one is high.
    acc_overflow : Out(1)
        An output beyond the accumulator's depth.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "conv": In(command_layout(Conv)),
                "passes": In(stream.Signature(pass_layout(config))),
                "announced": In(1),
                "weights_ready": In(1),
                "acc_free": In(1),
                "take_weights": Out(1),
                "take_acc": Out(1),
                "line": Out(LINE_BITS + 1),
                "wave": Out(wave_layout(config)),
                "zero_point": Out(signed(8)),
                "last": Out(1),
                "busy": Out(1),
                "wait_weights": Out(1),
                "wait_acc": Out(1),
                "acc_overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        layout = command_layout(Conv)
        kept = data.StructLayout({name: layout[name].shape for name in KEPT})
        self._conv = conv = Signal(kept)  # of the pass at hand
        at = Signal(pass_layout(config))  # the pass at hand; addr, x, y are of the current position
        active, begin, in_extra = Signal(), Signal(), Signal()
        begin_takes = Signal()  # the next position begins a pass that needs a half
        row_addr, first_x = Signal(ADDR_BITS), Signal(signed(X_BITS))
        # Of the current position: rows from its own on, bytes to the end of its row.
        self._rows_below = rows_below = Signal(signed(Y_BITS + 1))
        self._to_end = to_end = Signal(signed(X_BITS + 1))
        # The same of a row's first position, and of that of the pass that is offered.
        first_to_end, next_to_end = Signal.like(to_end), Signal.like(to_end)
        # What is left of the row and of the pass, this position included; whether it is the last
        # one comes from a register, as `go` and all that hangs on it wait for it.
        positions_left, rows_left = Signal(12), Signal(12)
        position_end, row_end, pass_end = Signal(), Signal(), Signal()
        one_position, one_extra, has_extra = Signal(), Signal(), Signal()
        # Of the command that is there already.
        next_one_position, next_has_extra = Signal(), Signal()
        phase, phase_end = Signal(4), Signal()
        index = Signal(config.acc_depth.bit_length())
        half = Signal()

        go = Signal()
        output = Signal()
        # Outputs left in the row; and for the position at hand, from registers: it is one of them
        # by its phase, and there are any left.
        outputs_left = Signal(12)
        in_phase, in_row = Signal(), Signal()
        m.d.comb += [
            next_one_position.eq(self.conv.row_len == 1),
            next_to_end.eq(self.conv.row_bytes - self.passes.payload.x),
            phase_end.eq(phase == conv.stride_x - 1),
        ]
        # The command is there before its first pass.
        m.d.sync += next_has_extra.eq(self.conv.extra.any())
        m.d.comb += [
            go.eq(active & (self.weights_ready | ~begin) & (self.acc_free | ~begin_takes)),
            self.busy.eq(go),
            self.wait_weights.eq(
                Mux(active, begin & ~self.weights_ready, self.passes.valid & ~self.announced)
            ),
            self.wait_acc.eq(active & begin & self.weights_ready & ~go),
            self.take_weights.eq(go & begin),
            self.line.eq(at.line),
            self.take_acc.eq(go & begin_takes),
            output.eq(in_phase & in_row & ~in_extra),
            self.passes.ready.eq(self.announced & (~active | (go & pass_end))),
            self.last.eq(go & pass_end & at.last),
            self.acc_overflow.eq(go & output & index[-1]),
        ]
        with m.If(go):
            m.d.sync += [begin.eq(0), begin_takes.eq(0), index.eq(index + output)]
            with m.If(~position_end):
                m.d.sync += [
                    positions_left.eq(positions_left - 1),
                    position_end.eq(positions_left == 2),
                    pass_end.eq((positions_left == 2) & (in_extra | (row_end & ~has_extra))),
                    at.addr.eq(at.addr + conv.step_x),
                    at.x.eq(at.x + conv.step_x),
                    to_end.eq(to_end - conv.step_x),
                    phase.eq(Mux(phase_end, 0, phase + 1)),
                    in_phase.eq(phase_end),
                ]
                with m.If(in_phase):
                    m.d.sync += [
                        outputs_left.eq(outputs_left - 1),
                        in_row.eq(in_row & (outputs_left != 1)),
                    ]
            with m.Else():
                m.d.sync += [
                    positions_left.eq(Mux(row_end, conv.extra, conv.row_len)),
                    position_end.eq(Mux(row_end, one_extra, one_position)),
                    pass_end.eq(
                        Mux(row_end, one_extra, one_position & (rows_left == 2) & ~has_extra)
                    ),
                    row_addr.eq(row_addr + conv.step_y),
                    at.addr.eq(row_addr + conv.step_y),
                    at.x.eq(first_x),
                    to_end.eq(first_to_end),
                    at.y.eq(at.y + conv.stride_y),
                    rows_below.eq(rows_below - conv.stride_y),
                    phase.eq(0),
                    in_phase.eq(1),
                    outputs_left.eq(conv.out_w),
                    in_row.eq(1),
                    rows_left.eq(rows_left - 1),
                    row_end.eq(rows_left == 2),
                    in_extra.eq(row_end),
                ]
                with m.If(pass_end):
                    m.d.sync += active.eq(0)
                    with m.If(at.give):
                        m.d.sync += half.eq(~half)
        with m.If(self.passes.valid & self.passes.ready):
            m.d.sync += [
                *(conv[name].eq(self.conv[name]) for name in KEPT),
                one_position.eq(next_one_position),
                one_extra.eq(self.conv.extra == 1),
                has_extra.eq(next_has_extra),
                at.eq(self.passes.payload),
                row_addr.eq(self.passes.payload.addr),
                first_x.eq(self.passes.payload.x),
                to_end.eq(next_to_end),
                first_to_end.eq(next_to_end),
                rows_below.eq(self.conv.in_h - self.passes.payload.y),
                active.eq(1),
                begin.eq(1),
                begin_takes.eq(self.passes.payload.take),
                in_extra.eq(0),
                positions_left.eq(self.conv.row_len),
                position_end.eq(next_one_position),
                pass_end.eq(next_one_position & (self.passes.payload.rows == 1) & ~next_has_extra),
                rows_left.eq(self.passes.payload.rows),
                row_end.eq(self.passes.payload.rows == 1),
                phase.eq(0),
                in_phase.eq(1),
                outputs_left.eq(self.conv.out_w),
                in_row.eq(1),
                index.eq(0),
            ]
        self._elaborate_wave(m, at, go, begin, pass_end, output, index, half)
        # Padding is put in three cycles after a wave; passes are as many cycles apart at least.
        taken = delays(m, self.passes.valid & self.passes.ready, 4, name="pass_taken")
        with m.If(taken[-1]):
            m.d.sync += self.zero_point.eq(conv.zero_point)
        return m

    def _elaborate_wave(
        self,
        m: Module,
        at: data.View,
        go: Signal,
        begin: Signal,
        pass_end: Signal,
        output: Signal,
        index: Signal,
        half: Signal,
    ) -> None:
        """Register what the memory and the array need to know of the position."""
        conv, wave, to_end = self._conv, self.wave, self._to_end
        line_bytes = self._config.line_bytes
        rows_mode = conv.mode == Mode.ROWS
        joins = self._config.joins_rows
        joined = joins and (conv.mode == Mode.JOINED)
        window = (conv.mode == Mode.WINDOW) | joined
        segments = self._config.dw_segments
        addrs = [Signal(ADDR_BITS, name=f"addr_{s}") for s in range(ARRAY_LINES)]
        m.d.comb += [
            addrs[0].eq(at.addr),
            # With one segment only a window has a second line.
            addrs[1].eq(
                at.addr + (Mux(window, line_bytes, conv.row_pitch) if segments > 1 else line_bytes)
            ),
            addrs[2].eq(at.addr + Mux(joined, conv.row_pitch, conv.row_pitch << 1)),
        ]
        m.d.comb += addrs[3].eq(addrs[2] + line_bytes if joins else 0)
        own = at.own if joins else line_bytes
        m.d.sync += [
            wave.valid.eq(go),
            wave.swap.eq(go & begin),
            wave.mode.eq(Mux(joined, Mode.WINDOW, conv.mode)),
            *(wave.addr[s].eq(addr) for s, addr in enumerate(addrs)),
            wave.left.eq(Mux(at.x >= 0, 0, Mux(at.x <= -line_bytes, line_bytes, -at.x))),
            wave.right.eq(Mux(to_end <= 0, 0, Mux(to_end >= own, own, to_end))),
            wave.tag.valid.eq(go & output),
            wave.tag.index.eq(index),
            wave.tag.overwrite.eq(at.overwrite),
            wave.tag.half.eq(half),
            wave.tag.give.eq(go & pass_end & at.give),
        ]
        # Row y + s exists: at least -s, and more than s rows from the last one's end. A pass of
        # mode ROWS is fed from as many rows as it goes on by.
        inside = []
        for s in range(SEGMENTS):
            row_exists = Signal(name=f"inside_{s}")
            fed = ~rows_mode | (conv.ky_rows > s) if s else 1
            m.d.comb += row_exists.eq((at.y >= -s) & (self._rows_below > s) & fed)
            m.d.sync += wave.inside[s].eq(row_exists)
            inside.append(row_exists)
        # A window is one line, or two where it is not aligned, of each of its rows; otherwise there
        # is a line for each segment.
        offset_bits = (line_bytes - 1).bit_length()
        unaligned = at.addr[:offset_bits].any()
        reads = [
            inside[0],
            Mux(window, inside[0] & unaligned, rows_mode & inside[1] & int(segments > 1)),
            rows_mode & inside[2] & int(segments > 2),
            Const(0),
        ]
        if joins:
            below = joined & (at.own != line_bytes) & inside[1]
            # Its second line always: that is how the memory knows a joined window.
            reads = [*reads[:2], reads[2] | below, below]
            self._elaborate_below(m, at)
        for s, read in enumerate(reads):
            m.d.sync += wave.bank[s].eq(Mux(go & read, bank_of(addrs[s][offset_bits:]), 0))

    def _elaborate_below(self, m: Module, at: data.View) -> None:
        """Register which bytes of a window are inside the row below."""
        conv, wave = self._conv, self.wave
        line_bytes = self._config.line_bytes
        # Its first byte would be that many bytes before its row, and its end be as far.
        before, below_end = Signal(signed(X_BITS + 1)), Signal(signed(X_BITS + 2))
        m.d.comb += [
            before.eq(conv.step_kx - at.x),
            below_end.eq(self._to_end + conv.step_kx),
        ]
        far = before >= line_bytes
        m.d.sync += [
            wave.own.eq(at.own),
            wave.left_below.eq(Mux(far, line_bytes, Mux(before > at.own, before, at.own))),
            wave.right_below.eq(
                Mux(below_end <= 0, 0, Mux(below_end >= line_bytes, line_bytes, below_end))
            ),
        ]
