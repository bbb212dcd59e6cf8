"""Pins of an SDRAM chip and its commands."""

from __future__ import annotations

from amaranth.lib import enum
from amaranth.lib.wiring import In, Out, Signature
from celosia.hw.system.sdram_timing import SdramChip

__all__ = ["ADDRESS_BITS", "ALL_BANKS", "DATA_BITS", "SdramCommand", "SdramPins", "mode_register"]

DATA_BITS = 16
ADDRESS_BITS = 13
ALL_BANKS = 1 << 10
"""A10: with PRECHARGE, all banks; with READ and WRITE, close the row afterwards."""


class SdramCommand(enum.Enum, shape=3):  # type: ignore[call-arg]
    """Levels of RAS#, CAS# and WE#, the first one in the highest bit."""

    MODE = 0b000
    REFRESH = 0b001
    PRECHARGE = 0b010
    ACTIVATE = 0b011
    WRITE = 0b100
    READ = 0b101
    BURST_STOP = 0b110
    NOP = 0b111


def mode_register(*, burst_columns: int, cas_latency: int) -> int:
    """Return the address pins of MODE: sequential bursts, for reads and writes.

    Raises
    ------
    ValueError
        If a chip has no such burst or latency.
    """
    if burst_columns not in (1, 2, 4, 8):
        raise ValueError(f"burst_columns must be 1, 2, 4 or 8, not {burst_columns!r}")
    if cas_latency not in (2, 3):
        raise ValueError(f"cas_latency must be 2 or 3, not {cas_latency!r}")
    return cas_latency << 4 | burst_columns.bit_length() - 1


class SdramPins(Signature):
    """Pins of a chip, seen from its controller.

    The clock is not among them: see docs/sdram.md for its phase.

    Members
    -------
    cke : Out(1)
        Clock enable.
    cs_n, ras_n, cas_n, we_n : Out(1)
        The command, active low.
    ba : Out(2 or less), a : Out(13)
        Bank; row, column or mode.
    dq_o : Out(16), dq_oe : Out(1), dq_i : In(16)
        Data, and whether the controller drives it.
    dqm : Out(2)
        Bytes that are not written.
    """

    def __init__(self, chip: SdramChip) -> None:
        super().__init__(
            {
                "cke": Out(1),
                "cs_n": Out(1, init=1),
                "ras_n": Out(1, init=1),
                "cas_n": Out(1, init=1),
                "we_n": Out(1, init=1),
                "ba": Out((chip.banks - 1).bit_length()),
                "a": Out(ADDRESS_BITS),
                "dq_o": Out(DATA_BITS),
                "dq_oe": Out(1),
                "dq_i": In(DATA_BITS),
                "dqm": Out(DATA_BITS // 8, init=0b11),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SdramPins) and self.members == other.members
