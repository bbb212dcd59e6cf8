"""Where a model runs: every preset, every board, compiled once a configuration."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS, NpuConfig, preset
from celosia.hw.contract.named import BOARD_PRESETS, resolve_config
from celosia.quantities import KIB, MHZ
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.program.file import Program
from celosia.sw.report.columns import Column, milliseconds, table_lines
from celosia.sw.report.fit import ENDLESS, Fit, fit_program, fit_usual
from celosia.sw.report.programs import Compile, Programs

__all__ = [
    "Compile",
    "Place",
    "PresetPlace",
    "board_lines",
    "clock_of",
    "fit_alone",
    "fits_everywhere",
    "place_figures",
    "preset_lines",
]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model on a board.

    Attributes
    ----------
    name, title : str
        Of the board.
    fit : Fit or None
        None if the model cannot be compiled for its configuration.
    lacking : str
        What it lacks; empty if the model fits.
    remark : str
        What a user must know of the board.
    """

    name: str
    title: str
    fit: Fit | None
    lacking: str
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class PresetPlace:
    """A model on a preset.

    Attributes
    ----------
    name : str
        The preset's.
    fit : Fit or None
        At the preset's usual clock; None if it cannot be compiled.
    clock : str
        Whose clock that is.
    lacking : str
        Why it cannot be compiled.
    """

    name: str
    fit: Fit | None
    clock: str
    lacking: str = ""


def clock_of(config: NpuConfig) -> tuple[int, str]:
    """Return the clock that a configuration usually has, and whose it is.

    That of the first board which is good for this preset; for others the fastest board's.
    """
    from celosia.boards import registry

    for board in registry.BOARDS.values():
        own = BOARD_PRESETS.get(board.config, board.config)
        if config.name in (own, *board.others) and preset(config.name) == config:
            return board.clock_with(config), f"{board.name}'s clock"
    fastest = max(registry.BOARDS.values(), key=lambda board: board.clock_hz)
    return fastest.clock_hz, f"no board has it; {fastest.name}'s clock"


def fit_alone(program: Program, clock_hz: int, memory: MemoryTiming | None = None) -> Fit:
    """Return how a program does with endless memory; what the host takes is not measured."""
    return fit_program(
        program,
        memory_bytes=ENDLESS,
        clock_hz=clock_hz,
        memory=memory or MemoryTiming(),
        measure=False,
    )


def fits_everywhere(
    compile_for: Compile,
    known: Sequence[Program] = (),
    *,
    presets: bool = True,
    progress: Callable[[str], object] = lambda text: None,
) -> tuple[list[PresetPlace], list[Place]]:
    """Return how a model does on every preset and on every board.

    Parameters
    ----------
    compile_for : callable
        Compiles it for a configuration.
    known : sequence of Program
        Programs of it that there are already.
    presets : bool
        Whether those that no board has are wanted, too; else the first list is empty.
    progress : callable
        Is given a few words before something that takes time.
    """
    from celosia.boards import registry

    programs = Programs(compile_for, known, progress)
    alone: list[PresetPlace] = []
    for name in PRESETS if presets else ():
        program = programs.of(preset(name))
        clock_hz, whose = clock_of(preset(name))
        if isinstance(program, CelosiaError):
            alone.append(PresetPlace(name=name, fit=None, clock=whose, lacking=str(program)))
            continue
        alone.append(PresetPlace(name=name, fit=fit_alone(program, clock_hz), clock=whose))
    places: list[Place] = []
    for board in registry.BOARDS.values():
        about: dict[str, str] = {
            "name": board.name,
            "title": board.title,
            "remark": board.remark,
        }
        program = programs.of(resolve_config(board.config))
        if isinstance(program, CelosiaError):
            places.append(Place(fit=None, lacking=str(program), **about))
            continue
        fit = fit_usual(program, board)
        fit = replace(fit, host_milliseconds=programs.host_milliseconds(program))
        places.append(Place(fit=fit, lacking=lacking(fit), **about))
    return alone, places


def lacking(fit: Fit) -> str:
    """Return what a board lacks for a model; empty if it fits."""
    short = []
    if not fit.memory_fits:
        missing = -(-(fit.needed_bytes - fit.memory_bytes) // KIB)
        short.append(f"{missing:,} KiB of memory")
    if not fit.npu_fits:
        needed, there = fit.multipliers
        short.append(f"{needed - there:,} multipliers")
    return " and ".join(short)


def preset_lines(presets: Sequence[PresetPlace], width: int) -> list[str]:
    """Return the table of presets."""

    def cells(show: Callable[[Fit], str]) -> list[str]:
        return ["" if entry.fit is None else show(entry.fit) for entry in presets]

    return table_lines(
        [
            Column(title="preset", cells=[entry.name for entry in presets]),
            Column(title="cycles", cells=cells(lambda fit: f"{fit.cycles:,}"), right=True),
            Column(title="ms", cells=cells(lambda fit: milliseconds(fit.milliseconds)), right=True),
            Column(title="MHz", cells=cells(lambda fit: f"{fit.clock_hz / MHZ:g}"), right=True),
            Column(
                title="memory KiB",
                cells=cells(lambda fit: f"{-(-fit.needed_bytes // KIB):,}"),
                right=True,
                importance=1,
            ),
            Column(
                title="on the host",
                cells=cells(lambda fit: f"{fit.host_operators:,}" if fit.host_operators else ""),
                right=True,
                importance=2,
            ),
            Column(
                title="remark",
                cells=[entry.lacking or entry.clock for entry in presets],
                importance=3,
                wraps=True,
            ),
        ],
        width,
    )


def board_lines(places: Sequence[Place], width: int) -> list[str]:
    """Return the table of boards."""

    def cells(show: Callable[[Fit], str]) -> list[str]:
        return ["" if place.fit is None else show(place.fit) for place in places]

    def memory(fit: Fit) -> str:
        return f"{-(-fit.needed_bytes // KIB):,} of {fit.memory_bytes // KIB:,}"

    def host(fit: Fit) -> str:
        if not fit.host_operators:
            return ""
        return "?" if fit.host_milliseconds is None else milliseconds(fit.host_milliseconds)

    times = cells(lambda fit: milliseconds(fit.milliseconds))
    lines = table_lines(
        [
            Column(title="board", cells=[place.name for place in places]),
            Column(title="config", cells=cells(lambda fit: fit.config)),
            Column(title="fits", cells=["no" if place.lacking else "yes" for place in places]),
            Column(title="NPU ms", cells=times, right=True),
            Column(title="host ms", cells=cells(host), right=True),
            Column(
                title="line ms",
                cells=cells(lambda fit: milliseconds(fit.link_milliseconds)),
                right=True,
                importance=3,
            ),
            Column(
                title="MHz",
                cells=cells(lambda fit: f"{fit.clock_hz / MHZ:g}"),
                right=True,
                importance=4,
            ),
            Column(title="memory KiB", cells=cells(memory), right=True, importance=2),
            Column(
                title="remark",
                cells=[
                    f"lacks {place.lacking}"
                    if place.fit is not None and place.lacking
                    else place.lacking
                    for place in places
                ],
                importance=1,
                wraps=True,
            ),
        ],
        width,
    )
    remarks: dict[str, list[str]] = {}
    for place in places:
        if place.remark:
            remarks.setdefault(place.remark, []).append(place.name)
    for remark, names in remarks.items():
        lines += textwrap.wrap(f"{', '.join(names)}: {remark}", width, subsequent_indent="  ")
    return lines


def place_figures(presets: Sequence[PresetPlace], places: Sequence[Place]) -> dict[str, Any]:
    """Return both tables as plain values, for ``--json``."""
    return {
        "presets": [
            {
                "name": entry.name,
                "clock_of": entry.clock,
                "lacking": entry.lacking,
                **_figures(entry.fit),
            }
            for entry in presets
        ],
        "boards": [
            {
                "name": place.name,
                "title": place.title,
                "lacking": place.lacking,
                "remark": place.remark,
                **_figures(place.fit),
            }
            for place in places
        ],
    }


def _figures(fit: Fit | None) -> Mapping[str, Any]:
    if fit is None:
        return {"fits": False}
    return {key: value for key, value in fit.figures().items() if key != "model"}
