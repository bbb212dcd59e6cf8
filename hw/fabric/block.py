"""A block memory: one write port, one read port."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["BlockMemory"]


class BlockMemory(Component):
    """Words in block RAM. What a read gives in the cycle of a write of the same word is undefined.

    Simulation gives the old word. Block RAMs of FPGAs do not promise it, and to hold them to it
    synthesis would put a register before every write and a multiplexer behind every read. Nobody
    needs it: tokens and counters keep readers and writers of a word apart.

    Parameters
    ----------
    width_bits, depth : int
        Of a word; words.
    granularity_bits : int or None
        Bits that are written together; None: whole words.
    read_domain, write_domain : str
        Clock domains of the ports: of the same clock, which may stand still for either.
    clears : bool
        There is `read_clear`.

    Members
    -------
    write_en : In
        One bit for each granule.
    write_addr, write_data, read_addr : In
    read_clear : In(1)
        Of this cycle's address zeros are to be read; only if asked for. Block RAMs have a reset for
        it, which is that of all registers in them: those behind the memory stay outside.
    read_data : Out(width_bits)
        One cycle after the address. The way out of a block RAM takes half a cycle: register it.
    """

    def __init__(
        self,
        *,
        width_bits: int,
        depth: int,
        granularity_bits: int | None = None,
        read_domain: str = "sync",
        write_domain: str = "sync",
        clears: bool = False,
    ) -> None:
        if depth < 2:
            raise ValueError(f"depth must be at least 2, not {depth!r}")
        if granularity_bits is not None and width_bits % granularity_bits:
            raise ValueError(f"{width_bits} bits are not whole granules of {granularity_bits!r}")
        self._depth = depth
        self._granularity_bits = granularity_bits
        self._clears = clears
        self._read_domain, self._write_domain = read_domain, write_domain
        addr_bits = (depth - 1).bit_length()
        super().__init__(
            {
                "write_en": In(width_bits // (granularity_bits or width_bits)),
                "write_addr": In(addr_bits),
                "write_data": In(width_bits),
                "read_addr": In(addr_bits),
                "read_data": Out(width_bits),
                **({"read_clear": In(1)} if clears else {}),
            }
        )

    @property
    def depth(self) -> int:
        """Words."""
        return self._depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The attribute is Yosys's name for this promise; it has effect on a read port that Yosys
        # itself makes out of an asynchronous one and the register behind it.
        m.submodules.memory = memory = Memory(
            shape=len(self.write_data), depth=self._depth, init=[], attrs={"no_rw_check": 1}
        )
        write = memory.write_port(domain=self._write_domain, granularity=self._granularity_bits)
        read = memory.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.write_en),
            write.addr.eq(self.write_addr),
            write.data.eq(self.write_data),
            read.addr.eq(self.read_addr),
        ]
        output = Signal.like(self.read_data, reset_less=True)
        m.d[self._read_domain] += output.eq(read.data)
        if self._clears:
            with m.If(self.read_clear):
                m.d[self._read_domain] += output.eq(0)
        m.d.comb += self.read_data.eq(output)
        return m
