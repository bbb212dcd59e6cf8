"""What came out of a build: resources, clock, where the bitstream is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["BuildReport", "ClockResult", "read_clocks", "read_utilisation"]


@dataclass(frozen=True)
class ClockResult:
    """A clock after place and route.

    Attributes
    ----------
    net : str
    achieved_mhz : float
        Highest frequency at which all paths between its registers are in time, worst corner.
    wanted_mhz : float
        What the design runs at.
    """

    net: str
    achieved_mhz: float
    wanted_mhz: float


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """Figures of one build.

    Attributes
    ----------
    board, title, device, config : str
    macs : int
        Multipliers of the array.
    clock_mhz : float
        Clock of the design.
    memory : str
        Kind of system memory.
    memory_bytes : int
    stage : str
        ``synthesis`` or ``place and route``: what the resources were counted after.
    used : mapping of str to int
        Resources; after synthesis what is taken at least.
    capacity : mapping of str to int
        What the FPGA has.
    clocks : tuple of ClockResult
        Of the clocks with paths between registers; none after synthesis.
    seed : int
    seconds : mapping of str to float
        Wall clock time of each stage.
    bitstream : str
        Name of the file; empty if there is none.
    bitstream_bytes : int
    build : int
        What the board says of itself; see :class:`celosia.hw.contract.uart.Identity`.
    revision : str
    dirty : bool
    """

    board: str
    title: str
    device: str
    config: str
    macs: int
    clock_mhz: float
    memory: str
    memory_bytes: int
    stage: str
    used: Mapping[str, int]
    capacity: Mapping[str, int]
    clocks: tuple[ClockResult, ...] = ()
    seed: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    bitstream: str = ""
    bitstream_bytes: int = 0
    build: int = 0
    revision: str = ""
    dirty: bool = False

    @property
    def excess(self) -> dict[str, tuple[int, int]]:
        """Resources that there are not enough of: how many are taken, how many there are."""
        return {
            name: (used, self.capacity[name])
            for name, used in self.used.items()
            if used > self.capacity.get(name, used)
        }

    @property
    def late(self) -> tuple[ClockResult, ...]:
        """Clocks that are too fast for the paths between their registers."""
        return tuple(clock for clock in self.clocks if clock.achieved_mhz < clock.wanted_mhz)

    @property
    def fmax_mhz(self) -> float | None:
        """Highest frequency of the design's clock; None if it was not placed and routed."""
        return min(
            (clock.achieved_mhz for clock in self.clocks if clock.wanted_mhz == self.clock_mhz),
            default=None,
        )

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {**asdict(self), "fmax_mhz": self.fmax_mhz, "late": [c.net for c in self.late]}


def read_clocks(timing: Mapping[str, Any], clock_mhz: float) -> tuple[ClockResult, ...]:
    """Return the clocks of nextpnr's JSON report.

    Parameters
    ----------
    timing : mapping
        The report's content.
    clock_mhz : float
        Clock of the design. nextpnr's own figure for it is rounded, or worked out from a period
        in whole picoseconds: what is within a thousandth is this clock.
    """
    clocks = []
    for net, entry in sorted(timing.get("fmax", {}).items()):
        wanted = float(entry["constraint"])
        if abs(wanted / clock_mhz - 1) < 1e-3:
            wanted = clock_mhz
        clocks.append(ClockResult(net, float(entry["achieved"]), wanted))
    return tuple(clocks)


def read_utilisation(timing: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, int]:
    """Return what nextpnr's JSON report says is used, under the names of :attr:`Board.capacity`."""
    used: dict[str, int] = {}
    for cell, entry in timing.get("utilization", {}).items():
        if cell in names:
            used[names[cell]] = used.get(names[cell], 0) + int(entry["used"])
    return used
