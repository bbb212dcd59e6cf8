"""The look-up tables: one of 256 bytes in each lane."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.config import NpuConfig
from celosia.hw.memory.block import BlockMemory
from celosia.hw.memory.ports import WindowWrite

__all__ = ["TABLE_ENTRIES", "Table"]

TABLE_ENTRIES = 256


class Table(Component):
    """N block memories of 256 bytes: entry i of lane j is byte j of line i.

    Read latency 2 cycles (memory and output register).

    Members
    -------
    write : In(WindowWrite)
        Always granted; ``space`` has been decoded by the caller. A bus word, aligned, in the low
        bytes of ``data``. Lines from 256 on do not exist and are not written.
    index : In
        Entry wanted of each lane.
    data : Out
        The entries.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "write": In(WindowWrite(config)),
                "index": In(data.ArrayLayout(8, config.cols)),
                "data": Out(data.ArrayLayout(8, config.cols)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, word_bytes = self._config.cols, self._config.bus_bytes
        byte_bits = (lanes - 1).bit_length()
        offset = self.write.addr[:byte_bits]
        exists = ~self.write.addr[byte_bits:][8:].any()
        # Registered: tables are loaded long before they are used, and are far from the loader.
        enable = Signal(lanes)
        line = Signal(8, reset_less=True)
        word = Signal(8 * word_bytes, reset_less=True)
        m.d.comb += self.write.gnt.eq(self.write.req)
        m.d.sync += [line.eq(self.write.addr[byte_bits:]), word.eq(self.write.data)]
        for j in range(lanes):
            m.submodules[f"table_{j}"] = memory = BlockMemory(width_bits=8, depth=TABLE_ENTRIES)
            output = Signal(8, name=f"output_{j}", reset_less=True)
            # An aligned word leaves each lane one byte of the word to choose.
            word_here = offset == j - j % word_bytes
            m.d.sync += enable[j].eq(
                self.write.req & exists & word_here & self.write.mask[j % word_bytes]
            )
            m.d.comb += [
                memory.write_en.eq(enable[j]),
                memory.write_addr.eq(line),
                memory.write_data.eq(word.word_select(j % word_bytes, 8)),
                memory.read_addr.eq(self.index[j]),
                self.data[j].eq(output),
            ]
            m.d.sync += output.eq(memory.read_data)
        return m
