"""The smallest board for the UART bridge: memory and registers, no NPU."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out, connect
from celosia.hw.bus.csr import RegisterFile
from celosia.hw.bus.lanes import memory_signature
from celosia.hw.contract.uart import Identity
from celosia.hw.uart.bridge import UartBridge

__all__ = ["DEAD_ADDRESS", "LinkBoard", "WordMemory"]

DEAD_ADDRESS = 0x8000_0000
"""From here on nothing answers."""


class WordMemory(Component):
    """Block RAM behind a Wishbone target.

    Parameters
    ----------
    size_bytes : int
        A multiple of the bus word. Addresses beyond are answered with ``err``, those from
        `DEAD_ADDRESS` on not at all.
    data_width : int
        Bits of a bus word.
    """

    def __init__(self, *, size_bytes: int, data_width: int) -> None:
        self._word_bytes = data_width // 8
        self._words = size_bytes // self._word_bytes
        super().__init__({"bus": In(memory_signature(data_width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.storage = storage = memory.Memory(
            shape=8 * self._word_bytes, depth=self._words, init=[]
        )
        w_port, r_port = storage.write_port(granularity=8), storage.read_port()
        bus: Any = self.bus
        here, dead, ask = Signal(), Signal(), Signal()
        m.d.comb += [
            here.eq(bus.adr < self._words),
            dead.eq(bus.adr >= DEAD_ADDRESS // self._word_bytes),
            ask.eq(bus.cyc & bus.stb),
            w_port.addr.eq(bus.adr),
            w_port.data.eq(bus.dat_w),
            r_port.addr.eq(bus.adr),
            r_port.en.eq(1),
            bus.dat_r.eq(r_port.data),
        ]
        with m.If(ask & here & bus.we):
            m.d.comb += w_port.en.eq(bus.sel)
        m.d.sync += [bus.ack.eq(ask & here), bus.err.eq(ask & ~here & ~dead)]
        return m


class LinkBoard(Component):
    """A bridge with memory and a register file, to exercise the link.

    The register ``count_total`` counts writes of the doorbell; bit 0 of ``scratch`` is the
    interrupt.

    Parameters
    ----------
    identity : Identity
    bus_timeout_cycles : int
    memory_bits : int
        Width of its memory.

    Members
    -------
    rx : In(1), tx : Out(1)
    """

    def __init__(
        self, *, identity: Identity, bus_timeout_cycles: int = 1000, memory_bits: int = 32
    ) -> None:
        self._identity = identity
        self._memory_bits = memory_bits
        self._bus_timeout_cycles = bus_timeout_cycles
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bridge = UartBridge(
            identity=self._identity,
            bus_timeout_cycles=self._bus_timeout_cycles,
            memory_bits=self._memory_bits,
        )
        m.submodules.memory = system_memory = WordMemory(
            size_bytes=self._identity.memory_bytes, data_width=self._memory_bits
        )
        m.submodules.registers = registers = RegisterFile()
        connect(m, bridge.mem, system_memory.bus)
        connect(m, bridge.csr, registers.bus)
        fields = registers.fields
        rings = Signal(32)
        m.d.sync += rings.eq(rings + fields["doorbell"]["start"])
        m.d.comb += [
            bridge.rx.eq(self.rx),
            self.tx.eq(bridge.tx),
            bridge.irq.eq(fields["scratch"]["value"][0]),
            fields["count_total"]["value"].eq(rings),
        ]
        return m
