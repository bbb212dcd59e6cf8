"""Weight memory: two lines a cycle to the array."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In
from celosia.hw import parts
from celosia.hw.contract.config import NpuConfig
from celosia.hw.memory.ports import LINES_A_CYCLE, WeightRead, WindowWrite

__all__ = ["WeightMemory"]


class WeightMemory(Component):
    """Even lines in one block memory, odd lines in another.

    A layer of few pixels is bound by how fast weights get into the array: with two lines a cycle
    a matrix takes half as many cycles as the array has rows.

    Members
    -------
    write : In(WindowWrite)
        As of :class:`celosia.hw.memory.lines.LineMemory`.
    read : In(WeightRead)
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__({"write": In(WindowWrite(config)), "read": In(WeightRead(config))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        line_bits = config.line_bytes.bit_length() - 1
        m.d.comb += self.write.gnt.eq(1)
        for parity in range(LINES_A_CYCLE):
            bank = parts.line_memory(
                config, lines=config.wgt_lines // LINES_A_CYCLE, reader="array"
            )
            m.submodules[f"bank_{parity}"] = bank
            m.d.comb += [
                bank.write.req.eq(self.write.req & (self.write.addr[line_bits] == parity)),
                # The bank's own address: without the bit that chose it.
                bank.write.addr[:line_bits].eq(self.write.addr[:line_bits]),
                bank.write.addr[line_bits:].eq(self.write.addr[line_bits + 1 :]),
                bank.write.data.eq(self.write.data),
                bank.write.mask.eq(self.write.mask),
                bank.read.req.eq(self.read.req),
                bank.read.line.eq(self.read.line >> 1),
                self.read.data[parity].eq(bank.read.data),
            ]
        return m
