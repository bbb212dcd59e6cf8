"""Whether a model fits a board, and how long it takes there: by counting, before synthesis."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from celosia.errors import CompileError, UnsupportedError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Region
from celosia.hw.contract.named import resolve_config
from celosia.quantities import KIB
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.cost.engines import MemoryTiming, predict
from celosia.sw.driver.device import FIRST_ADDRESS
from celosia.sw.driver.layout import Layout
from celosia.sw.program.file import LayerInfo, Program
from celosia.sw.report.labels import layer_label

if TYPE_CHECKING:
    from celosia.boards.board import Board

__all__ = [
    "Fit",
    "boards_that_fit",
    "fit_board",
    "fit_model",
    "fit_program",
    "heaviest_layers",
    "remedies",
]


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
    batch : int
        Samples of a run.
    cycles : int
        Predicted for this memory, from the doorbell to the interrupt; of all samples.
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
    batch: int = 1

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
        return self.cycles / self.batch / self.clock_hz * 1e3

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
    layout = Layout.of(program.npu, first=FIRST_ADDRESS, memory_bytes=ENDLESS)
    # The last command ends the program; predictions are made without it.
    prediction = predict(program.npu.decode()[:-1], program.config, memory=memory)
    return Fit(
        model=program.model,
        config=program.config.name,
        region_bytes={region.name.lower(): layout[region].size for region in Region},
        needed_bytes=layout.end,
        memory_bytes=memory_bytes,
        memory=replace(memory),
        clock_hz=clock_hz,
        batch=program.batch,
        cycles=program.runs * prediction.cycles,
        macs=program.runs * sum(layer.macs for layer in program.layers),
        multipliers=multipliers,
    )


def heaviest_layers(program: Program) -> list[tuple[str, int]]:
    """Return the layers that move most over the bus, and how many bytes each does."""

    def moved(layer: LayerInfo) -> int:
        return layer.dram_bytes

    ordered = sorted(program.layers, key=moved, reverse=True)[:LISTED_LAYERS]
    return [(layer_label(layer), layer.dram_bytes) for layer in ordered if layer.dram_bytes]


def fit_model(
    model: str | os.PathLike[str] | bytes,
    board: str,
    config: str | os.PathLike[str] | NpuConfig | None = None,
    *,
    clock_mhz: float | None = None,
    memory_kib: int | None = None,
    fold: bool = False,
    batch: int = 1,
) -> Fit:
    """Say before any synthesis whether a model fits a board, and how long an inference takes.

    Parameters
    ----------
    model : path or bytes
        The ``.tflite`` file or its contents.
    board : str
        As ``celosia boards`` lists it.
    config : str, path or NpuConfig, optional
        Preset, file or configuration; by default the board's.
    clock_mhz : float, optional
        By default the board's.
    memory_kib : int, optional
        Size of a system memory on the chip; by default the board's.
    fold : bool
        Remove channels that are constant.
    batch : int
        Samples of a run.

    Raises
    ------
    CelosiaError
        If there is no such board or configuration, or the model cannot be compiled.
    """
    from celosia.boards.build import request_of

    request = request_of(board, config, clock_mhz=clock_mhz, memory_kib=memory_kib)
    program = compile_model(model, request.config, fold=fold, batch=batch)
    identity = request.identity
    return fit_board(
        program, request.board, clock_hz=identity.clock_hz, memory_bytes=identity.memory_bytes
    )


def fit_board(program: Program, board: Board, *, clock_hz: int, memory_bytes: int) -> Fit:
    """Return how a program does on a board with this clock and system memory."""
    # The boards are an extra.
    from celosia.boards.fpga import flows

    timing = MemoryTiming(
        latency_cycles=board.memory.latency_cycles(program.config),
        interval_cycles=board.memory.interval_cycles(program.config),
    )
    flow = flows.FLOWS[board.family]
    return fit_program(
        program,
        memory_bytes=memory_bytes,
        clock_hz=clock_hz,
        memory=timing,
        multipliers=(
            flows.multipliers_of(program.config, flow),
            board.capacity[flow.multiplier],
        ),
    )


def boards_that_fit(
    model: str | os.PathLike[str] | bytes, unlike: Board, *, fold: bool, batch: int = 1
) -> list[Board]:
    """Return the other boards that a model fits."""
    from celosia.boards import registry

    found = []
    for board in registry.BOARDS.values():
        if board.name == unlike.name:
            continue
        try:
            program = compile_model(model, resolve_config(board.config), fold=fold, batch=batch)
        except (CompileError, UnsupportedError):
            continue
        fit = fit_board(program, board, clock_hz=board.clock_hz, memory_bytes=board.memory.bytes)
        if fit.fits:
            found.append(board)
    return found


def remedies(
    board: Board, fit: Fit, layers: list[tuple[str, int]], others: list[Board], *, folded: bool
) -> list[str]:
    """Return what helps where a model does not fit, a sentence each."""
    lines = []
    if not fit.npu_fits:
        needed, there = fit.multipliers
        lines.append(
            f"a smaller configuration: {fit.config} takes {needed} multipliers, {board.device} has"
            f" {there}"
        )
    for other in others:
        note = f"; but {other.remark}" if other.remark else ""
        lines.append(
            f"another board: {other.name} has {other.memory.bytes // KIB:,} KiB of"
            f" {other.memory.kind}{note}"
        )
    if fit.memory_fits:
        return lines
    if board.memory.on_chip:
        lines.append(
            f"more memory: --memory {-(-fit.needed_bytes // KIB)}, if the FPGA has it left"
            f" ('celosia build {board.name}' says)"
        )
    if not folded:
        lines.append("--fold, if the model has channels that are constant")
    region, size = max(fit.region_bytes.items(), key=lambda entry: entry[1])
    named = ", ".join(f"{label} ({moved:,} bytes)" for label, moved in layers)
    lines.append(
        f"a smaller model: it is {fit.needed_bytes - fit.memory_bytes:,} bytes too much, most of it"
        f" is in {region} ({size:,}); these layers move most: {named}"
    )
    return lines
