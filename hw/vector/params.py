"""Reads the parameter blocks of REQUANT, one ahead of the one in use."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import BIAS_LINES, BLOCK_LINES
from celosia.hw.memory.ports import LineRead
from celosia.hw.vector.uop import LINE_SUM_BITS, beat_bits

__all__ = ["LANE_PARAMS_LAYOUT", "PARAMS", "BeatParamLoader", "ParamLoader", "place_layout"]

LANE_PARAMS_LAYOUT = data.StructLayout(
    {"bias": signed(32), "mult": signed(32), "left": 5, "right": 5}
)
"""Parameters of one output channel; `left` and `right` are the shift, by its sign."""

SHIFT_BITS = 5
WORD_BITS = 32
QUARTERS = 4
"""Lines that the biases of a block are in, and its multipliers."""


PARAMS = ("bias", "left", "mult", "right")
"""The parameters of a channel, in the order in which the pipeline uses them."""


def place_layout(config: NpuConfig) -> data.StructLayout:
    """Return where the parameters of the beats in the stages that use them are."""
    place = data.StructLayout({"beat": beat_bits(config), "half": int(config.vector_beats > 1)})
    return data.StructLayout(dict.fromkeys(PARAMS, place))


class ParamLoader(Component):
    """Loads a parameter block into a shadow set while the active set is in use.

    The active set is copied from the shadow a part at a time, each part when the first vector
    that needs it is one stage short of using it; vectors ahead of it keep theirs. As lines are
    written to the shadow in the order in which they are used, the next block may follow at once:
    one block every 10 cycles.

    Where a vector takes several beats the two sets are the halves of memories, and each beat brings
    along where its parameters are. Nothing is copied.

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
        The first vector is in the stage before the one that uses it.
    place : In
        Where the parameters of the beats in the pipeline are.
    half : Out(1)
        Half of the memories that has the block that may be taken, or gets it.
    lanes : Out
        Parameters of each lane.
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
                "place": In(place_layout(config)),
                "half": Out(1),
                "lanes": Out(data.ArrayLayout(LANE_PARAMS_LAYOUT, config.vector_lanes)),
                "param": Out(LineRead(config)),
                "outside": Out(1),
                "line": Out(LINE_SUM_BITS),
            }
        )

    @property
    def _shift_reads(self) -> int:
        """How often the line of shifts is read for a block."""
        return 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        beats = config.vector_beats
        # The line of shifts is the last one, and may be wanted several times.
        shift_reads = self._shift_reads
        reads = BLOCK_LINES - 1 + shift_reads
        last_line = Mux(self.shared, BIAS_LINES - 1, reads - 1)

        loading = self.loading
        which = Signal(range(reads))
        granted = self.param.req & self.param.gnt
        # A power of two: what is left above it is outside.
        size_bits = (config.param_lines - 1).bit_length()
        m.d.comb += [
            self.outside.eq(loading & self.line[size_bits:].any()),
            self.param.req.eq(loading & ~self.outside),
            self.param.line.eq(self.line),
        ]
        with m.If(granted):
            m.d.sync += which.eq(which + 1)
            if shift_reads == 1:
                m.d.sync += self.line.eq(self.line + 1)
            else:
                again = (which >= BLOCK_LINES - 1) & (which != last_line)
                m.d.sync += self.line.eq(self.line + ~again)
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
        if beats == 1:
            self._elaborate_registers(m, arrives[1], which_2)
        else:
            # A block may be taken while its last lines are on their way.
            half_1 = Signal(reset_less=True)
            half_2 = Signal(reset_less=True)
            m.d.sync += [half_1.eq(self.half), half_2.eq(half_1)]
            with m.If(self.taken):
                m.d.sync += self.half.eq(~self.half)
            self._elaborate_memories(m, arrives[1], which_2, half_2)
        return m

    def _elaborate_registers(self, m: Module, arrives: Signal, which: Signal) -> None:
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

    def _elaborate_memories(self, m: Module, arrives: Signal, which: Signal, half: Signal) -> None:
        """Keep lines as they come; a beat reads the words of its channels.

        A line has a quarter of the channels. If a beat has fewer, it chooses among its line's
        words; if it has more, there are several memories, which it reads in the same cycle.
        """
        config = self._config
        lanes, words = config.vector_lanes, config.cols // QUARTERS
        memories, beats_a_line = max(1, lanes // words), max(1, words // lanes)
        depth_bits = (QUARTERS // memories - 1).bit_length()
        for name, first_line in (("bias", 0), ("mult", BIAS_LINES)):
            place = self.place[name]
            address = Cat((place.beat >> (beats_a_line - 1).bit_length())[:depth_bits], place.half)
            quarter = (which - first_line)[:2]
            for index in range(memories):
                read, write = self._memory(m, f"{name}_{index}", len(self.param.data), len(address))
                m.d.comb += [
                    read.addr.eq(address),
                    write.addr.eq(Cat(quarter[2 - depth_bits :], half)),
                    write.data.eq(self.param.data),
                    write.en.eq(
                        arrives
                        & (which >= first_line)
                        & (which < first_line + QUARTERS)
                        & (quarter[: 2 - depth_bits] == index)
                    ),
                ]
                chosen = read.data
                if beats_a_line > 1:
                    in_line = place.beat[: (beats_a_line - 1).bit_length()]
                    chosen = read.data.word_select(in_line, lanes * WORD_BITS)
                for lane in range(lanes // memories):
                    m.d.comb += self.lanes[index * words + lane][name].eq(
                        chosen.word_select(lane, WORD_BITS)
                    )
        self._elaborate_shifts(m, arrives, which, half)

    def _elaborate_shifts(self, m: Module, arrives: Signal, which: Signal, half: Signal) -> None:
        """Keep the line of shifts as a word; a beat chooses its part."""
        lanes, cols = self._config.vector_lanes, self._config.cols
        shifts = [self.param.data.word_select(j, 8).as_signed() for j in range(cols)]
        for name, parts in (
            ("left", [Mux(shift[-1], 0, shift)[:SHIFT_BITS] for shift in shifts]),
            ("right", [Mux(shift[-1], -shift, 0)[:SHIFT_BITS] for shift in shifts]),
        ):
            place = self.place[name]
            read, write = self._memory(m, name, SHIFT_BITS * cols, 1)
            m.d.comb += [
                read.addr.eq(place.half),
                write.addr.eq(half),
                write.data.eq(Cat(parts)),
                write.en.eq(arrives & (which == BLOCK_LINES - 1)),
            ]
            chosen = read.data.word_select(place.beat, SHIFT_BITS * lanes)
            for lane in range(lanes):
                m.d.comb += self.lanes[lane][name].eq(chosen.word_select(lane, SHIFT_BITS))

    def _memory(self, m: Module, name: str, width_bits: int, addr_bits: int) -> tuple[Any, Any]:
        """Return the ports, for reading in the same cycle and for writing, of a small memory."""
        memory = Memory(shape=width_bits, depth=1 << addr_bits, init=[])
        m.submodules[f"memory_{name}"] = memory
        return memory.read_port(domain="comb"), memory.write_port()


class BeatParamLoader(ParamLoader):
    """Reads the line of shifts once a beat, and keeps each beat's in a word of its own.

    A block takes as many cycles more as a vector has beats, less one.
    """

    @property
    def _shift_reads(self) -> int:
        return self._config.vector_beats

    def _elaborate_shifts(self, m: Module, arrives: Signal, which: Signal, half: Signal) -> None:
        beat = which - (BLOCK_LINES - 1)
        config = self._config
        lanes, bits = config.vector_lanes, beat_bits(config)
        here = self.param.data.word_select(beat[:bits], 8 * lanes)
        shifts = [here.word_select(lane, 8).as_signed() for lane in range(lanes)]
        for name, parts in (
            ("left", [Mux(shift[-1], 0, shift)[:SHIFT_BITS] for shift in shifts]),
            ("right", [Mux(shift[-1], -shift, 0)[:SHIFT_BITS] for shift in shifts]),
        ):
            place = self.place[name]
            read, write = self._memory(m, name, SHIFT_BITS * lanes, bits + 1)
            m.d.comb += [
                read.addr.eq(Cat(place.beat, place.half)),
                write.addr.eq(Cat(beat[:bits], half)),
                write.data.eq(Cat(parts)),
                write.en.eq(arrives & (which >= BLOCK_LINES - 1)),
            ]
            for lane in range(lanes):
                m.d.comb += self.lanes[lane][name].eq(read.data.word_select(lane, SHIFT_BITS))
