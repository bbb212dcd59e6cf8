"""What a board is: its FPGA, its memory, and what is built for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celosia.boards.fpga.pll import PLANNERS, Pll, plan_ecp5
from celosia.boards.fpga.tools import FpgaToolError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.system.sdram_timing import SdramChip
from celosia.install import install_advice

__all__ = ["Board", "BoardMemory", "Capacity"]

Capacity = Mapping[str, int]
"""How many of each resource an FPGA has; the names are those of the family's flow."""


@dataclass(frozen=True, kw_only=True)
class BoardMemory:
    """System memory as the NPU sees it.

    Attributes
    ----------
    kind : str
        In words, for example ``SDRAM``.
    bytes : int
    first_cycles : int
        From the acceptance of a request to the first bits of its answer, when nothing is in the
        way.
    port_bits : int
        Bits that come each cycle, at most; 0 if that is a bus word whatever its width.
    make : callable
        Returns the component, with a port ``bus``, from board, configuration, clock in hertz and
        bytes. It may request pins.
    sdram : SdramChip, optional
        The chip, if it is one.
    clock_hz : int
        Highest clock, if it has its own: `first_cycles` and `port_bits` are in its cycles.
    crossing_cycles : int
        Of the design, from one clock to the other and back.
    lost : float
        Part of the time that it gives no bits in a long transfer: refreshes and new rows.
    on_chip : bool
        It is made of the FPGA's own memories, so that another size can be chosen.
    """

    kind: str
    bytes: int
    first_cycles: int
    port_bits: int = 0
    make: Callable[[Board, NpuConfig, int, int], Any]
    sdram: SdramChip | None = None
    clock_hz: int = 0
    crossing_cycles: int = 0
    lost: float = 0.0
    on_chip: bool = False

    def port_cycles(self, config: NpuConfig) -> int:
        """Return the cycles of the memory from one bus word to the next, if nothing is lost."""
        return max(1, -(-config.bus_bits // self.port_bits)) if self.port_bits else 1


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board, and what is built for it unless something else is asked for.

    Attributes
    ----------
    name : str
        As the commands call it.
    title : str
        As its maker calls it.
    device : str
        The FPGA.
    family : str
        ``ecp5``, ``ice40``, ``gowin`` or ``xilinx7``: which tools and which clock generator.
    capacity : mapping of str to int
        What the FPGA has.
    config : str
        Preset of the NPU.
    input_hz : int
        Clock on the board.
    clock_hz : int
        Clock of the design.
    others : mapping of str to int
        Other presets that the board is good for, and the clock with each.
    memory : BoardMemory
    local_memory : callable, optional
        Returns the local memory of a machine with firmware, from its configuration; without it
        it is block RAM.
    platform : callable
        Returns the Amaranth platform.
    programmer : str
        The board's name for openFPGALoader; empty if it cannot.
    uart : tuple
        Name and number of the platform's resource.
    leds : tuple of tuple
        Resources of lamps, with the colour's name where there are several: interrupt, activity.
        There may be fewer.
    tool_options : mapping of str to tuple of str
        More options of tools, by their role: ``synth``, ``route``, ``pack``.
    remark : str
        What a user must know beforehand; empty if there is nothing.
    """

    name: str
    title: str
    device: str
    family: str
    capacity: Capacity
    config: str
    input_hz: int
    clock_hz: int
    memory: BoardMemory
    platform: Callable[[], Any]
    programmer: str
    uart: tuple[str, int] = ("uart", 0)
    leds: tuple[tuple[str, int] | tuple[str, int, str], ...] = (("led", 0), ("led", 1))
    tool_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remark: str = ""
    local_memory: Callable[[NpuConfig], Any] | None = None
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def configs(self) -> tuple[str, ...]:
        """Presets that the board is good for, its own first."""
        return (self.config, *self.others)

    def clock_with(self, config: NpuConfig) -> int:
        """Return the clock of the design, in hertz, with an NPU of this configuration."""
        return self.others.get(config.name, self.clock_hz)

    def plan_clocks(self, clock_hz: int) -> Pll:
        """Return the setting of the clock generator for a clock of the design, and the memory's.

        Raises
        ------
        CelosiaError
            If it cannot be made.
        """
        if self.memory.clock_hz:
            return plan_ecp5(self.input_hz, clock_hz, self.memory.clock_hz)
        return PLANNERS[self.family](self.input_hz, clock_hz)

    def memory_hz(self, clock_hz: int) -> int:
        """Return the clock of the memory beside one of the design; 0 if it has none of its own."""
        return round(self.plan_clocks(clock_hz).memory_hz) if self.memory.clock_hz else 0

    def interval_cycles(self, config: NpuConfig, clock_hz: int) -> float:
        """Return the cycles of the design from one bus word to the next in a long transfer."""
        ratio = self._ratio(clock_hz)
        return max(1.0, self.memory.port_cycles(config) * ratio / (1 - self.memory.lost))

    def latency_cycles(self, config: NpuConfig, clock_hz: int) -> int:
        """Return the cycles of the design from the acceptance of a request to its answer."""
        memory = self.memory
        cycles = memory.first_cycles + memory.port_cycles(config) - 1
        return round(cycles * self._ratio(clock_hz)) + memory.crossing_cycles

    def _ratio(self, clock_hz: int) -> float:
        """Return the cycles of the design in one of the memory."""
        return clock_hz / (self.memory_hz(clock_hz) or clock_hz)

    def make_platform(self) -> Any:
        """Return a new Amaranth platform.

        Raises
        ------
        FpgaToolError
            If Amaranth or its boards are not installed.
        """
        try:
            return self.platform()
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("amaranth"):
                raise
            raise FpgaToolError(
                f"board {self.name}",
                f"{error.name.split('.')[0].replace('_', '-')} is not installed",
                install_advice("boards"),
            ) from None
