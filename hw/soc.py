"""A whole system: the NPU, the host's bridge and what they share."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.array.products import NO_TABLES, TableRows
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.uart import Identity
from celosia.hw.npu import Npu
from celosia.hw.system.share import MemoryShare
from celosia.hw.uart.bridge import UartBridge

__all__ = ["Soc"]


class Soc(Component):
    """NPU and UART bridge, ready to be connected to a memory.

    ::

        rx, tx -- UartBridge --- registers -- Npu
                      |                        |
                      +------ MemoryShare -----+
                                  |
                                 mem

    Everything is in clock domain ``sync``, whose frequency is ``identity.clock_hz``.

    Parameters
    ----------
    config : NpuConfig
    identity : Identity
        What the board says of itself; its memory is the one connected to `mem`.
    local_memory : Component, optional
    tables : TableRows
        As of :class:`celosia.hw.npu.Npu`.

    Members
    -------
    rx : In(1)
        Serial line from the host, asynchronous.
    tx : Out(1)
    irq : Out(1)
        The NPU has finished or failed, and the host has not yet taken notice.
    active : Out(1)
        The NPU uses its memory: for a lamp.
    mem : Out(Wishbone)
        Of :func:`celosia.hw.bus.ports.initiator_signature`, for example to a
        :class:`celosia.hw.system.ram.BlockRam`.
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        identity: Identity,
        local_memory: Component | None = None,
        tables: TableRows = NO_TABLES,
    ) -> None:
        self._config = config
        self._tables = tables
        self._local_memory = local_memory
        self._identity = identity
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "irq": Out(1),
                "active": Out(1),
                "mem": Out(initiator_signature(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.npu = npu = Npu(
            self._config, local_memory=self._local_memory, tables=self._tables
        )
        m.submodules.bridge = bridge = UartBridge(
            identity=self._identity, memory_bits=self._config.bus_bits
        )
        m.submodules.share = share = MemoryShare(self._config)
        connect(m, bridge.csr, npu.csr)
        connect(m, bridge.mem, share.host)
        connect(m, npu.bus, share.npu)
        connect(m, share.mem, flipped(self.mem))
        m.d.comb += [
            bridge.rx.eq(self.rx),
            self.tx.eq(bridge.tx),
            bridge.irq.eq(npu.irq),
            self.irq.eq(npu.irq),
            self.active.eq(npu.bus.cyc),
        ]
        return m
