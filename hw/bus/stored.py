"""Registers in a memory, not in flip-flops."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["INDEX_BITS", "STORED_WRITE", "StoredWords", "WordMemory"]

WORD_BYTES = 4
WORD_BITS = 32
INDEX_BITS = 4
"""Words of a memory made of tables: no two stored registers may have the same low address bits."""

STORED_WRITE = data.StructLayout({"bytes": WORD_BYTES, "index": INDEX_BITS, "data": WORD_BITS})
"""What is written in this cycle: bytes of the word at `index`."""


class WordMemory(Component):
    """Words of 32 bits in tables, written by bytes and read in the same cycle.

    Members
    -------
    bytes : In(4), write_index : In, data : In(32)
    read_index : In
    value : Out(32)
    """

    def __init__(self, *, index_bits: int) -> None:
        self._index_bits = index_bits
        super().__init__(
            {
                "bytes": In(WORD_BYTES),
                "write_index": In(index_bits),
                "data": In(WORD_BITS),
                "read_index": In(index_bits),
                "value": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for byte in range(WORD_BYTES):
            # Tables have one write enable for all of their bits.
            memory = Memory(shape=8, depth=1 << self._index_bits, init=[])
            m.submodules[f"byte_{byte}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.bytes[byte]),
                write.addr.eq(self.write_index),
                write.data.eq(self.data.word_select(byte, 8)),
                read.addr.eq(self.read_index),
                self.value.word_select(byte, 8).eq(read.data),
            ]
        return m


class StoredWords(Component):
    """Sixteen words that are 0 after a reset: 16 cycles after it, and until then `clearing`.

    Members
    -------
    write : In(STORED_WRITE)
        The data has to be 0 while `clearing` is high.
    written : Out(STORED_WRITE)
        The same and what clears: for who keeps a copy.
    clearing : Out(1)
    read_index : In(4)
    value : Out(32)
        In the same cycle.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "write": In(STORED_WRITE),
                "written": Out(STORED_WRITE),
                "clearing": Out(1, init=1),
                "read_index": In(INDEX_BITS),
                "value": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = WordMemory(index_bits=INDEX_BITS)
        index = Signal(INDEX_BITS)
        with m.If(self.clearing):
            m.d.sync += Cat(index, self.clearing).eq(Cat(index, self.clearing) + 1)
        m.d.comb += [
            self.written.bytes.eq(self.write.bytes | self.clearing.replicate(WORD_BYTES)),
            self.written.index.eq(Mux(self.clearing, index, self.write.index)),
            self.written.data.eq(self.write.data),
            memory.bytes.eq(self.written.bytes),
            memory.write_index.eq(self.written.index),
            memory.data.eq(self.written.data),
            memory.read_index.eq(self.read_index),
            self.value.eq(memory.value),
        ]
        return m
