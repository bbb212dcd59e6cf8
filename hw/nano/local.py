"""The local memory of the firmware machine: activations, weights, parameters and tables."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, Signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.fabric.block import BlockMemory
from celosia.hw.nano.layout import LocalMap

__all__ = ["LocalMemory", "LocalPort"]

WORD_BITS = 32


class LocalPort(Signature):
    """Access to local memory, seen from who uses it.

    Members
    -------
    address : Out(n)
        Of a word.
    write : Out(4)
        Bytes to be written; none: the word is read, and `read_data` has it in the next cycle.
    write_data : Out(32)
    read_data : In(32)
        Undefined in the cycle after a write.
    """

    def __init__(self, config: NpuConfig) -> None:
        words = LocalMap(config).bytes * 8 // WORD_BITS
        super().__init__(
            {
                "address": Out(range(words)),
                "write": Out(WORD_BITS // 8),
                "write_data": Out(WORD_BITS),
                "read_data": In(WORD_BITS),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalPort) and self.members == other.members


class LocalMemory(Component):
    """Local memory in block RAM, as inferred. A board may bring its own, with the same port.

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    port : In(LocalPort)
    """

    def __init__(self, config: NpuConfig) -> None:
        self._words = LocalMap(config).bytes * 8 // WORD_BITS
        super().__init__({"port": In(LocalPort(config))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = BlockMemory(
            width_bits=WORD_BITS, depth=self._words, granularity_bits=8
        )
        m.d.comb += [
            memory.write_addr.eq(self.port.address),
            memory.write_data.eq(self.port.write_data),
            memory.write_en.eq(self.port.write),
            memory.read_addr.eq(self.port.address),
            self.port.read_data.eq(memory.read_data),
        ]
        return m
