"""Accumulator: two halves, filled by the array and emptied by the vector engine in turn."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.fabric.block import BlockMemory
from celosia.hw.fabric.delay import delays
from celosia.hw.memory.ports import AccRead

__all__ = ["Accumulator", "MirroredAccumulator", "tag_layout"]


def tag_layout(config: NpuConfig) -> data.StructLayout:
    """Return what travels beside a wave to the accumulator."""
    return data.StructLayout(
        {
            "valid": unsigned(1),  # the sums belong to an output
            "index": (config.acc_depth - 1).bit_length(),  # which vector of the half
            "overwrite": unsigned(1),  # write, do not add
            "half": unsigned(1),
            "give": unsigned(1),  # afterwards the half is full
        }
    )


class Accumulator(Component):
    """Two memories of acc_depth vectors of N int32.

    A tag that comes at cycle t reads the old vector; the sums are expected at cycle t + 2,
    :attr:`LEAD_CYCLES` later; the new vector is written at t + 3, so the same vector may come again
    4 cycles later.

    The first tag of a half comes more than N cycles after the half is taken, as waves go through N
    rows. So the half of a steady reader is free again up to N cycles before its last read.

    Members
    -------
    tag : In(tag_layout)
    sums : In(N x signed)
        Of the tag that came :attr:`LEAD_CYCLES` ago.
    take : In(1)
        The array begins to fill a half; only while `free`.
    free : Out(1)
        There is a half that nobody holds.
    reader : In(AccRead)
    idle : Out(1)
        No write and no read is under way.
    """

    LEAD_CYCLES = 2
    """Cycles from a tag to its sums."""

    def __init__(self, config: NpuConfig, *, sum_bits: int) -> None:
        self._config = config
        super().__init__(
            {
                "tag": In(tag_layout(config)),
                "sums": In(ArrayLayout(signed(sum_bits), config.cols)),
                "take": In(1),
                "free": Out(1, init=1),
                "reader": In(AccRead(config)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tags = delays(m, self.tag, self.LEAD_CYCLES + 1, name="tag")
        reader_half = Signal()
        # The half that the reader reads, if there is one: it selects many addresses.
        reading = Signal(2, reset_less=True)
        self._elaborate_halves(m, tags, reader_half, reading)
        self._elaborate_memories(m, tags, reader_half, reading)
        return m

    def _elaborate_memories(
        self, m: Module, tags: list[Signal], reader_half: Signal, reading: Signal
    ) -> None:
        """A memory for each half, and what either reader reads is chosen."""
        config = self._config
        cols = config.cols
        read: list[Signal] = []
        old: list[Signal] = []
        new = Signal(32 * cols, reset_less=True)
        for half in range(2):
            m.submodules[f"half_{half}"] = memory = BlockMemory(
                width_bits=32 * cols, depth=config.acc_depth
            )
            output = Signal(32 * cols, name=f"output_{half}", reset_less=True)
            m.d.comb += [
                memory.read_addr.eq(Mux(reading[half], self.reader.index, self.tag.index)),
                memory.write_addr.eq(tags[3].index),
                memory.write_data.eq(new),
                memory.write_en.eq(tags[3].valid & (tags[3].half == half)),
            ]
            read.append(memory.read_data)
            if config.vector_beats == 1:
                m.d.sync += output.eq(memory.read_data)
                old.append(output)

        kept = Signal(32 * cols, reset_less=True)
        if config.vector_beats == 1:
            m.d.comb += kept.eq(Mux(tags[2].half, old[1], old[0]))
        else:
            # What is overwritten is none of the sum: here it costs no table of its own.
            m.d.sync += kept.eq(Mux(tags[1].overwrite, 0, Mux(tags[1].half, read[1], read[0])))
        columns = []
        for c in range(cols):
            before = kept[32 * c : 32 * c + 32]
            if config.vector_beats == 1:
                before = Mux(tags[2].overwrite, 0, before)
            columns.append((before.as_signed() + self.sums[c])[:32])
        m.d.sync += new.eq(Cat(columns))
        # The last read may be asked for in the cycle of the release: its half counts then.
        read_half = delays(m, reader_half, 2, name="reader_half")
        if config.vector_beats == 1:
            m.d.comb += self.reader.data.eq(Mux(read_half[2], old[1], old[0]))
            return
        self._show_part(m, Mux(read_half[1], read[1], read[0]))

    def _show_part(self, m: Module, vector: Value) -> None:
        """Register the part of a vector that the reader wants."""
        part = Signal.like(self.reader.data, reset_less=True)
        if self._config.vector_beats > 1:
            beat = Signal.like(self.reader.beat, reset_less=True)
            m.d.sync += beat.eq(self.reader.beat)
            vector = vector.word_select(beat, len(part))
        m.d.sync += part.eq(vector)
        m.d.comb += self.reader.data.eq(part)

    def _elaborate_halves(
        self, m: Module, tags: list[Signal], reader_half: Signal, reading: Signal
    ) -> None:
        """Count free and full halves, and let the reader read the oldest full one."""
        free, full = Signal(2, init=2), Signal(2)
        given, returned = Signal(), Signal()
        m.d.comb += [
            given.eq(tags[-1].give),
            self.reader.avail.eq(full.any()),
        ]
        # The reader's last vector comes two cycles after it has given the half back.
        avail = delays(m, self.reader.avail, 2, name="avail")
        m.d.comb += self.idle.eq(~Cat((tag.valid | tag.give for tag in tags), avail).any())
        free_next, full_next = Signal(2), Signal(2)
        m.d.comb += [
            returned.eq(self._returned(m, tags[-1], reader_half)),
            free_next.eq(free + returned - self.take),
            full_next.eq(full + given - self.reader.release),
        ]
        m.d.sync += [
            free.eq(free_next),
            # From a register, as every wave waits for it.
            self.free.eq(free_next.any()),
            full.eq(full_next),
            reading.eq(
                Mux(full_next.any(), Mux(reader_half ^ self.reader.release, 0b10, 0b01), 0b00)
            ),
        ]
        with m.If(self.reader.release):
            m.d.sync += reader_half.eq(~reader_half)

    def _returned(self, m: Module, tag: Signal, reader_half: Signal) -> Value:
        """Return whether a half becomes free: once for each, before its last vectors are read."""
        reader, config = self.reader, self._config
        ahead = config.rows // config.vector_beats - 1
        near = [Signal.like(reader.index, name=f"near_{half}") for half in range(2)]
        # A position that is no output, but padding behind the last one, has the index after it.
        last = Signal.like(reader.index)
        m.d.comb += last.eq(tag.index - ~tag.valid)
        with m.If(tag.give):
            for half in range(2):
                with m.If(tag.half == half):
                    m.d.sync += near[half].eq(Mux(last > ahead, last - ahead, 0))
        early, is_free = Signal(), Signal()
        m.d.comb += early.eq(
            reader.req & reader.steady & (reader.index == Mux(reader_half, near[1], near[0]))
        )
        with m.If(reader.release):
            m.d.sync += is_free.eq(0)
        with m.Elif(early):
            m.d.sync += is_free.eq(1)
        return (early | reader.release) & ~is_free


class MirroredAccumulator(Accumulator):
    """Two memories of both halves with the same contents.

    The array reads one of them, the vector engine the other, so that neither has to be chosen. They
    take no more block RAMs as long as both halves fit the depth of one, which is 512 words of 32
    bits. What is overwritten is read as zeros, and all is a cycle earlier, as the old vector is in
    no other register than the memory's. A half is free when its last vector is read.
    """

    LEAD_CYCLES = 1

    def _returned(self, m: Module, tag: Signal, reader_half: Signal) -> Value:
        return self.reader.release

    def _elaborate_memories(
        self, m: Module, tags: list[Signal], reader_half: Signal, reading: Signal
    ) -> None:
        """Write everything twice, for each reader once."""
        config = self._config
        bits = 32 * config.cols
        new = Signal(bits, reset_less=True)
        copies = []
        for reader in ("adder", "reader"):
            m.submodules[f"of_{reader}"] = memory = BlockMemory(
                width_bits=bits, depth=2 * config.acc_depth, clears=reader == "adder"
            )
            m.d.comb += [
                memory.write_addr.eq(Cat(tags[-1].index, tags[-1].half)),
                memory.write_data.eq(new),
                memory.write_en.eq(tags[-1].valid),
            ]
            copies.append(memory)
        of_adder, of_reader = copies
        m.d.comb += [
            of_adder.read_addr.eq(Cat(self.tag.index, self.tag.half)),
            of_adder.read_clear.eq(self.tag.overwrite),
            of_reader.read_addr.eq(Cat(self.reader.index, reader_half)),
        ]
        for c in range(config.cols):
            old = of_adder.read_data.word_select(c, 32).as_signed()
            m.d.sync += new.word_select(c, 32).eq((old + self.sums[c])[:32])
        self._show_part(m, of_reader.read_data)
