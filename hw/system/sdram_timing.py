"""SDRAM chips: size and timing, and what the timing is in cycles of a clock.

The names of the figures are those of JEDEC Standard 21-C, section 3.11.5.1 (SDR SDRAM), which all
manufacturers use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["SDRAM_CHIPS", "Delay", "SdramChip", "SdramCycles", "SdramTiming"]

ROUNDING = 1e-9
"""A duration that is this many cycles too long is one that is not: binary fractions are inexact."""


@dataclass(frozen=True)
class Delay:
    """A shortest time between two commands.

    Attributes
    ----------
    ns : float
        In nanoseconds.
    clocks : int
        In cycles of the chip's clock; both hold.
    """

    ns: float = 0.0
    clocks: int = 0

    def cycles(self, clock_hz: float) -> int:
        """Return the least number of cycles that is long enough."""
        return max(self.clocks, math.ceil(self.ns * clock_hz / 1e9 - ROUNDING))


@dataclass(frozen=True, kw_only=True)
class SdramTiming:
    """What a chip asks for.

    Attributes
    ----------
    t_rcd : Delay
        ACTIVATE to READ or WRITE of the bank.
    t_rp : Delay
        PRECHARGE to ACTIVATE of the bank, or to REFRESH.
    t_ras, t_rc : Delay
        ACTIVATE to PRECHARGE, to the next ACTIVATE of the same bank.
    t_ras_max_ns : float
        Longest time that a row may stay open.
    t_rrd : Delay
        ACTIVATE to ACTIVATE of another bank.
    t_rfc : Delay
        REFRESH to any other command.
    t_wr : Delay
        Last word written to PRECHARGE.
    t_mrd : Delay
        MODE to any other command.
    refresh_ms : float
        Time in which each row must be refreshed once.
    refresh_commands : int
        REFRESH commands that refresh each row once.
    power_up_us : float
        Time with a stable clock before the first command.
    power_up_refreshes : int
        REFRESH commands of the power-up sequence.
    clock_ns : tuple of (int, float)
        CAS latency, and the shortest clock period with it.
    access_ns : tuple of (int, float)
        CAS latency, and the time from the clock's edge before to data that are valid (tAC).
    hold_ns : float
        Time that data stay valid after their edge (tOH).
    """

    t_rcd: Delay
    t_rp: Delay
    t_ras: Delay
    t_rc: Delay
    t_ras_max_ns: float
    t_rrd: Delay
    t_rfc: Delay
    t_wr: Delay
    t_mrd: Delay
    refresh_ms: float = 64.0
    refresh_commands: int = 8192
    power_up_us: float = 200.0
    power_up_refreshes: int = 8
    clock_ns: tuple[tuple[int, float], ...]
    access_ns: tuple[tuple[int, float], ...]
    hold_ns: float


@dataclass(frozen=True, kw_only=True)
class SdramCycles:
    """A chip's timing in cycles of a clock; what a controller counts.

    Attributes
    ----------
    rcd, rp, ras, rrd, rfc, wr, mrd : int
        As in :class:`SdramTiming`. `ras` is long enough for `t_rc` as well: ACTIVATE to PRECHARGE
        and PRECHARGE to ACTIVATE together are at least that.
    refresh : int
        Most cycles from one REFRESH to the next.
    power_up : int
        Cycles before the first command.
    """

    rcd: int
    rp: int
    ras: int
    rrd: int
    rfc: int
    wr: int
    mrd: int
    refresh: int
    power_up: int


@dataclass(frozen=True, kw_only=True)
class SdramChip:
    """A chip with a bus of 16 bits.

    Attributes
    ----------
    name : str
    rows, banks, columns : int
        Powers of two. A column is 16 bits.
    timing : SdramTiming

    Raises
    ------
    ValueError
        If a size is no power of two, or the address pins cannot carry it.
    """

    name: str
    rows: int = 8192
    banks: int = 4
    columns: int = 512
    timing: SdramTiming

    def __post_init__(self) -> None:
        for name, most in (("rows", 8192), ("banks", 4), ("columns", 1024)):
            value = getattr(self, name)
            if value < 2 or value > most or value & (value - 1):
                raise ValueError(f"{name} must be a power of two, 2 to {most}, not {value!r}")

    @property
    def memory_bytes(self) -> int:
        """Size in bytes."""
        return 2 * self.rows * self.banks * self.columns

    def cas_latency(self, clock_hz: float) -> int:
        """Return the shortest CAS latency with which the chip runs at this clock.

        Raises
        ------
        ValueError
            If there is none.
        """
        period_ns = 1e9 / clock_hz
        fitting = [cl for cl, least in self.timing.clock_ns if period_ns >= least - ROUNDING]
        if not fitting:
            raise ValueError(f"{self.name} does not run at {clock_hz / 1e6:g} MHz")
        return min(fitting)

    def capture_margins_ns(
        self,
        clock_hz: float,
        *,
        cas_latency: int,
        capture_cycles: int,
        chip_clock_ns: float,
        return_ns: float,
    ) -> tuple[float, float]:
        """Return how much too early and how much too late read data are captured at most.

        Parameters
        ----------
        clock_hz : float
        cas_latency, capture_cycles : int
            Of the controller.
        chip_clock_ns : float
            From an edge of the controller's clock to the chip's edge that takes a command sent by
            it; more than 0, at most a period.
        return_ns : float
            From the chip's data pins to the controller's capture register, its set-up included.

        Returns
        -------
        tuple of float
            Set-up and hold margin in nanoseconds; neither may be negative.
        """
        period_ns = 1e9 / clock_hz
        edge_ns = chip_clock_ns + cas_latency * period_ns + return_ns
        captured_ns = capture_cycles * period_ns
        valid_ns = edge_ns - period_ns + dict(self.timing.access_ns)[cas_latency]
        return captured_ns - valid_ns, edge_ns + self.timing.hold_ns - captured_ns

    def cycles(self, clock_hz: float) -> SdramCycles:
        """Return its timing in cycles of a clock."""
        timing = self.timing
        rp = timing.t_rp.cycles(clock_hz)
        return SdramCycles(
            rcd=timing.t_rcd.cycles(clock_hz),
            rp=rp,
            ras=max(timing.t_ras.cycles(clock_hz), timing.t_rc.cycles(clock_hz) - rp),
            rrd=timing.t_rrd.cycles(clock_hz),
            rfc=timing.t_rfc.cycles(clock_hz),
            wr=timing.t_wr.cycles(clock_hz),
            mrd=timing.t_mrd.cycles(clock_hz),
            refresh=math.floor(
                timing.refresh_ms * 1e-3 * clock_hz / timing.refresh_commands + ROUNDING
            ),
            power_up=Delay(ns=timing.power_up_us * 1e3).cycles(clock_hz),
        )


W9825G6KH_6 = SdramChip(
    name="W9825G6KH-6",
    timing=SdramTiming(
        t_rcd=Delay(ns=18),
        t_rp=Delay(ns=18),
        t_ras=Delay(ns=42),
        t_rc=Delay(ns=60),
        t_ras_max_ns=100_000,
        t_rrd=Delay(clocks=2),
        t_rfc=Delay(ns=60),
        t_wr=Delay(clocks=2),
        t_mrd=Delay(clocks=2),
        clock_ns=((2, 10.0), (3, 6.0)),
        access_ns=((2, 6.0), (3, 5.4)),
        hold_ns=3.0,
    ),
)
"""Winbond, 32 MB. AC characteristics (section 9.5) of the 256 Mbit family as printed for the
W9825G6JH; of the variants of -6 the slowest one (-6I, -6A, -6L)."""

AS4C16M16SA_6 = SdramChip(
    name="AS4C16M16SA-6",
    timing=SdramTiming(
        t_rcd=Delay(ns=18),
        t_rp=Delay(ns=18),
        t_ras=Delay(ns=42),
        t_rc=Delay(ns=60),
        t_ras_max_ns=120_000,
        t_rrd=Delay(ns=12),
        t_rfc=Delay(ns=60),
        t_wr=Delay(ns=12),
        t_mrd=Delay(ns=12),
        clock_ns=((2, 10.0), (3, 6.0)),
        access_ns=((2, 6.0), (3, 5.0)),
        hold_ns=2.5,
    ),
)
"""Alliance Memory, 32 MB. Data sheet revision 3.0 (March 2015), table 16."""

IS42S16160G_7 = SdramChip(
    name="IS42S16160G-7",
    timing=SdramTiming(
        t_rcd=Delay(ns=20),
        t_rp=Delay(ns=20),
        t_ras=Delay(ns=45),
        t_rc=Delay(ns=67.5),
        t_ras_max_ns=100_000,
        t_rrd=Delay(ns=15),
        t_rfc=Delay(ns=70),
        t_wr=Delay(ns=15, clocks=2),
        t_mrd=Delay(ns=15, clocks=2),
        clock_ns=((2, 10.0), (3, 7.0)),
        access_ns=((2, 6.5), (3, 5.4)),
        hold_ns=2.5,
    ),
)
"""ISSI, 32 MB. Clock and access times from page 1 of the data sheet of revision D. The tables of
revision G were not at hand: tRCD, tRP and tRFC are those of `IS42S16160` in LiteDRAM, the others
the slowest that are usual for a part of 143 MHz."""

MT48LC16M16A2_7E = SdramChip(
    name="MT48LC16M16A2-7E",
    timing=SdramTiming(
        t_rcd=Delay(ns=15),
        t_rp=Delay(ns=15),
        t_ras=Delay(ns=37),
        t_rc=Delay(ns=60),
        t_ras_max_ns=120_000,
        t_rrd=Delay(ns=14),
        t_rfc=Delay(ns=66),
        t_wr=Delay(ns=14),
        t_mrd=Delay(clocks=2),
        clock_ns=((2, 7.5), (3, 7.0)),
        access_ns=((2, 5.4), (3, 5.4)),
        hold_ns=1.8,
    ),
)
"""Micron, 32 MB. Data sheet "256Mb: x4, x8, x16 SDRAM", table 12; tWR as it is for a PRECHARGE by
command, which asks for more than the one before an automatic one."""

SDRAM_CHIPS = {
    chip.name: chip for chip in (W9825G6KH_6, AS4C16M16SA_6, IS42S16160G_7, MT48LC16M16A2_7E)
}
"""Chips, by name."""
