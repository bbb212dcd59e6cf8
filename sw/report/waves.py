"""Waveforms of a run: which cycles are in it, and what its signals call layers and commands."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from celosia.errors import CelosiaError, ProgramError
from celosia.hw.contract.config import NpuConfig
from celosia.sw.program.file import Program
from celosia.sw.program.segments import NO_LAYER, LayerInfo, NpuSegment
from celosia.sw.report.files import require_writable, write_bytes
from celosia.sw.report.labels import command_label, layer_label
from celosia.sw.report.signal_list import gtkwave_list

if TYPE_CHECKING:
    from celosia.sim.rtl.rtl import CommandNames

__all__ = ["SUFFIXES", "Waveform", "find_layer", "plan_waveform"]

SUFFIXES = (".fst", ".vcd")
LIST_SUFFIX = ".gtkw"
MOST_BYTES = 4_000_000_000
"""Of a file: what is expected to be larger is refused."""
BYTES_A_CYCLE = {".vcd": 250, ".fst": 21}
"""Of a file, for each of the array's multipliers, while all work: measured at `base`."""
FIRMWARE_BYTES_A_CYCLE = {".vcd": 2000, ".fst": 80}
"""The same of a machine with firmware as a whole, measured at `nano`."""
MOST_LISTED = 12
CLOSE = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Waveform:
    """A waveform that is to be written.

    Attributes
    ----------
    path : Path
        Of the file; its suffix is one of `SUFFIXES`.
    layers : tuple of LayerInfo
        Whose commands are to be seen.
    names : tuple of (NpuSegment, CommandNames)
        Of the segments that have such layers.
    expected_cycles, expected_bytes : int
        What the compiler predicts for these layers, and about the size of the file.
    """

    path: Path
    layers: tuple[LayerInfo, ...]
    names: tuple[tuple[NpuSegment, CommandNames], ...]
    expected_cycles: int
    expected_bytes: int

    @property
    def list_path(self) -> Path:
        """Of the signal list for GTKWave, beside the file."""
        return self.path.with_suffix(LIST_SUFFIX)

    def names_of(self, segment: NpuSegment) -> CommandNames | None:
        """Return the names for a segment; None if none of its commands is to be seen."""
        return next((names for own, names in self.names if own is segment), None)

    def finish(self, header: str) -> None:
        """Write the signal list, if there is a file: a run may end before its first cycle.

        Parameters
        ----------
        header : str
            The declarations of the file's signals, as VCD has them.
        """
        if header and self.path.is_file():
            write_bytes(
                self.list_path, gtkwave_list(self.path, header, self.expected_cycles).encode()
            )


def plan_waveform(
    program: Program, path: Path, first: str | None = None, last: str | None = None
) -> Waveform:
    """Return what a waveform of some layers needs; nothing is written.

    Parameters
    ----------
    program : Program
        That is to be run.
    path : Path
        Of the file.
    first, last : str, optional
        Its layers, as `find_layer` takes them; by default the program's first and last.

    Raises
    ------
    CelosiaError
        If the file cannot be written or would be too large, or there are no such layers.
    ProgramError
        If the program does not say which layers its commands are for.
    """
    if path.suffix not in SUFFIXES:
        raise CelosiaError(
            f"cannot write {path}",
            f"a waveform is one of {' and '.join(SUFFIXES)}",
            f"give a name such as {path.with_suffix('.fst').name}",
        )
    require_writable(path, path.with_suffix(LIST_SUFFIX))
    for file in (path, path.with_suffix(LIST_SUFFIX)):
        if file.exists() and not os.access(file, os.W_OK):
            raise CelosiaError(f"cannot write {file}", "it is write-protected", "give another name")
    places = _places(program)
    layers = [segment.layers[index] for segment, index in places]
    begin = 0 if first is None else find_layer(layers, first, "--from")[0]
    end = len(layers) - 1 if last is None else find_layer(layers, last, "--to")[-1]
    if begin > end:
        raise CelosiaError(
            f"--from {first}" + ("" if last is None else f" --to {last}"),
            f"layer {layer_label(layers[begin])} comes after layer {layer_label(layers[end])}",
            "exchange them",
        )
    wanted = places[begin : end + 1]
    if not any(index in segment.command_layers for segment, index in wanted):
        raise CelosiaError(
            f"layer {layer_label(layers[begin])}",
            "it has no commands: it takes no time",
            "name a layer that has",
        )
    chosen = tuple(layers[begin : end + 1])
    cycles = sum(layer.predicted_cycles for layer in chosen)
    size = expected_bytes(program.config, cycles, path.suffix)
    _require_room(path, size, cycles)
    return Waveform(
        path=path,
        layers=chosen,
        names=tuple(
            (segment, _names(segment, {index for own, index in wanted if own is segment}))
            for segment in program.npu_segments
            if any(own is segment for own, _ in wanted)
        ),
        expected_cycles=cycles,
        expected_bytes=size,
    )


def find_layer(layers: Sequence[LayerInfo], name: str, option: str = "layer") -> list[int]:
    """Return the places of the layers that a user means, in order.

    Parameters
    ----------
    layers : sequence of LayerInfo
        Of a program.
    name : str
        A number as in ``#3 CONV_2D``, with or without the rest, an operator that is there once, or
        the name of a layer's result.
    option : str
        What it is for, for messages.

    Raises
    ------
    CelosiaError
        If there is none, with names that are like it; or several of other numbers.
    """
    wanted = name.strip()
    number = wanted.removeprefix("#")
    if number.isdecimal():
        found = [i for i, layer in enumerate(layers) if layer.origin.index == int(number)]
        if not found:
            raise _unknown(layers, name, option)
        return found
    found = [
        place
        for place, layer in enumerate(layers)
        if wanted in (layer_label(layer), layer.name, short_name(layer), layer.op)
    ]
    if not found:
        raise _unknown(layers, name, option)
    if len({layers[place].origin.index for place in found}) > 1:
        labels = ", ".join(layer_label(layers[place]) for place in found[:MOST_LISTED])
        more = ", ..." if len(found) > MOST_LISTED else ""
        raise CelosiaError(
            f"{option} {name}", f"there are {len(found)}: {labels}{more}", "give the number"
        )
    return found


def short_name(layer: LayerInfo) -> str:
    """Return the name of a layer's result; of several that TFLite has joined, the first."""
    return layer.name.split(";")[0]


def expected_bytes(config: NpuConfig, cycles: int, suffix: str) -> int:
    """Return about the size of a waveform; where the array waits it is smaller.

    Parameters
    ----------
    config : NpuConfig
    cycles : int
        That are in it.
    suffix : str
        One of `SUFFIXES`.
    """
    if config.firmware:
        return cycles * FIRMWARE_BYTES_A_CYCLE[suffix]
    return cycles * BYTES_A_CYCLE[suffix] * config.rows * config.cols


def _unknown(layers: Sequence[LayerInfo], name: str, option: str) -> CelosiaError:
    """Return the error for a layer that is not there, with the nearest of those that are."""
    labels = [layer_label(layer) for layer in layers]
    names = dict.fromkeys(labels + [short_name(layer) for layer in layers])
    wanted = name.strip()
    number = wanted.removeprefix("#").split(" ")[0]
    near: list[str] = []
    if number.isdecimal():
        by_distance = sorted(
            (abs(layer.origin.index - int(number)), label)
            for layer, label in zip(layers, labels, strict=True)
            if layer.origin.index >= 0
        )
        near = [label for _, label in by_distance[:2]]
    else:
        lower = {other.lower(): other for other in names}
        close = difflib.get_close_matches(wanted.lower(), lower, n=CLOSE, cutoff=0.5)
        near = [lower[match] for match in close]
    if not near:
        near = labels[:MOST_LISTED]
    listed = ", ".join(repr(other) for other in near)
    return CelosiaError(
        f"{option} {name}", "no layer that runs on the NPU has this name", f"try {listed}"
    )


def _places(program: Program) -> list[tuple[NpuSegment, int]]:
    """Return the layers of the NPU in the program's order: segment, index."""
    for segment in program.npu_segments:
        if not segment.command_layers:
            raise ProgramError(
                f"program {segment.name!r}",
                "it does not say which layers its commands are for",
                "take a program that the compiler made",
            )
    places = [
        (segment, index) for segment in program.npu_segments for index in range(len(segment.layers))
    ]
    if not places:
        raise CelosiaError("--trace", "nothing of this model runs on the NPU", "leave --trace out")
    return places


def _names(segment: NpuSegment, wanted: set[int]) -> CommandNames:
    """Return the tables for a segment; `wanted` are layers by index."""
    from celosia.sim.rtl.rtl import (
        NAME_BYTES,
        TRACE_COMMAND_DTYPE,
        TRACE_LAYER_DTYPE,
        CommandNames,
    )

    names: dict[str, int] = {}

    def index(text: str) -> int:
        # The last characters of a long name tell more than the first.
        plain = text.encode("ascii", "replace").decode()[-NAME_BYTES:]
        return names.setdefault(plain, len(names))

    layers = [
        (layer.origin.index, index(layer_label(layer)), index(short_name(layer)))
        for layer in segment.layers
    ]
    # Without `End`, which no engine has.
    commands = [command for command in segment.decode() if command.engine is not None]
    rows = [
        (layer, index(command_label(command)), layer != NO_LAYER and layer in wanted)
        for layer, command in zip(segment.command_layers, commands, strict=False)
    ]
    return CommandNames(
        layers=np.array(layers, TRACE_LAYER_DTYPE),
        commands=np.array(rows, TRACE_COMMAND_DTYPE),
        names=np.array([name.encode() for name in names], f"S{NAME_BYTES}"),
    )


def _require_room(path: Path, size: int, cycles: int) -> None:
    """Refuse a file that would be too large, before a simulator is built."""
    free = shutil.disk_usage(path.parent).free
    advice = "name fewer layers with --from and --to"
    if path.suffix == ".vcd":
        advice += f", or write {path.with_suffix('.fst').name}, which is a tenth of it"
    for most, whose in (
        (MOST_BYTES, "the limit is"),
        (free, f"{path.parent.resolve()} has room for"),
    ):
        if size > most:
            raise CelosiaError(
                f"cannot write {path}",
                f"about {cycles:,} cycles would take {size / 1e9:,.1f} GB, {whose}"
                f" {most / 1e9:,.1f} GB",
                advice,
            )
