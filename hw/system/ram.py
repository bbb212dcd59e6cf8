"""System memory in block RAM."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import NpuConfig

__all__ = ["BlockRam"]


class BlockRam(Component):
    """Block RAM on a pipelined Wishbone bus: a word a cycle, an answer two or three cycles later.

    Each byte of the word is a memory of its own. Synthesis can then spread it over block memories
    of one bit each, as deep as they get, and needs neither byte enables nor a multiplexer behind
    them. An address beyond the end is answered by ``err``. What is in flight when ``cyc`` falls is
    not answered.

    Parameters
    ----------
    config : NpuConfig
        Its bus.
    memory_bytes : int
        A multiple of the bus word.
    output_register : bool
        Whether what is read waits a cycle in a register. It need not where the memory is small and
        the clock slow: the way out of a block RAM takes half a cycle at 100 MHz, and in a large
        memory it is a long one.

    Members
    -------
    bus : In(Wishbone)
        From byte address 0.

    Raises
    ------
    ValueError
        If `memory_bytes` is not such a number.
    """

    def __init__(
        self, config: NpuConfig, *, memory_bytes: int, output_register: bool = True
    ) -> None:
        if memory_bytes < 2 * config.bus_bytes or memory_bytes % config.bus_bytes:
            raise ValueError(
                f"memory_bytes must be a multiple of the bus word ({config.bus_bytes} bytes) and"
                f" at least two of them, not {memory_bytes!r}"
            )
        self._config = config
        self._memory_bytes = memory_bytes
        self._output_register = output_register
        super().__init__({"bus": In(initiator_signature(config))})

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory."""
        return self._memory_bytes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        words = self._memory_bytes // self._config.bus_bytes
        adr = Signal(range(words))
        dat_w = Signal.like(bus.dat_w, reset_less=True)
        write = Signal.like(bus.sel)
        cycles = 3 if self._output_register else 2
        outside = Signal(cycles)
        valid = Signal(cycles)
        m.d.comb += [
            bus.stall.eq(0),
            bus.ack.eq(bus.cyc & valid[-1] & ~outside[-1]),
            bus.err.eq(bus.cyc & valid[-1] & outside[-1]),
        ]
        # Requested, in the memory, in its output register if there is one.
        exists = bus.adr < words
        m.d.sync += [
            adr.eq(bus.adr),
            dat_w.eq(bus.dat_w),
            write.eq(bus.sel & (bus.cyc & bus.stb & bus.we & exists).replicate(len(bus.sel))),
            valid.eq(((valid << 1) | bus.stb)[:cycles] & bus.cyc.replicate(cycles)),
            outside.eq((outside << 1) | ~exists),
        ]
        for lane in range(self._config.bus_bytes):
            m.submodules[f"lane_{lane}"] = memory = Memory(shape=8, depth=words, init=[])
            write_port, read_port = memory.write_port(), memory.read_port()
            m.d.comb += [
                write_port.addr.eq(adr),
                write_port.data.eq(dat_w.word_select(lane, 8)),
                write_port.en.eq(write[lane]),
                read_port.addr.eq(adr),
            ]
            domain = m.d.sync if self._output_register else m.d.comb
            domain += bus.dat_r.word_select(lane, 8).eq(read_port.data)
        return m
