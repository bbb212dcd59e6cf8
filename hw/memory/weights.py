"""Weight memory: two lines a cycle to the array."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, Signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.memory.lines import LineMemory
from celosia.hw.memory.ports import LINE_BITS, WindowWrite

__all__ = ["LINES_A_CYCLE", "WeightMemory", "WeightRead"]

LINES_A_CYCLE = 2
"""Array rows whose weights are loaded in one cycle."""


class WeightRead(Signature):
    """Read of an even line and the odd one after it, from the requester's view; never refused.

    Members
    -------
    req : Out(1)
        Lines are wanted.
    line : Out(16)
        Address of the even one; bit 0 is not looked at.
    data : In(8 * line_bytes) x 2
        The lines, exactly 2 cycles after the request.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "req": Out(1),
                "line": Out(LINE_BITS),
                "data": In(8 * config.line_bytes).array(LINES_A_CYCLE),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WeightRead) and self.members == other.members


class WeightMemory(Component):
    """Even lines in one block memory, odd lines in another.

    A layer of few pixels is bound by how fast weights get into the array: with two lines a cycle
    a matrix takes half as many cycles as the array has rows.

    Members
    -------
    write : In(WindowWrite)
        As of :class:`LineMemory`.
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
            bank = LineMemory(config, lines=config.wgt_lines // LINES_A_CYCLE, reader="array")
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
