"""A program from the sections of its file, of which nothing is believed before it is checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from celosia.errors import ProgramError
from celosia.hw.contract.config import ConfigError, NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES
from celosia.schema import build, parse
from celosia.sw.program.contents import Contents
from celosia.sw.program.remedies import REBUILD
from celosia.sw.program.sections import (
    HOST,
    LAYER_TYPE,
    NPU,
    SECTION_ALIGNMENT,
    Section,
    unpack_sections,
)
from celosia.sw.program.segments import (
    MAX_COMMANDS,
    NO_LAYER,
    HostSegment,
    LayerInfo,
    MemoryPlan,
    NpuSegment,
    ReservedError,
)
from celosia.sw.program.tensors import PlacedTensor, TensorInfo

__all__ = ["decode"]


_P = TypeVar("_P", bound=Contents)


def decode(kind: type[_P], data: bytes, source: str) -> _P:
    """Return the program that a file holds.

    Parameters
    ----------
    kind : type
        What is made of it.
    data : bytes
        Of the file.
    source : str
        What errors call it.

    Raises
    ------
    ProgramError
        If the data is damaged, or of a version that is not known.
    """
    sections, config_hash = unpack_sections(data, source)
    what = f"program file {source}"
    try:
        program = _program(kind, sections)
        if program.config.hash != config_hash:
            raise ValueError("the configuration is not the one that the header names")
    except ReservedError as error:
        raise ProgramError(what, f"{error.what}: {error.cause}", error.remedy) from None
    except ProgramError as error:
        raise ProgramError(what, f"damaged: {error.what}: {error.cause}", REBUILD) from None
    except ValueError as error:  # of the schema, or of a configuration
        cause = error.cause if isinstance(error, ConfigError) else str(error)
        raise ProgramError(what, f"damaged: {cause}", REBUILD) from None
    return program


@dataclass(frozen=True, kw_only=True)
class _About:
    """What section CONFIG holds."""

    model: str
    npu: NpuConfig
    batch: int
    one_by_one: str = ""


@dataclass(frozen=True, kw_only=True)
class _Tensors:
    """What section TENSORS holds; all but `tensors` are numbers of these."""

    tensors: tuple[TensorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    conversions: tuple[tuple[int, ...], ...]
    between: tuple[int, ...] = ()
    casts: tuple[int, ...] = ()
    even: tuple[int, ...] = ()
    layouts: tuple[tuple[int, ...], ...] = ()

    def __getitem__(self, number: int) -> TensorInfo:
        if not 0 <= number < len(self.tensors):
            raise ValueError(f"there is no tensor {number}, there are {len(self.tensors)}")
        return self.tensors[number]


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A tensor of a segment in section SEGMENTS."""

    tensor: int
    region: str
    offset: int
    row_pitch: int
    pixel_pitch: int


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """An entry of section SEGMENTS of kind ``npu``: its parts of other sections, by their size."""

    kind: str
    name: str
    command_bytes: int
    constant_bytes: int
    layers: int
    command_layers: int
    inputs: tuple[_Placed, ...]
    outputs: tuple[_Placed, ...]
    intermediates: tuple[_Placed, ...]
    setup_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class _HostSegment:
    """An entry of section SEGMENTS of kind ``host``; tensors by their number."""

    kind: str
    name: str
    model_bytes: int
    kernels: str
    layers: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Parts:
    """Hands out a section's contents from the beginning to the end."""

    def __init__(self, name: str, content: Any) -> None:
        self._name, self._content, self._position = name, content, 0

    def take(self, count: int, *, alignment: int = 1) -> Any:
        """Return the next `count` entries; those before them up to a multiple are skipped."""
        start = self._position + -self._position % alignment
        if not 0 <= count <= len(self._content) - start:
            raise ValueError(f"a segment takes {count} of {self._name}, which has fewer")
        self._position = start + count
        return self._content[start : self._position]

    def end(self) -> None:
        """Refuse what no segment has taken."""
        if self._position != len(self._content):
            left = len(self._content) - self._position
            raise ValueError(f"no segment takes the last {left} of {self._name}")


def _program(kind: type[_P], sections: dict[int, bytes]) -> _P:
    """Return what the sections hold."""
    about = build(_About, parse(sections[Section.CONFIG], "CONFIG"), "CONFIG")
    tensors = build(_Tensors, parse(sections[Section.TENSORS], "TENSORS"), "TENSORS")
    memory = build(tuple[MemoryPlan, ...], parse(sections[Section.MEMORY], "MEMORY"), "MEMORY")
    layers = build(tuple[LayerInfo, ...], parse(sections[Section.LAYERS], "LAYERS"), "LAYERS")
    entries = _entries(parse(sections[Section.SEGMENTS], "SEGMENTS"))
    on_npu = sum(isinstance(entry, _Segment) for entry in entries)
    if len(memory) != on_npu:
        raise ValueError(f"MEMORY has {len(memory)} entries for {on_npu} segments of the NPU")
    if len(sections[Section.COMMAND_LAYERS]) % np.dtype(LAYER_TYPE).itemsize:
        raise ValueError("COMMAND_LAYERS ends within a number")
    parts = {
        Section.COMMANDS: _Parts("COMMANDS", sections[Section.COMMANDS]),
        Section.CONSTANTS: _Parts("CONSTANTS", sections[Section.CONSTANTS]),
        Section.LAYERS: _Parts("LAYERS", layers),
        Section.COMMAND_LAYERS: _Parts(
            "COMMAND_LAYERS", np.frombuffer(sections[Section.COMMAND_LAYERS], LAYER_TYPE)
        ),
        Section.HOST: _Parts("HOST", sections.get(Section.HOST, b"")),
    }
    own = tensors
    if about.one_by_one:
        own = replace(tensors, tensors=tuple(t.sample(about.batch) for t in tensors.tensors))
    plans = iter(memory)
    segments = tuple(
        _segment(entry, next(plans), own, parts)
        if isinstance(entry, _Segment)
        else _host_segment(entry, own, parts)
        for entry in entries
    )
    for part in parts.values():
        part.end()
    program = kind(
        config=about.npu,
        model=about.model,
        batch=about.batch,
        one_by_one=about.one_by_one,
        inputs=tuple(tensors[number] for number in tensors.inputs),
        outputs=tuple(tensors[number] for number in tensors.outputs),
        conversions=tuple(_pair(tensors, numbers) for numbers in tensors.conversions),
        between=tuple(tensors[number] for number in tensors.between),
        casts=tuple(tensors[number].name for number in tensors.casts),
        layouts={tensors[entry[0]].name: entry[1:] for entry in tensors.layouts if entry},
        even=tuple(tensors[number].name for number in tensors.even),
        segments=segments,
        initial_state=sections[Section.STATE],
    )
    if program.tensors != tensors.tensors:
        raise ValueError("TENSORS are not those of the segments, in their order")
    return program


def _pair(tensors: _Tensors, numbers: tuple[int, ...]) -> tuple[str, str]:
    if len(numbers) != 2:
        raise ValueError(f"a conversion is of two tensors, not {len(numbers)}")
    return tensors[numbers[0]].name, tensors[numbers[1]].name


def _entries(value: Any) -> list[_Segment | _HostSegment]:
    """Return the entries of SEGMENTS."""
    if not isinstance(value, list):
        return list(build(tuple[_Segment, ...], value, "SEGMENTS"))
    entries: list[_Segment | _HostSegment] = []
    for index, entry in enumerate(value):
        where = f"SEGMENTS[{index}]"
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if isinstance(kind, str) and kind not in (NPU, HOST):
            raise ValueError(f"{where}.kind is {kind[:40]!a}")
        if kind == HOST:
            entries.append(build(_HostSegment, entry, where))
        else:
            entries.append(build(_Segment, entry, where))
    return entries


def _host_segment(
    entry: _HostSegment, tensors: _Tensors, parts: dict[Section, _Parts]
) -> HostSegment:
    return HostSegment(
        name=entry.name,
        model=parts[Section.HOST].take(entry.model_bytes, alignment=SECTION_ALIGNMENT),
        kernels=entry.kernels,
        inputs=tuple(tensors[number] for number in entry.inputs),
        outputs=tuple(tensors[number] for number in entry.outputs),
        layers=parts[Section.LAYERS].take(entry.layers),
    )


def _segment(
    entry: _Segment, memory: MemoryPlan, tensors: _Tensors, parts: dict[Section, _Parts]
) -> NpuSegment:
    def placed(places: tuple[_Placed, ...]) -> tuple[PlacedTensor, ...]:
        return tuple(
            PlacedTensor(
                info=tensors[place.tensor],
                region=place.region,
                offset=place.offset,
                row_pitch=place.row_pitch,
                pixel_pitch=place.pixel_pitch,
            )
            for place in places
        )

    commands = parts[Section.COMMANDS].take(entry.command_bytes)
    count = len(commands) // COMMAND_BYTES
    if count > MAX_COMMANDS:
        raise ValueError(f"a segment has {count} commands, at most {MAX_COMMANDS} are read")
    setup = parts[Section.COMMANDS].take(entry.setup_bytes)
    if len(setup) // COMMAND_BYTES > MAX_COMMANDS:
        raise ValueError(f"a segment's setup is longer than {MAX_COMMANDS} commands")
    owners = parts[Section.COMMAND_LAYERS].take(entry.command_layers)
    if len(owners) not in (0, count):
        raise ValueError(f"{len(owners)} entries of COMMAND_LAYERS for {count} commands")
    wrong = owners[(owners < NO_LAYER) | (owners >= entry.layers)]
    if len(wrong):
        raise ValueError(f"a command is for layer {wrong[0]}, there are {entry.layers}")
    return NpuSegment(
        name=entry.name,
        commands=commands,
        setup=setup,
        constants=parts[Section.CONSTANTS].take(entry.constant_bytes, alignment=SECTION_ALIGNMENT),
        inputs=placed(entry.inputs),
        outputs=placed(entry.outputs),
        intermediates=placed(entry.intermediates),
        memory=memory,
        layers=parts[Section.LAYERS].take(entry.layers),
        command_layers=tuple(owners.tolist()),
    )
