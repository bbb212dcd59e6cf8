"""Whether a model fits a board, and how long it takes there: by counting, before synthesis."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Region
from celosia.hw.contract.named import has_room_for_weights, resolve_config
from celosia.quantities import KIB
from celosia.sw.compiler.build import Host, compile_model
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.driver.device import FIRST_ADDRESS
from celosia.sw.driver.layout import Layout
from celosia.sw.driver.uart.session import BAUD_RATES
from celosia.sw.profile.profile import predicted_cycles
from celosia.sw.program.file import Program
from celosia.sw.program.segments import LayerInfo
from celosia.sw.report.figures import npu_macs
from celosia.sw.report.host import measure_host, total_milliseconds
from celosia.sw.report.labels import layer_label
from celosia.sw.report.programs import Programs

if TYPE_CHECKING:
    from celosia.boards.board import Board

__all__ = [
    "Fit",
    "board_memory",
    "boards_that_fit",
    "fit_board",
    "fit_model",
    "fit_program",
    "fit_usual",
    "heaviest_layers",
    "remedies",
    "usual_memory",
]


ENDLESS = 1 << 62
LISTED_LAYERS = 3
BITS_PER_BYTE = 10
"""On a serial line, with start and stop bit."""


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
    host_operators : int
        How many operators run on the host.
    host_milliseconds : float or None
        What they take on this machine, one by one; None if that has not been measured.
    staying_bytes : int
        Weights that stay on chip from run to run.
    link_bytes : int
        What goes over the line in an inference: tensors that segments of the NPU take and give, but
        for variables that stay in the board's memory.
    reload_bytes : int
        Code and constants that go over it as well, because the segments do not fit into memory side
        by side.
    link_baud : int
        Rate of the line; 0 if it takes no time, as in simulation.
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
    host_operators: int = 0
    host_milliseconds: float | None = 0.0
    staying_bytes: int = 0
    link_bytes: int = 0
    reload_bytes: int = 0
    link_baud: int = 0

    @property
    def link_milliseconds(self) -> float:
        """Time on the line, without the frames' headers and the round trips."""
        bits = BITS_PER_BYTE * (self.link_bytes + self.reload_bytes)
        return bits / self.link_baud * 1e3 if self.link_baud else 0.0

    @property
    def total_milliseconds(self) -> float | None:
        """An inference with host and line; None if the host's time is not known."""
        if self.host_milliseconds is None:
            return None
        return self.milliseconds + self.host_milliseconds + self.link_milliseconds

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
        """Predicted time of an inference on the NPU, without the transfer of input and output."""
        return self.cycles / self.batch / self.clock_hz * 1e3

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            **asdict(self),
            "fits": self.fits,
            "milliseconds": self.milliseconds,
            "link_milliseconds": self.link_milliseconds,
            "total_milliseconds": self.total_milliseconds,
        }


def fit_program(
    program: Program,
    *,
    memory_bytes: int,
    clock_hz: int,
    memory: MemoryTiming,
    multipliers: tuple[int, int] = (0, 0),
    link_baud: int = 0,
    measure: bool = True,
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
    link_baud : int
        Rate of the serial line; 0 if what the host hands over takes no time.
    measure : bool
        Whether to measure what operators on the host take.
    """
    layouts = _layouts(program)
    side_by_side = max((layout.end for layout in layouts), default=0)
    largest = max((layout.end - layout[Region.CODE].base for layout in layouts), default=0)
    fits_together = side_by_side <= memory_bytes
    times = measure_host(program) if measure else []
    on_host = sum(len(segment.layers) for segment in program.host_segments)
    return Fit(
        model=program.model,
        config=program.config.name,
        region_bytes={
            region.name.lower(): sum(layout[region].size for layout in layouts) for region in Region
        },
        # Segments that do not fit side by side take turns.
        needed_bytes=side_by_side if fits_together else FIRST_ADDRESS + largest,
        memory_bytes=memory_bytes,
        memory=replace(memory),
        clock_hz=clock_hz,
        batch=program.batch,
        cycles=predicted_cycles(program, memory),
        macs=npu_macs(program),
        multipliers=multipliers,
        host_operators=on_host,
        host_milliseconds=None if len(times) < on_host else total_milliseconds(times),
        staying_bytes=sum(segment.staying_bytes for segment in program.npu_segments),
        link_bytes=_link_bytes(program),
        reload_bytes=0
        if fits_together
        else sum(len(part.code) + len(part.constants) for part in program.npu_segments),
        link_baud=link_baud,
    )


def _link_bytes(program: Program) -> int:
    """Return what goes over the line in an inference."""
    of_a_run = program.runs * sum(
        info.size_bytes
        for segment in program.npu_segments
        for info in (*segment.taken, *segment.given)
        if not (info.persistent and program.keeps_variables)
    )
    return of_a_run // program.batch


def _layouts(program: Program) -> list[Layout]:
    """Return the places of a program's segments, one behind the other."""
    layouts: list[Layout] = []
    for segment in program.npu_segments:
        first = layouts[-1].end if layouts else FIRST_ADDRESS
        layouts.append(Layout.of(segment, first=first, memory_bytes=ENDLESS))
    return layouts


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
    host: Host = "allow",
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
    host : "allow" or "refuse"
        What happens to operators that the NPU does not run.

    Raises
    ------
    CelosiaError
        If there is no such board or configuration, or the model cannot be compiled.
    """
    from celosia.boards.build import request_of

    request = request_of(board, config, clock_mhz=clock_mhz, memory_kib=memory_kib)
    identity = request.identity
    program = compile_model(
        model,
        request.config,
        fold=fold,
        batch=batch,
        host=host,
        memory=board_memory(request.board, request.config, identity.clock_hz),
    )
    return fit_board(
        program, request.board, clock_hz=identity.clock_hz, memory_bytes=identity.memory_bytes
    )


def fit_board(
    program: Program, board: Board, *, clock_hz: int, memory_bytes: int, measure: bool = True
) -> Fit:
    """Return how a program does on a board with this clock and system memory."""
    # The boards are an extra.
    from celosia.boards.fpga import flows, multipliers

    timing = board_memory(board, program.config, clock_hz)
    flow = flows.FLOWS[board.family]
    available = board.capacity[flow.multiplier]
    return fit_program(
        program,
        memory_bytes=memory_bytes,
        clock_hz=clock_hz,
        memory=timing,
        multipliers=(
            multipliers.multipliers_of(program.config, flow, available),
            available,
        ),
        link_baud=BAUD_RATES[0],
        measure=measure,
    )


def board_memory(board: Board, config: NpuConfig, clock_hz: int) -> MemoryTiming:
    """Return how fast a board's memory is for a machine with this clock."""
    return MemoryTiming(
        latency_cycles=board.latency_cycles(config, clock_hz),
        interval_cycles=board.interval_cycles(config, clock_hz),
    )


def usual_memory(config: NpuConfig) -> MemoryTiming | None:
    """Return the memory of the board that a configuration is made for; None if there is none."""
    if not has_room_for_weights(config):
        return None
    from celosia.boards import registry

    for board in registry.BOARDS.values():
        if any(resolve_config(name).hash == config.hash for name in board.configs):
            return board_memory(board, config, board.clock_with(config))
    return None


def fit_usual(program: Program, board: Board) -> Fit:
    """Return how a program does on a board as it is; what the host takes is not measured."""
    return fit_board(
        program,
        board,
        clock_hz=board.clock_with(program.config),
        memory_bytes=board.memory.bytes,
        measure=False,
    )


def boards_that_fit(
    model: str | os.PathLike[str] | bytes,
    unlike: Board,
    *,
    fold: bool,
    batch: int = 1,
    host: Host = "allow",
) -> list[Board]:
    """Return the other boards that a model fits."""
    from celosia.boards import registry

    programs = Programs(
        lambda config: compile_model(
            model, config, fold=fold, batch=batch, host=host, memory=usual_memory(config)
        )
    )
    found = []
    for board in registry.BOARDS.values():
        if board.name == unlike.name:
            continue
        program = programs.of(resolve_config(board.config))
        if isinstance(program, Program) and fit_usual(program, board).fits:
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
