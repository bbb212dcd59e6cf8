"""Reads the parameter blocks of REQUANT, one ahead of the one in use."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.config import NpuConfig
from celosia.hw.isa import BIAS_LINES, BLOCK_LINES
from celosia.hw.memory.ports import LineRead
from celosia.hw.vector.uop import LINE_SUM_BITS

__all__ = ["LANE_PARAMS_LAYOUT", "ParamLoader"]


LANE_PARAMS_LAYOUT = data.StructLayout(
    {"bias": signed(32), "mult": signed(32), "left": 5, "right": 5}
)
"""Parameters of one output channel; `left` and `right` are the shift, by its sign."""


class ParamLoader(Component):
    """Loads a parameter block into a shadow set while the active set is in use.

    The active set is copied from the shadow a part at a time, each part when the first vector
    that needs it is one stage short of using it; vectors ahead of it keep theirs. As lines are
    written to the shadow in the order in which they are used, the next block may follow at once:
    one block every 10 cycles.

    Members
    -------
    start : In(1)
        Begin with the block at line `base`.
    shared : In(1)
        Blocks hold biases only.
    reload : In(1)
        The block in the shadow is being taken (stage 0 of its first vector): load the next one.
    taken : In(1)
        The block in the shadow is being taken.
    ready : Out(1)
        It may be taken.
    loading : Out(1)
        Lines are being asked for.
    copy_bias, copy_left, copy_mult, copy_right : In(1)
        The first vector is in stage 1, 2, 4, 8.
    lanes : Out
        Active parameters of each lane.
    param : Out(LineRead)
        Parameter SRAM.
    outside : Out(1)
        Line `line` is wanted and does not exist.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "shared": In(1),
                "base": In(14),
                "reload": In(1),
                "taken": In(1),
                "ready": Out(1),
                "loading": Out(1),
                "copy_bias": In(1),
                "copy_left": In(1),
                "copy_mult": In(1),
                "copy_right": In(1),
                "lanes": Out(data.ArrayLayout(LANE_PARAMS_LAYOUT, config.cols)),
                "param": Out(LineRead(config)),
                "outside": Out(1),
                "line": Out(LINE_SUM_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        last_line = Mux(self.shared, BIAS_LINES - 1, BLOCK_LINES - 1)

        loading = self.loading
        which = Signal(range(BLOCK_LINES))
        granted = self.param.req & self.param.gnt
        # A power of two: what is left above it is outside.
        size_bits = (config.param_lines - 1).bit_length()
        m.d.comb += [
            self.outside.eq(loading & self.line[size_bits:].any()),
            self.param.req.eq(loading & ~self.outside),
            self.param.line.eq(self.line),
        ]
        with m.If(granted):
            m.d.sync += [self.line.eq(self.line + 1), which.eq(which + 1)]
            with m.If(which == last_line):
                m.d.sync += [loading.eq(0), which.eq(0), self.ready.eq(~self.shared)]
        with m.If(self.taken):
            m.d.sync += self.ready.eq(0)
        with m.If(self.start):
            m.d.sync += [self.line.eq(self.base), which.eq(0), self.ready.eq(0)]
        with m.If(self.start | self.reload):
            m.d.sync += loading.eq(1)

        arrives = (Signal(name="arrives_1"), Signal(name="arrives_2"))
        which_1 = Signal.like(which, reset_less=True)
        which_2 = Signal.like(which, reset_less=True)
        m.d.sync += [
            arrives[0].eq(granted),
            arrives[1].eq(arrives[0]),
            which_1.eq(which),
            which_2.eq(which_1),
        ]
        # Multipliers and shifts are used later than they come; biases have to be there.
        with m.If(self.shared & arrives[1] & (which_2 == BIAS_LINES - 1)):
            m.d.sync += self.ready.eq(1)
        self._elaborate_lanes(m, arrives[1], which_2)
        return m

    def _elaborate_lanes(self, m: Module, arrives: Signal, which: Signal) -> None:
        """Each line has the bias or the multiplier of a quarter of the lanes, or all shifts."""
        lanes_per_line = self._config.cols // 4
        line = self.param.data
        for j in range(self._config.cols):
            shadow = Signal(LANE_PARAMS_LAYOUT, name=f"shadow_{j}", reset_less=True)
            active = Signal(LANE_PARAMS_LAYOUT, name=f"active_{j}", reset_less=True)
            quarter, place = divmod(j, lanes_per_line)
            word = line.word_select(place, 32)
            shift = line.word_select(j, 8).as_signed()
            with m.If(arrives & (which == quarter)):
                m.d.sync += shadow.bias.eq(word)
            with m.If(arrives & (which == BIAS_LINES + quarter)):
                m.d.sync += shadow.mult.eq(word)
            with m.If(arrives & (which == BLOCK_LINES - 1)):
                m.d.sync += [
                    shadow.left.eq(Mux(shift[-1], 0, shift)),
                    shadow.right.eq(Mux(shift[-1], -shift, 0)),
                ]
            for name, copy in (
                ("bias", self.copy_bias),
                ("left", self.copy_left),
                ("mult", self.copy_mult),
                ("right", self.copy_right),
            ):
                with m.If(copy):
                    m.d.sync += getattr(active, name).eq(getattr(shadow, name))
            m.d.comb += self.lanes[j].eq(active)
