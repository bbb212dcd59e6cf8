"""Feed: from a wave's reads of the activation SRAM to the array's operands."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.array.accumulator import tag_layout
from celosia.hw.array.streamer import wave_layout
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Mode
from celosia.hw.fabric.delay import delays, memory_delay
from celosia.hw.memory.act import ARRAY_LINES, SEGMENTS, ArrayRead
from celosia.hw.memory.ports import ADDR_BITS

__all__ = ["Feed", "MemoryFeed"]

ENDS = ("left", "right", "left_below", "right_below")
"""Of a wave: where its bytes that are no padding begin and end, in both its rows."""


class Feed(Component):
    """Reads the lines of each wave and puts in the padding.

    A wave taken at cycle i enters the array at cycle i + 4; its tag comes out at
    i + 4 + tag_delay_cycles.

    Members
    -------
    wave : In(wave_layout)
    zero_point : In(signed(8))
        Value of padding, three cycles after the wave.
    act : Out(ArrayRead)
    swap, mode, window, pixels : Out
        To the array.
    tag : Out(tag_layout)
        To the accumulator.
    idle : Out(1)
        Nothing is under way.
    act_range, bank_conflict : Out(1)
        The wave taken 2 cycles ago reads beyond the memory; a bank twice.
    fault_line, conflict_addr : Out(20)
        Line that act_range is about; byte that bank_conflict is about.
    """

    def __init__(self, config: NpuConfig, *, tag_delay_cycles: int) -> None:
        self._config = config
        self._tag_delay_cycles = tag_delay_cycles
        size = config.rows
        super().__init__(
            {
                "wave": In(wave_layout(config)),
                "zero_point": In(signed(8)),
                "act": Out(ArrayRead(config)),
                "swap": Out(1),
                "mode": Out(2),
                "window": Out(ArrayLayout(signed(8), size)),
                "pixels": Out(ArrayLayout(ArrayLayout(signed(8), size), SEGMENTS)),
                "tag": Out(tag_layout(config)),
                "idle": Out(1),
                "act_range": Out(1),
                "bank_conflict": Out(1),
                "fault_line": Out(ADDR_BITS),
                "conflict_addr": Out(ADDR_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        offset_bits = (config.line_bytes - 1).bit_length()
        wave = self.wave
        for s in range(ARRAY_LINES):
            m.d.comb += [
                self.act.bank[s].eq(wave.bank[s]),
                self.act.line[s].eq(wave.addr[s] >> offset_bits),
            ]

        waves = delays(m, wave, 4, name="wave")
        self._elaborate_operands(m, waves)
        self._elaborate_checks(m, waves)

        # Decided a cycle ahead: it drives the clock enables of a whole row.
        swap = Signal()
        m.d.sync += swap.eq(waves[3].valid & waves[3].swap)
        m.d.comb += [
            self.swap.eq(swap),
            self.mode.eq(waves[4].mode),
        ]
        self._elaborate_tag(m, waves)
        return m

    def _elaborate_tag(self, m: Module, waves: list[Any]) -> None:
        """Let the tag wait for the sums."""
        tags = delays(m, waves[-1].tag, self._tag_delay_cycles, name="tag")
        m.d.comb += self.tag.eq(tags[-1])
        self._show_idle(m, waves, [Cat(tag.valid, tag.give) for tag in tags])

    def _show_idle(self, m: Module, waves: list[Any], flags: list[Any]) -> None:
        m.d.comb += self.idle.eq(~Cat((wave.valid for wave in waves), flags).any())

    def _elaborate_operands(self, m: Module, waves: list[Any]) -> None:
        """Put in the padding in the cycle in which the window comes, one after the lines."""
        config = self._config
        size = config.line_bytes
        offset_bits = (size - 1).bit_length()
        offset = waves[2].addr[0][:offset_bits]
        m.d.comb += self.act.offset.eq(offset)
        lines = []
        for s in range(1, SEGMENTS):
            line = Signal(8 * size, name=f"line_{s}", reset_less=True)
            m.d.sync += line.eq(self.act.data[s])
            lines.append(line)

        wave = waves[3]
        left, right, left_below, right_below = self._ends(m, waves)
        in_row = Signal(size)
        for i in range(size):
            m.d.comb += in_row[i].eq((left <= i) & (right > i))
        inside = in_row & wave.inside[0].replicate(size)
        if config.joins_rows:
            self._elaborate_below(m, waves)
            below = Cat((left_below <= i) & (right_below > i) for i in range(size))
            inside |= below & wave.inside[1].replicate(size)
        for i in range(size):
            byte = slice(8 * i, 8 * i + 8)
            first = Mux(inside[i], self.act.window[byte].as_signed(), self.zero_point)
            m.d.sync += [self.window[i].eq(first), self.pixels[0][i].eq(first)]
            for s in range(1, SEGMENTS):
                m.d.sync += self.pixels[s][i].eq(
                    Mux(
                        in_row[i] & wave.inside[s],
                        lines[s - 1][byte].as_signed(),
                        self.zero_point,
                    )
                )

    def _ends(self, m: Module, waves: list[Any]) -> list[Value]:
        """Return where the bytes that are no padding begin and end, in a wave's fourth cycle."""
        return [waves[3][name] for name in ENDS]

    def _elaborate_below(self, m: Module, waves: list[Any]) -> None:
        """Say which bytes of a window's lines come from the row below: those behind its own."""
        size = self._config.line_bytes
        offset_bits = (size - 1).bit_length()
        wave = waves[1]
        end = Signal(range(2 * size + 1))
        m.d.comb += end.eq(wave.addr[0][:offset_bits] + wave.own)
        joined = wave.own != size
        m.d.sync += self.act.below.eq(Cat((end <= i) & joined for i in range(2 * size)))

    def _elaborate_checks(self, m: Module, waves: list[Any]) -> None:
        """Report reads that matter and lie beyond the memory, and lines of the same bank."""
        config = self._config
        size = config.line_bytes
        offset_bits = (size - 1).bit_length()
        banks = [self.act.bank[s] for s in range(ARRAY_LINES)]
        # The fourth line is that behind the third.
        clash = [(banks[a] & banks[b]).any() for a in range(SEGMENTS) for b in range(a)]
        conflicts = delays(m, Cat(clash).any(), 2, name="conflict")
        m.d.comb += self.bank_conflict.eq(conflicts[-1])
        # What is wrong is found in the first cycle and told in the third. Of what the next wave
        # does nobody is told: the first error counts.
        with m.If(~conflicts[1]):
            m.d.sync += self.conflict_addr.eq(waves[0].addr[0])

        # Which lines hold a byte that is not padding.
        wave = waves[0]
        in_first = size - wave.addr[0][:offset_bits]
        some = wave.left < wave.right
        window = wave.mode == Mode.WINDOW
        # With one segment only a window has a second line.
        of_window = window if config.dw_segments > 1 else 1
        below = wave.inside[1] & (wave.left_below < wave.right_below) & int(config.joins_rows)
        used = [
            some & wave.inside[0] & (~window | (wave.left < in_first)),
            some & Mux(of_window, wave.inside[0] & (wave.right > in_first), wave.inside[1]),
            Mux(window, below & (wave.left_below < in_first), some & wave.inside[2]),
            below & (wave.right_below > in_first),
        ]
        line_beyond, found = Signal(ADDR_BITS), Signal()
        for s in range(ARRAY_LINES):
            line = wave.addr[s] >> offset_bits
            # The size is a power of two.
            beyond = line[(config.act_lines - 1).bit_length() :].any()
            with m.If(banks[s].any() & used[s] & beyond):
                m.d.comb += [found.eq(1), line_beyond.eq(line)]
        ranges = delays(m, found, 2, name="range")
        m.d.comb += self.act_range.eq(ranges[-1])
        with m.If(~ranges[1]):
            m.d.sync += self.fault_line.eq(line_beyond)


class MemoryFeed(Feed):
    """Keeps in memories what can be there of a tag that waits, and of what the waves say."""

    def _ends(self, m: Module, waves: list[Any]) -> list[Value]:
        early = [Value.cast(waves[0][name]) for name in ENDS]
        late = memory_delay(m, Cat(early), 3, name="ends", registers=1)
        places = accumulate((len(end) for end in early), initial=0)
        return [late[first : first + len(end)] for first, end in zip(places, early, strict=False)]

    def _elaborate_tag(self, m: Module, waves: list[Any]) -> None:
        first, last = waves[0].tag, waves[-1].tag
        # Whether it means anything is known from the first cycle on.
        flags = delays(m, Cat(last.valid, last.give), self._tag_delay_cycles, name="tag_flags")
        cycles = len(waves) - 1 + self._tag_delay_cycles
        rest = Cat(first.index, first.overwrite, first.half)
        late = memory_delay(m, rest, cycles, name="tag")
        m.d.comb += [
            Cat(self.tag.valid, self.tag.give).eq(flags[-1]),
            Cat(self.tag.index, self.tag.overwrite, self.tag.half).eq(late),
        ]
        self._show_idle(m, waves, flags)
