"""The look-up tables: one of 256 bytes for each channel of a line."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES
from celosia.hw.fabric.block import BlockMemory
from celosia.hw.memory.ports import WindowWrite
from celosia.hw.vector.uop import beat_bits

__all__ = ["NoTable", "PlainTable", "Table"]


ENTRY_CHANNELS = 4
"""Channels that an entry of 32 bits, as softmax has them, is spread over."""


class Table(Component):
    """A block memory for each lane: entry i of channel j is byte j of line i.

    Lane j % lanes has the entries of channel j; its memory holds those of all its channels side by
    side, since the words that fill the tables may have several of them. Read latency 2 cycles
    (memory and output register).

    Members
    -------
    write : In(WindowWrite)
        Always granted; ``space`` has been decoded by the caller. A bus word, aligned, in the low
        bytes of ``data``. Lines from 256 on do not exist and are not written.
    index : In
        Entry wanted of each lane.
    beat : In
        Which of its channels, one cycle later.
    data : Out
        The entries.
    entry : Out(32)
        The entries of the first four channels, of the same index.
    """

    WRITTEN_IN = "sync"
    """Domain of what is written: tables are loaded long before they are used, and are far from the
    loader."""

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "write": In(WindowWrite(config)),
                "index": In(data.ArrayLayout(8, config.vector_lanes)),
                "beat": In(beat_bits(config)),
                "data": Out(data.ArrayLayout(8, config.vector_lanes)),
                "entry": Out(8 * ENTRY_CHANNELS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        lanes, beats, word_bytes = config.vector_lanes, config.vector_beats, config.bus_bytes
        byte_bits = (config.cols - 1).bit_length()
        offset = self.write.addr[:byte_bits]
        exists = ~self.write.addr[byte_bits:][8:].any()
        enable = Signal(config.cols)
        line = Signal(8, reset_less=True)
        word = Signal(8 * word_bytes, reset_less=True)
        m.d.comb += self.write.gnt.eq(self.write.req)
        written = m.d[self.WRITTEN_IN]
        written += [line.eq(self.write.addr[byte_bits:]), word.eq(self.write.data)]
        read: list[Value] = []
        for lane in range(lanes):
            m.submodules[f"table_{lane}"] = memory = BlockMemory(
                width_bits=8 * beats,
                depth=TABLE_ENTRIES,
                granularity_bits=8 if beats > 1 else None,
            )
            output = Signal(8, name=f"output_{lane}", reset_less=True)
            m.d.comb += [
                memory.write_addr.eq(line),
                memory.read_addr.eq(self.index[lane]),
                self.data[lane].eq(output),
            ]
            for beat in range(beats):
                # An aligned word leaves each channel one byte of the word to choose.
                channel = beat * lanes + lane
                place = channel % word_bytes
                word_here = offset == channel - place
                written += enable[channel].eq(
                    self.write.req & exists & word_here & self.write.mask[place]
                )
                m.d.comb += [
                    memory.write_en[beat].eq(enable[channel]),
                    memory.write_data.word_select(beat, 8).eq(word.word_select(place, 8)),
                ]
            m.d.sync += output.eq(memory.read_data.word_select(self.beat, 8))
            read.append(memory.read_data)
        if beats == 1:
            m.d.comb += self.entry.eq(Cat(self.data[lane] for lane in range(ENTRY_CHANNELS)))
        else:
            m.d.sync += self.entry.eq(
                Cat(
                    read[channel % lanes].word_select(channel // lanes, 8)
                    for channel in range(ENTRY_CHANNELS)
                )
            )
        return m


class PlainTable(Table):
    """What is loaded goes into the memories without a register between them."""

    WRITTEN_IN = "comb"


class NoTable(Table):
    """The place of the tables in a machine in which nothing reads them: what is loaded is lost."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.write.gnt.eq(self.write.req)
        return m
