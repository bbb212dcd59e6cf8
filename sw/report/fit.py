"""Whether a model fits a board, and how long it takes there: by counting, before synthesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from celosia.hw.contract.isa import Region
from celosia.sw.compiler.cost.engines import MemoryTiming, predict
from celosia.sw.driver.device import FIRST_ADDRESS
from celosia.sw.driver.layout import Layout
from celosia.sw.program.file import LayerInfo, Program
from celosia.sw.report.labels import layer_label

__all__ = ["Fit", "fit_program", "heaviest_layers"]

ENDLESS = 1 << 62
LISTED_LAYERS = 3


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A model on a board.

    Attributes
    ----------
    model, config : str
    region_bytes : mapping of str to int
        What the program keeps in system memory.
    needed_bytes : int
        All of it, as the driver places it.
    memory_bytes : int
        What the board has.
    memory : MemoryTiming
        How fast it is taken to be.
    clock_hz : int
    cycles : int
        Predicted for this memory, from the doorbell to the interrupt.
    macs : int
    multipliers : tuple of int
        What the NPU takes, what the FPGA has.
    """

    model: str
    config: str
    region_bytes: Mapping[str, int]
    needed_bytes: int
    memory_bytes: int
    memory: MemoryTiming
    clock_hz: int
    cycles: int
    macs: int
    multipliers: tuple[int, int]

    @property
    def memory_fits(self) -> bool:
        """Whether there is memory enough."""
        return self.needed_bytes <= self.memory_bytes

    @property
    def npu_fits(self) -> bool:
        """Whether there are multipliers enough, which is what can be said before synthesis."""
        needed, there = self.multipliers
        return needed <= there

    @property
    def fits(self) -> bool:
        """Whether nothing is lacking."""
        return self.memory_fits and self.npu_fits

    @property
    def milliseconds(self) -> float:
        """Predicted time of an inference, without the transfer of input and output."""
        return self.cycles / self.clock_hz * 1e3

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {**asdict(self), "fits": self.fits, "milliseconds": self.milliseconds}


def fit_program(
    program: Program,
    *,
    memory_bytes: int,
    clock_hz: int,
    memory: MemoryTiming,
    multipliers: tuple[int, int] = (0, 0),
) -> Fit:
    """Return how a program does on a board.

    Parameters
    ----------
    program : Program
        Compiled for the board's configuration.
    memory_bytes, clock_hz : int
        Of the board.
    memory : MemoryTiming
        Of the board's memory.
    multipliers : tuple of int
        What the NPU takes, what the FPGA has.
    """
    layout = Layout.of(program, first=FIRST_ADDRESS, memory_bytes=ENDLESS)
    # The last command ends the program; predictions are made without it.
    prediction = predict(program.decode()[:-1], program.config, memory=memory)
    return Fit(
        model=program.model,
        config=program.config.name,
        region_bytes={region.name.lower(): layout[region].size for region in Region},
        needed_bytes=layout.end,
        memory_bytes=memory_bytes,
        memory=replace(memory),
        clock_hz=clock_hz,
        cycles=prediction.cycles,
        macs=sum(layer.macs for layer in program.layers),
        multipliers=multipliers,
    )


def heaviest_layers(program: Program) -> list[tuple[str, int]]:
    """Return the layers that move most over the bus, and how many bytes each does."""

    def moved(layer: LayerInfo) -> int:
        return layer.dram_bytes

    ordered = sorted(program.layers, key=moved, reverse=True)[:LISTED_LAYERS]
    return [(layer_label(layer), layer.dram_bytes) for layer in ordered if layer.dram_bytes]
