"""Weight loader: shifts the next pass's weights into the array while the current one streams."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.config import NpuConfig
from celosia.hw.control.decode import command_layout
from celosia.hw.isa import Conv
from celosia.hw.memory.ports import LINE_BITS, LineRead

__all__ = ["WeightLoader"]


class WeightLoader(Component):
    """Loads `rows` lines a pass, in the order in which the passes stream.

    The tiles of one oc read the same weights again. A row of shadow weights is written 3 cycles
    after its line was asked for.

    Members
    -------
    conv : In(command_layout(Conv))
    start : In(1)
        First cycle of a command.
    ready : Out(1)
        A pass's weights are on their way: its first wave may be asked for.
    take : In(1)
        The first wave of a pass is asked for in this cycle.
    done : Out(1)
        The command's last weights have been read.
    wgt : Out(LineRead)
    load_en, load_row, load_data : Out
        To the array.
    out_of_range : Out(1)
        A line beyond the weight SRAM was asked for.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "conv": In(command_layout(Conv)),
                "start": In(1),
                "ready": Out(1),
                "take": In(1),
                "done": Out(1),
                "wgt": Out(LineRead(config)),
                "load_en": Out(1),
                "load_row": Out(range(config.rows)),
                "load_data": Out(8 * config.line_bytes),
                "out_of_range": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        conv = self.conv
        size = self._config.rows
        line, oc_line = Signal(LINE_BITS + 1), Signal(LINE_BITS + 1)
        row = Signal(range(size))
        # Loops as in PassWalker.
        ic, kx, ky, oc = Signal(12), Signal(8), Signal(8), Signal(12)
        rows_left = Signal(12)
        last_tile, tile_end = Signal(), Signal()
        m.d.comb += [
            last_tile.eq(rows_left <= conv.tile_rows),
            tile_end.eq((ic == conv.n_ic - 1) & (kx == conv.n_kx - 1) & (ky == conv.n_ky - 1)),
        ]
        # The shadow registers are free one cycle after the wave that takes them was asked for. One
        # more keeps passes at least four cycles apart, as the accumulator needs.
        taken, taken_late = Signal(), Signal()
        m.d.sync += [taken.eq(self.take), taken_late.eq(taken)]
        held = Signal()
        m.d.comb += self.ready.eq(held & ~taken & ~taken_late)
        with m.If(taken_late):
            m.d.sync += held.eq(0)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.done.eq(1)
                m.d.sync += [
                    line.eq(conv.wgt_addr),
                    oc_line.eq(conv.wgt_addr),
                    rows_left.eq(conv.out_h),
                    ic.eq(0),
                    kx.eq(0),
                    ky.eq(0),
                    oc.eq(0),
                ]
                with m.If(self.start):
                    m.next = "WAIT_SHADOW"
            with m.State("WAIT_SHADOW"):
                with m.If(~held):
                    m.d.sync += [held.eq(1), row.eq(0)]
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += self.wgt.req.eq(1)
                m.d.sync += [line.eq(line + 1), row.eq(row + 1)]
                with m.If(row == size - 1):
                    m.next = "WAIT_SHADOW"
                    # With the shadow already free the next load follows without a gap.
                    with m.If(~held & ~(tile_end & last_tile & (oc == conv.n_oc - 1))):
                        m.d.sync += held.eq(1)
                        m.next = "LOAD"
                    with m.If(~tile_end):
                        with m.If(ic != conv.n_ic - 1):
                            m.d.sync += ic.eq(ic + 1)
                        with m.Elif(kx != conv.n_kx - 1):
                            m.d.sync += [ic.eq(0), kx.eq(kx + 1)]
                        with m.Else():
                            m.d.sync += [ic.eq(0), kx.eq(0), ky.eq(ky + 1)]
                    with m.Else():
                        m.d.sync += [ic.eq(0), kx.eq(0), ky.eq(0)]
                        with m.If(~last_tile):
                            m.d.sync += [
                                rows_left.eq(rows_left - conv.tile_rows),
                                line.eq(oc_line),
                            ]
                        with m.Elif(oc != conv.n_oc - 1):
                            m.d.sync += [
                                rows_left.eq(conv.out_h),
                                oc.eq(oc + 1),
                                oc_line.eq(line + 1),
                            ]
                        with m.Else():
                            m.next = "IDLE"

        m.d.comb += [
            self.wgt.line.eq(line),
            self.out_of_range.eq(self.wgt.req & (line >= self._config.wgt_lines)),
        ]
        # The line is on the port two cycles after the request.
        stages = [Cat(self.wgt.req, row)]
        for stage in range(2):
            following = Signal(len(stages[-1]), name=f"request_d{stage + 1}")
            m.d.sync += following.eq(stages[-1])
            stages.append(following)
        m.d.comb += [
            Cat(self.load_en, self.load_row).eq(stages[-1]),
            self.load_data.eq(self.wgt.data),
        ]
        return m
