"""System memory, as the processor sees it: one word at a time."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import initiator_signature, word_addr_bits
from celosia.hw.bus.wishbone import CycleType
from celosia.hw.contract.config import NpuConfig
from celosia.hw.nano.instructions import Out as OutPort

__all__ = ["MemoryAccess"]

WORD_BITS = 32
LANE_BITS = 2


class MemoryAccess(Component):
    """The Wishbone initiator of the firmware machine.

    Parameters
    ----------
    config : NpuConfig
        With a bus of 32 bits.

    Members
    -------
    bus : Out(Wishbone)
    cancel : In(1)
        Give up what is under way.
    port : In(8), write : In(1), write_data : In(32)
        The processor's OUT: ports ``MEMORY_*``.
    ready : Out(1)
        Nothing is under way.
    failed : Out(1)
        The last access was answered by ``err``.
    data : Out(32)
        The word that was read last.
    address : Out(32)
        Byte address of the last access's word.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "bus": Out(initiator_signature(config)),
                "cancel": In(1),
                "port": In(8),
                "write": In(1),
                "write_data": In(WORD_BITS),
                "ready": Out(1),
                "failed": Out(1),
                "data": Out(WORD_BITS),
                "address": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        busy, asks, writes = Signal(), Signal(), Signal()
        select = Signal(len(bus.sel))
        word = Signal(WORD_BITS - LANE_BITS, reset_less=True)
        write_data = Signal(WORD_BITS, reset_less=True)
        with m.If(self.write):
            with m.Switch(self.port):
                with m.Case(OutPort.MEMORY_ADDRESS):
                    m.d.sync += word.eq(self.write_data[LANE_BITS:])
                with m.Case(OutPort.MEMORY_WRITE_DATA):
                    m.d.sync += write_data.eq(self.write_data)
                with m.Case(OutPort.MEMORY_READ):
                    m.d.sync += [busy.eq(1), asks.eq(1), writes.eq(0), select.eq(~0)]
                with m.Case(OutPort.MEMORY_WRITE):
                    m.d.sync += [
                        busy.eq(1),
                        asks.eq(1),
                        writes.eq(1),
                        select.eq(self.write_data),
                    ]
        m.d.comb += [
            bus.cyc.eq(busy),
            bus.stb.eq(asks),
            bus.we.eq(writes),
            bus.adr.eq(word),
            bus.sel.eq(select),
            bus.dat_w.eq(write_data),
            bus.cti.eq(CycleType.CLASSIC),
            self.ready.eq(~busy),
            self.address.eq(word << LANE_BITS),
        ]
        assert word_addr_bits(self._config) == WORD_BITS - LANE_BITS
        with m.If(busy & ~bus.stall):
            m.d.sync += asks.eq(0)
        with m.If(busy & (bus.ack | bus.err)):
            m.d.sync += [busy.eq(0), asks.eq(0), self.failed.eq(bus.err), self.data.eq(bus.dat_r)]
        with m.If(self.cancel):
            m.d.sync += Cat(busy, asks, self.failed).eq(0)
        return m
