"""System memory for two: the NPU, and the host behind its bridge."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.lanes import memory_signature
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.bus.wishbone import BurstType, CycleType
from celosia.hw.contract.config import NpuConfig

__all__ = ["MemoryShare"]


class MemoryShare(Component):
    """Gives one system memory to the NPU, and now and then to the host.

    The NPU's requests pass without delay. For the host's the NPU is stalled until all of its
    requests are answered. When the NPU gives up (``cyc`` falls), what it has in flight is waited
    for and dropped here, so that memories need not know of it.

    Members
    -------
    npu : In(Wishbone)
        Pipelined, as wide as `mem`.
    host : In(Wishbone)
        As wide. The next request comes after the answer at the earliest, and stays until it is
        taken.
    mem : Out(Wishbone)
        ``cyc`` is high as long as a request is unanswered.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "npu": In(initiator_signature(config)),
                "host": In(memory_signature(config.bus_bits)),
                "mem": Out(initiator_signature(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        npu, host, mem = self.npu, self.host, self.mem
        in_flight = Signal(range(self._config.max_outstanding + 1))
        dropping = Signal()
        passes, asks = Signal(), Signal()
        issued, answered = Signal(), Signal()
        m.d.comb += [
            answered.eq(mem.ack | mem.err),
            issued.eq(mem.stb & ~mem.stall),
            mem.cyc.eq(mem.stb | (in_flight != 0)),
            mem.bte.eq(BurstType.LINEAR),
            npu.stall.eq(mem.stall | ~passes),
            npu.dat_r.eq(mem.dat_r),
            host.dat_r.eq(mem.dat_r),
        ]
        m.d.sync += in_flight.eq(in_flight + issued - answered)
        owned = Signal()
        m.d.comb += [host.stall.eq(1), owned.eq(1)]
        with m.FSM() as state:
            with m.State("NPU"):
                m.d.comb += passes.eq(~dropping)
                # A request that the memory has stalled must stay.
                with m.If(host.cyc & host.stb & ~(mem.stb & mem.stall)):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(in_flight == 0):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += [owned.eq(0), asks.eq(host.cyc & host.stb), host.stall.eq(mem.stall)]
                with m.If(~asks):
                    m.next = "NPU"
                with m.Elif(~mem.stall):
                    m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += [
                    owned.eq(0),
                    host.ack.eq(host.cyc & mem.ack),
                    host.err.eq(host.cyc & mem.err),
                ]
                with m.If(answered):
                    m.next = "NPU"
        # What the host asks for stays for the cycles until it is its turn, and may come from afar.
        word = Signal.like(host.dat_w, name="host_word", reset_less=True)
        lanes = Signal.like(host.sel, name="host_lanes", reset_less=True)
        m.d.sync += [word.eq(host.dat_w), lanes.eq(host.sel)]
        hosts = state.ongoing("ASK")
        # Of what is asked for the state decides, whether or not the host asks: it is wide.
        m.d.comb += mem.stb.eq(Mux(hosts, host.cyc & host.stb, npu.cyc & npu.stb & passes))
        with m.If(hosts):
            m.d.comb += [
                mem.we.eq(host.we),
                mem.adr.eq(host.adr),
                mem.dat_w.eq(word),
                mem.sel.eq(lanes),
                mem.cti.eq(CycleType.CLASSIC),
            ]
        with m.Else():
            m.d.comb += [
                mem.we.eq(npu.we),
                mem.adr.eq(npu.adr),
                mem.dat_w.eq(npu.dat_w),
                mem.sel.eq(npu.sel),
                mem.cti.eq(npu.cti),
            ]
        m.d.comb += [
            npu.ack.eq(npu.cyc & owned & ~dropping & mem.ack),
            npu.err.eq(npu.cyc & owned & ~dropping & mem.err),
        ]
        m.d.sync += dropping.eq(owned & (~npu.cyc | dropping) & (in_flight != answered))
        return m
