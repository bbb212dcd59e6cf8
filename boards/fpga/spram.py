"""Memories in the single-port memories of an iCE40 UltraPlus."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Instance, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.nano.layout import LocalMap
from celosia.hw.nano.local import LocalPort

__all__ = ["SPRAM_BITS", "SPRAM_WORDS", "LocalSpram", "Spram"]

SPRAM_WORDS = 16384
SPRAM_BITS = 16
WORD_BYTES = 4
BLOCK_BYTES = SPRAM_WORDS * SPRAM_BITS // 8


class _Block(Component):
    """One ``SB_SPRAM256KA``; without a platform, for simulation, a memory that behaves like it.

    Members
    -------
    address : In(14), data : In(16), mask : In(2)
    write : In(1)
        Write the bytes in the mask, else read.
    read : Out(16)
        In the next cycle; undefined after a write.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "address": In(range(SPRAM_WORDS)),
                "data": In(SPRAM_BITS),
                "mask": In(SPRAM_BITS // 8),
                "write": In(1),
                "read": Out(SPRAM_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        if platform is None:
            m.submodules.memory = memory = Memory(shape=SPRAM_BITS, depth=SPRAM_WORDS, init=[])
            write_port, read_port = memory.write_port(granularity=8), memory.read_port()
            m.d.comb += [
                write_port.addr.eq(self.address),
                write_port.data.eq(self.data),
                write_port.en.eq(self.mask & self.write.replicate(2)),
                read_port.addr.eq(self.address),
                read_port.en.eq(~self.write),
                self.read.eq(read_port.data),
            ]
            return m
        from amaranth.hdl import ClockSignal

        m.submodules.cell = Instance(
            "SB_SPRAM256KA",
            i_CLOCK=ClockSignal(),
            i_ADDRESS=self.address,
            i_DATAIN=self.data,
            # Each bit of the cell's mask is four bits of data.
            i_MASKWREN=Cat(bit.replicate(2) for bit in self.mask),
            i_WREN=self.write,
            i_CHIPSELECT=Const(1),
            i_STANDBY=Const(0),
            i_SLEEP=Const(0),
            i_POWEROFF=Const(1),
            o_DATAOUT=self.read,
        )
        return m


class LocalSpram(Component):
    """Local memory of a machine with firmware: two single-port memories, 64 KiB.

    Parameters
    ----------
    config : NpuConfig
        With memories of as much together, at most.

    Members
    -------
    port : In(LocalPort)

    Raises
    ------
    ValueError
        If they are larger.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._lanes = WORD_BYTES * 8 // SPRAM_BITS
        needed_bytes, has_bytes = LocalMap(config).bytes, self._lanes * BLOCK_BYTES
        if needed_bytes > has_bytes:
            raise ValueError(f"local memory takes {needed_bytes} bytes, there are {has_bytes}")
        super().__init__({"port": In(LocalPort(config))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        port = self.port
        for lane in range(self._lanes):
            block = _Block()
            m.submodules[f"block_{lane}"] = block
            mask = port.write.word_select(lane, SPRAM_BITS // 8)
            m.d.comb += [
                block.address.eq(port.address),
                block.data.eq(port.write_data.word_select(lane, SPRAM_BITS)),
                block.mask.eq(mask),
                block.write.eq(mask.any()),
                port.read_data.word_select(lane, SPRAM_BITS).eq(block.read),
            ]
        return m


class Spram(Component):
    """Single-port memories on a pipelined Wishbone bus: a word a cycle, an answer three later.

    Parameters
    ----------
    config : NpuConfig
        Its bus.
    memory_bytes : int
        A multiple of as many memories of 32 KiB as make a bus word.

    Members
    -------
    bus : In(Wishbone)
        From byte address 0. What is beyond the end is answered by ``err``. What is in flight when
        ``cyc`` falls is not answered.

    Raises
    ------
    ValueError
        If `memory_bytes` is not such a number.
    """

    def __init__(self, config: NpuConfig, *, memory_bytes: int) -> None:
        self._lanes = config.bus_bits // SPRAM_BITS
        row_bytes = self._lanes * BLOCK_BYTES
        if memory_bytes < row_bytes or memory_bytes % row_bytes:
            raise ValueError(
                f"memory_bytes must be a multiple of {row_bytes}, not {memory_bytes!r}"
            )
        self._rows = memory_bytes // row_bytes
        super().__init__({"bus": In(initiator_signature(config))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus = self.bus
        address = Signal(range(SPRAM_WORDS))
        row = Signal(range(self._rows) if self._rows > 1 else 1)
        row_read = Signal.like(row)
        dat_w = Signal.like(bus.dat_w, reset_less=True)
        sel = Signal.like(bus.sel)
        valid, outside = Signal(3), Signal(3)
        exists = bus.adr < self._rows * SPRAM_WORDS
        m.d.comb += [
            bus.stall.eq(0),
            bus.ack.eq(bus.cyc & valid[-1] & ~outside[-1]),
            bus.err.eq(bus.cyc & valid[-1] & outside[-1]),
        ]
        # Requested, in the memory, in its output register.
        m.d.sync += [
            Cat(address, row).eq(bus.adr),
            row_read.eq(row),
            dat_w.eq(bus.dat_w),
            sel.eq(bus.sel & (bus.cyc & bus.stb & bus.we & exists).replicate(len(bus.sel))),
            valid.eq(((valid << 1) | bus.stb)[:3] & bus.cyc.replicate(3)),
            outside.eq((outside << 1) | ~exists),
        ]
        for lane in range(self._lanes):
            mask = sel.word_select(lane, 2)
            words = []
            for number in range(self._rows):
                block = _Block()
                m.submodules[f"block_{number}_{lane}"] = block
                m.d.comb += [
                    block.address.eq(address),
                    block.data.eq(dat_w.word_select(lane, SPRAM_BITS)),
                    block.mask.eq(mask),
                    block.write.eq(mask.any() & (row == number)),
                ]
                words.append(block.read)
            part = bus.dat_r.word_select(lane, SPRAM_BITS)
            with m.Switch(row_read):
                for number, word in enumerate(words):
                    with m.Case(number):
                        m.d.sync += part.eq(word)
        return m
