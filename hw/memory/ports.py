"""Ports of the on-chip memories, from the requester's view.

All of them are described, with their timing, in ``docs/machine.md``, "Memory ports". A *line* is
``config.line_bytes`` bytes.
"""

from __future__ import annotations

from amaranth.hdl import Const, Value
from amaranth.lib.wiring import In, Out, Signature
from celosia.hw.contract.config import ACT_BANKS, NpuConfig
from celosia.hw.contract.isa import ADDRESS_BITS

__all__ = [
    "ADDR_BITS",
    "LINES_A_CYCLE",
    "LINE_BITS",
    "AccRead",
    "BankRead",
    "LineRead",
    "LineWrite",
    "WeightRead",
    "WindowRead",
    "WindowWrite",
    "bank_of",
]

ADDR_BITS = ADDRESS_BITS
"""Width of an on-chip byte address."""

LINE_BITS = 16
"""Width of an on-chip line address."""

LINES_A_CYCLE = 2
"""Array rows whose weights are loaded in one cycle."""


def bank_of(line: Value) -> Value:
    """Return the bank of a line of the activation SRAM, as one bit of ACT_BANKS."""
    return (Const(1, 1) << line[: ACT_BANKS.bit_length() - 1])[:ACT_BANKS]


class _MemoryPort(Signature):
    """Signatures of the same class with the same members are equal."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.members == other.members


class LineRead(_MemoryPort):
    """Read of one line.

    Members
    -------
    req : Out(1)
        A line is wanted.
    line : Out(16)
        Its address.
    gnt : In(1)
        Granted; a cycle of ``req & gnt`` is one read.
    data : In(8 * line_bytes)
        The line, exactly 2 cycles after the grant (and only then).
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "req": Out(1),
                "line": Out(LINE_BITS),
                "gnt": In(1),
                "data": In(8 * config.line_bytes),
            }
        )


class BankRead(_MemoryPort):
    """Read of one line of a memory in line-interleaved banks.

    Members
    -------
    bank : Out(act_banks)
        One bit: the bank of the wanted line. None: no line is wanted.
    line : Out(16)
        Its address.
    gnt : In(1)
        Granted, if a line is wanted; such a cycle is one read.
    data : In(8 * line_bytes)
        The line, exactly 2 cycles after the grant (and only then).
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "bank": Out(config.act_banks),
                "line": Out(LINE_BITS),
                "gnt": In(1),
                "data": In(8 * config.line_bytes),
            }
        )


class WindowRead(_MemoryPort):
    """Read of ``line_bytes`` bytes from any byte address of a memory in line-interleaved banks.

    Members
    -------
    req : Out(1)
        A window is wanted.
    addr : Out(20)
        Byte address of its first byte.
    banks : Out(act_banks)
        Banks that it needs: one bit, or two where the address is not that of a line.
    gnt : In(1)
        Granted; a cycle of ``req & gnt`` is one read.
    data : In(8 * line_bytes)
        The window, exactly 3 cycles after the grant (and only then); at least as many of its bytes
        as the bus has.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "req": Out(1),
                "addr": Out(ADDR_BITS),
                "banks": Out(config.act_banks),
                "gnt": In(1),
                "data": In(8 * config.line_bytes),
            }
        )


class WeightRead(_MemoryPort):
    """Read of an even line and the odd one after it, from the requester's view; never refused.

    Members
    -------
    req : Out(1)
        Lines are wanted.
    line : Out(16)
        Address of the even one; bit 0 is not looked at.
    data : In(8 * line_bytes) x 2
        The lines, exactly 2 cycles after the request.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "req": Out(1),
                "line": Out(LINE_BITS),
                "data": In(8 * config.line_bytes).array(LINES_A_CYCLE),
            }
        )


class LineWrite(_MemoryPort):
    """Write of one line; never refused, visible to a read granted three cycles later or after that.

    Members
    -------
    req : Out(1)
        Write in this cycle. From registers: others wait for it.
    outside : Out(1)
        There is no such line: nothing is written. It may be known later in the cycle.
    line : Out(16)
        Address of the line.
    data : Out(8 * line_bytes)
        The line.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "req": Out(1),
                "outside": Out(1),
                "line": Out(LINE_BITS),
                "data": Out(8 * config.line_bytes),
            }
        )


class WindowWrite(_MemoryPort):
    """Write of up to ``line_bytes`` bytes from any byte address.

    Members
    -------
    req : Out(1)
        A write is wanted; held, with everything else, until it is granted.
    space : Out(2)
        On-chip memory, :class:`celosia.hw.contract.isa.Space`.
    addr : Out(20)
        Byte i of `data` goes to ``addr + i`` modulo 2^20.
    data : Out(8 * line_bytes)
        The bytes.
    mask : Out(line_bytes)
        Bit i: byte i is written.
    gnt : In(1)
        Granted; a cycle of ``req & gnt`` is one write.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "req": Out(1),
                "space": Out(2),
                "addr": Out(ADDR_BITS),
                "data": Out(8 * config.line_bytes),
                "mask": Out(config.line_bytes),
                "gnt": In(1),
            }
        )


class AccRead(_MemoryPort):
    """Read of the oldest full half of the accumulator.

    Members
    -------
    avail : In(1)
        The oldest full half belongs to the reader.
    req : Out(1)
        Read a vector of it.
    index : Out(range(acc_depth))
        Which one.
    steady : Out(1)
        Of this half the vectors are asked for from 0 up, and none waits once the first is asked
        for. The half may then be filled again from before its last vectors are read.
    beat : Out(range(vector_beats))
        Which part of the vector, of ``vector_lanes`` channels; of no width where there is one.
    data : In(32 * vector_lanes)
        The part of the vector of int32, exactly 2 cycles after `req`.
    release : Out(1)
        Give the half back; reads asked for before or in this cycle still complete.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "avail": In(1),
                "req": Out(1),
                "index": Out(range(config.acc_depth)),
                "steady": Out(1),
                "beat": Out(range(config.vector_beats)),
                "data": In(32 * config.vector_lanes),
                "release": Out(1),
            }
        )
