"""A memory of lines that is filled from the bus and read a line at a time."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In
from celosia.hw.contract.config import NpuConfig
from celosia.hw.fabric.block import BlockMemory
from celosia.hw.fabric.gating import clock
from celosia.hw.memory.ports import LineRead, WindowWrite

__all__ = ["LineMemory", "PlainLineMemory"]


class LineMemory(Component):
    """Weight or parameter memory: one write port, one read port, in block RAM.

    Neither port ever waits. A write becomes visible to a read granted two cycles later. Addresses
    beyond the end wrap; whoever makes them checks them.

    Parameters
    ----------
    config : NpuConfig
    lines : int
        Lines of the memory.
    reader : str
        Who reads it, by the name of its gated clock. The load engine writes it.

    Members
    -------
    write : In(WindowWrite)
        Writes of one bus word, aligned to the bus word: bytes ``bus_bytes`` and up of ``data`` and
        ``mask`` are not looked at, nor is ``space``: who connects several memories gates ``req``.
    read : In(LineRead)
        Data two cycles after the request (registered memory output).
    """

    def __init__(self, config: NpuConfig, *, lines: int, reader: str) -> None:
        if lines < 2:
            raise ValueError(f"lines must be at least 2, not {lines!r}")
        self._config = config
        self._lines = lines
        self._reader = reader
        super().__init__({"write": In(WindowWrite(config)), "read": In(LineRead(config))})

    @property
    def lines(self) -> int:
        """Lines of the memory."""
        return self._lines

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line_bytes, bus_bytes = self._config.line_bytes, self._config.bus_bytes
        words = line_bytes // bus_bytes
        byte_bits = bus_bytes.bit_length() - 1
        line_bits = line_bytes.bit_length() - 1
        reader = clock(self._reader, platform)
        m.submodules.memory = memory = BlockMemory(
            width_bits=8 * line_bytes,
            depth=self._lines,
            granularity_bits=8,
            read_domain=reader,
            write_domain=clock("load", platform),
        )

        place = self.write.addr[byte_bits:line_bits]
        word_mask = self.write.mask[:bus_bytes]
        # Registered: block memories are far from the load engine, and from one another.
        enable = Signal.like(memory.write_en)
        line = Signal.like(memory.write_addr, reset_less=True)
        word = Signal(8 * bus_bytes, reset_less=True)
        m.d[clock("load", platform)] += [
            line.eq(self.write.addr[line_bits:]),
            word.eq(self.write.data),
            enable.eq(
                Cat(
                    word_mask & (self.write.req & (place == index)).replicate(bus_bytes)
                    for index in range(words)
                )
            ),
        ]
        m.d.comb += [
            self.write.gnt.eq(1),
            memory.write_addr.eq(line),
            memory.write_data.eq(word.replicate(words)),
            memory.write_en.eq(enable),
            self.read.gnt.eq(1),
            memory.read_addr.eq(self.read.line),
        ]
        self._show(m, reader, memory.read_data)
        return m

    def _show(self, m: Module, domain: str, data: Value) -> None:
        m.d[domain] += self.read.data.eq(data)


class PlainLineMemory(LineMemory):
    """Its output has no reset: so it can be the block memory's own register."""

    def _show(self, m: Module, domain: str, data: Value) -> None:
        output = Signal.like(self.read.data, reset_less=True)
        m.d[domain] += output.eq(data)
        m.d.comb += self.read.data.eq(output)
