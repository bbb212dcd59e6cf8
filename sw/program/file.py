"""The program file: everything that is needed to run a compiled model.

The format is described in ``docs/program_file.md``. The bytes depend on the program alone, so the
same model and configuration give the same file.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import ProgramError
from celosia.hw.contract import isa
from celosia.hw.contract.config import ConfigError, NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES
from celosia.hw.contract.legal import LACKING_REMEDY, lacking
from celosia.hw.contract.needed import operations_in
from celosia.hw.contract.operations import OPERATIONS
from celosia.schema import build, parse
from celosia.sw.program.conversion import CASTS, DEQUANTISED, QUANTISED
from celosia.sw.program.segments import (
    NO_LAYER,
    HostSegment,
    LayerInfo,
    MemoryPlan,
    NpuSegment,
    ReservedError,
    Segment,
)
from celosia.sw.program.tensors import PlacedTensor, TensorInfo

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "HostSegment",
    "LayerInfo",
    "MAGIC",
    "MAX_COMMANDS",
    "MemoryPlan",
    "NO_LAYER",
    "NpuSegment",
    "PlacedTensor",
    "Program",
    "ReservedError",
    "Section",
    "TensorInfo",
]

MAX_FILE_BYTES = 128 << 20
MAGIC = b"CELOSIA\0"
FORMAT_VERSION = 3
"""Version of the file; that of the instruction set is a field of its own."""
MAX_COMMANDS = 1 << 16
"""Of a segment: as many as there are tags."""
MAX_SECTIONS = 256
MAX_BATCH = 1 << 12
"""Samples of one run."""
MIN_RATIO, MAX_RATIO = 2.0**-28, 2.0**28
"""Of the scales of two integer tensors of which one is converted to the other."""
SECTION_ALIGNMENT = 64
"""So that commands and constants can be mapped from the file onto any bus."""
NPU, HOST = "npu", "host"
"""Kinds of segments."""

_HEADER = struct.Struct("<8sIIIQII")
_ENTRY = struct.Struct("<IIQQ")
HEADER_BYTES = _HEADER.size
_CRC_OFFSET = HEADER_BYTES - 4
_LAYER_TYPE = "<i4"
_REBUILD = "compile the model again"
_UPDATE = "update the software, or compile the model again"


class Section(IntEnum):
    """What the sections of a file hold."""

    CONFIG = 1
    COMMANDS = 2
    CONSTANTS = 3
    TENSORS = 4
    MEMORY = 5
    LAYERS = 6
    COMMAND_LAYERS = 7
    SEGMENTS = 8
    STATE = 9
    HOST = 10


OPTIONAL = frozenset({Section.HOST})
"""Sections that are there only if there is something to hold."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled program.

    Parameters
    ----------
    config : NpuConfig
        The configuration it was compiled for.
    model : str
        Name of the model, for people.
    batch : int
        Samples of one run, which the first axis of every tensor has one after the other.
    one_by_one : str
        Why the segments compute one sample at a time: they run `batch` times, and their tensors
        are those of one sample. Empty: they compute all samples at once.
    inputs, outputs : tuple of TensorInfo
        Of the model, in its order.
    conversions : tuple of (str, str)
        Names of tensors that the host converts, and of what they become: from one of the inputs, or
        one that a segment gives, to one that a segment takes or to one of the outputs; in order,
        also by way of others.
    between : tuple of TensorInfo
        The others: tensors that only the host has.
    casts : tuple of str
        Names of those tensors that a conversion makes as CAST does, and not QUANTIZE or DEQUANTIZE.
    segments : tuple of NpuSegment or HostSegment
        What is to be done, in order. A segment takes tensors that are inputs of the model, outputs
        of segments before it, or persistent.
    initial_state : bytes
        What the persistent tensors hold before the first run: one after the other in the order of
        `persistent`, without gaps.

    Raises
    ------
    ProgramError
        If there is no segment, two tensors have one name, or a tensor comes from nowhere.
    """

    config: NpuConfig
    model: str = ""
    batch: int = 1
    one_by_one: str = ""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    conversions: tuple[tuple[str, str], ...] = ()
    between: tuple[TensorInfo, ...] = ()
    casts: tuple[str, ...] = ()
    segments: tuple[Segment, ...]
    initial_state: bytes = b""

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MAX_BATCH:
            raise ProgramError(
                "the program", f"its batch is {self.batch}, not 1 to {MAX_BATCH}", _REBUILD
            )
        if not self.segments:
            raise ProgramError("the program", "it has no segments", _REBUILD)
        tensors: dict[str, TensorInfo] = {}
        for info in self._all_infos():
            if self.batch > 1 and info.persistent:
                raise ProgramError(
                    f"tensor {info.name!r}", "it is persistent, and of several samples", _REBUILD
                )
            if self.batch > 1:
                info.sample(self.batch)
            if tensors.setdefault(info.name, info) != info:
                raise ProgramError(f"tensor {info.name!r}", "two tensors have this name", _REBUILD)
        known = {info.name for info in self.inputs}
        known |= {info.name for info in tensors.values() if info.persistent}
        for info in self.inputs:
            if info.persistent:
                raise ProgramError(
                    f"tensor {info.name!r}", "it is an input, and persistent", _REBUILD
                )
        self._check_conversions(tensors)
        self._add_converted(known)
        for segment in self.segments:
            self._require(segment.taken, known)
            known |= {tensor.name for tensor in segment.given}
            self._add_converted(known)
        self._require(self.outputs, known)
        size = sum(info.size_bytes for info in self.persistent)
        if len(self.initial_state) != size:
            raise ProgramError(
                "the program's state",
                f"{len(self.initial_state)} bytes for persistent tensors of {size}",
                _REBUILD,
            )

    def _add_converted(self, known: set[str]) -> None:
        for source, target in self.conversions:
            if source in known:
                known.add(target)

    def _check_conversions(self, tensors: dict[str, TensorInfo]) -> None:
        made = {tensor.name for segment in self.segments for tensor in segment.given}
        made |= {info.name for info in self.inputs}
        casts = frozenset(self.casts)
        for names in self.conversions:
            source, target = (tensors.get(name) for name in names)
            if source is None or target is None:
                raise ProgramError(f"conversion of {names[0]!r}", "no such tensor", _REBUILD)
            what = f"conversion of {source.name!r} to {target.name!r}"
            if source.shape != target.shape:
                raise ProgramError(what, f"{source.shape} to {target.shape}", _REBUILD)
            self._check_kinds(what, source, target, cast=target.name in casts)
            if target.name in made:
                raise ProgramError(what, "something else makes it, too", _REBUILD)
            made.add(target.name)

    @staticmethod
    def _check_kinds(what: str, source: TensorInfo, target: TensorInfo, *, cast: bool) -> None:
        kinds = source.dtype, target.dtype
        if cast:
            if not set(kinds) <= CASTS:
                raise ProgramError(what, f"{source.dtype} to {target.dtype}", _REBUILD)
            return
        if kinds not in QUANTISED | DEQUANTISED:
            raise ProgramError(what, f"{source.dtype} to {target.dtype}", _REBUILD)
        integers = [info for info in (source, target) if not info.dtype.startswith("float")]
        if any(not info.scale > 0 for info in integers):
            raise ProgramError(what, "one of them has no scale", _REBUILD)
        if len(integers) == 2 and not MIN_RATIO < source.scale / target.scale < MAX_RATIO:
            raise ProgramError(what, "their scales are too far apart", _REBUILD)

    @staticmethod
    def _require(infos: Sequence[TensorInfo], known: set[str]) -> None:
        for info in infos:
            if info.name not in known:
                raise ProgramError(
                    f"tensor {info.name!r}", "it is needed before anything makes it", _REBUILD
                )

    def _all_infos(self) -> list[TensorInfo]:
        found = [*self.inputs, *self.outputs, *self.between]
        for segment in self.segments:
            infos = segment.infos
            found += [info.over(self.runs) for info in infos] if self.runs > 1 else infos
        return found

    @property
    def runs(self) -> int:
        """How many times the segments run in one run of the program."""
        return self.batch if self.one_by_one else 1

    @classmethod
    def of(
        cls, segment: NpuSegment, config: NpuConfig, *, model: str = "", initial_state: bytes = b""
    ) -> Program:
        """Return the program of one segment.

        What the segment takes and gives is the model's, but for persistent tensors.
        """
        inputs, outputs = (
            tuple(info for info in infos if not info.persistent)
            for infos in (segment.taken, segment.given)
        )
        return cls(
            config=config,
            model=model,
            inputs=inputs,
            outputs=outputs,
            segments=(segment,),
            initial_state=initial_state,
        )

    @property
    def npu(self) -> NpuSegment:
        """The segment of a program that has one, of the NPU.

        Raises
        ------
        ProgramError
            If there are several, or it is the host's.
        """
        what = f"program {self.model!r}"
        if len(self.segments) != 1:
            raise ProgramError(
                what,
                f"it has {len(self.segments)} segments, this is for programs of one",
                "take a program that is one segment",
            )
        segment = self.segments[0]
        if isinstance(segment, HostSegment):
            raise ProgramError(
                what, "it runs on the host, this is for programs of the NPU", "take another model"
            )
        return segment

    @property
    def npu_segments(self) -> tuple[NpuSegment, ...]:
        """The segments that run on the NPU, in order."""
        return tuple(part for part in self.segments if isinstance(part, NpuSegment))

    @property
    def host_segments(self) -> tuple[HostSegment, ...]:
        """The segments that run on the host, in order."""
        return tuple(part for part in self.segments if isinstance(part, HostSegment))

    def with_npu(self, **changes: Any) -> Program:
        """Return the program with fields of its only segment changed.

        Raises
        ------
        ProgramError
            If it has several segments.
        """
        return replace(self, segments=(replace(self.npu, **changes),))

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """All tensors that have a place in system memory: inputs, outputs, then the segments'."""
        return tuple({info.name: info for info in self._all_infos()}.values())

    @property
    def persistent(self) -> tuple[TensorInfo, ...]:
        """Those tensors whose contents outlast a run."""
        return tuple(info for info in self.tensors if info.persistent)

    @property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What persistent tensors hold before the first run, by name; copies."""
        state, position = {}, 0
        for info in self.persistent:
            content = self.initial_state[position : position + info.size_bytes]
            state[info.name] = np.frombuffer(content, info.item).reshape(info.shape).copy()
            position += info.size_bytes
        return state

    @property
    def keeps_variables(self) -> bool:
        """Whether its variables stay in the device's memory from run to run."""
        return len(self.segments) == 1 and any(part.exchanges for part in self.npu_segments)

    @property
    def inner(self) -> dict[str, TensorInfo]:
        """What inputs are converted to in the end, by their names; of several the last."""
        infos = {info.name: info for info in self.tensors}
        targets = dict(self.conversions)
        found = {}
        for name in (info.name for info in self.inputs if info.name in targets):
            target = targets[name]
            while target in targets:
                target = targets[target]
            found[name] = infos[target]
        return found

    @property
    def intermediates(self) -> tuple[TensorInfo, ...]:
        """Tensors that are left in system memory only to be looked at."""
        return tuple(tensor.info for segment in self.segments for tensor in segment.intermediates)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers of all segments."""
        return tuple(layer for segment in self.segments for layer in segment.layers)

    @property
    def folded_macs(self) -> int:
        """Multiplications of the model that are not computed; more than 0 if it was folded."""
        return sum(layer.folded_macs for layer in self.layers)

    @property
    def predicted_cycles(self) -> int:
        """The compiler's estimate of the time that all segments take, for all samples."""
        return self.runs * sum(segment.predicted_cycles for segment in self.segments)

    def require(self, config: NpuConfig) -> None:
        """Refuse to run on another configuration than the program's own.

        Raises
        ------
        ProgramError
            Naming the parameters that differ, or the operation that the machine lacks.
        """
        if config.hash == self.config.hash:
            self._require_operations(config)
            return
        theirs, ours = asdict(config), asdict(self.config)
        different = ", ".join(
            f"{name} is {theirs[name]}, the program needs {ours[name]}"
            for name in ours
            if name != "name" and theirs[name] != ours[name]
        )
        raise ProgramError(
            f"the program does not fit configuration {config.name!r}",
            different,
            f"compile the model for {config.name!r}",
        )

    def _require_operations(self, config: NpuConfig) -> None:
        if len(config.operations) == len(OPERATIONS):
            return
        for segment in self.npu_segments:
            for index, operation in operations_in(segment.commands):
                if not config.can(operation):
                    raise ProgramError(
                        f"the program's command {index}", lacking(operation, config), LACKING_REMEDY
                    )

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        number = {info.name: index for index, info in enumerate(self.tensors)}

        def placed(tensors: Sequence[PlacedTensor]) -> list[dict[str, Any]]:
            return [
                {
                    "tensor": number[tensor.name],
                    "region": tensor.region,
                    "offset": tensor.offset,
                    "row_pitch": tensor.row_pitch,
                    "pixel_pitch": tensor.pixel_pitch,
                }
                for tensor in tensors
            ]

        def entry(segment: Segment) -> dict[str, Any]:
            if isinstance(segment, HostSegment):
                return {
                    "kind": HOST,
                    "name": segment.name,
                    "model_bytes": len(segment.model),
                    "kernels": segment.kernels,
                    "layers": len(segment.layers),
                    "inputs": [number[info.name] for info in segment.inputs],
                    "outputs": [number[info.name] for info in segment.outputs],
                }
            return {
                "kind": NPU,
                "name": segment.name,
                "command_bytes": len(segment.commands),
                "constant_bytes": len(segment.constants),
                "layers": len(segment.layers),
                "command_layers": len(segment.command_layers),
                "inputs": placed(segment.inputs),
                "outputs": placed(segment.outputs),
                "intermediates": placed(segment.intermediates),
            }

        constants = bytearray()
        for segment in self.npu_segments:
            constants += bytes(-len(constants) % SECTION_ALIGNMENT) + segment.constants
        about = {"model": self.model, "npu": asdict(self.config), "batch": self.batch}
        if self.one_by_one:
            about["one_by_one"] = self.one_by_one
        between = {
            "between": [number[info.name] for info in self.between],
            "casts": [number[name] for name in self.casts],
        }
        between = {key: numbers for key, numbers in between.items() if numbers}
        models = bytearray()
        for part in self.host_segments:
            models += bytes(-len(models) % SECTION_ALIGNMENT) + part.model
        owners = [owner for segment in self.npu_segments for owner in segment.command_layers]
        contents = {
            Section.CONFIG: _json(about),
            Section.COMMANDS: b"".join(segment.commands for segment in self.npu_segments),
            Section.CONSTANTS: bytes(constants),
            Section.TENSORS: _json(
                {
                    "tensors": [asdict(info) for info in self.tensors],
                    "inputs": [number[info.name] for info in self.inputs],
                    "outputs": [number[info.name] for info in self.outputs],
                    "conversions": [[number[name] for name in names] for names in self.conversions],
                    **between,
                }
            ),
            Section.MEMORY: _json([asdict(segment.memory) for segment in self.npu_segments]),
            Section.LAYERS: _json([asdict(layer) for layer in self.layers]),
            Section.COMMAND_LAYERS: np.array(owners, _LAYER_TYPE).tobytes(),
            Section.SEGMENTS: _json([entry(segment) for segment in self.segments]),
            Section.STATE: self.initial_state,
        }
        if models:
            contents[Section.HOST] = bytes(models)
        body = bytearray(HEADER_BYTES + _ENTRY.size * len(contents))
        for index, (section, data) in enumerate(contents.items()):
            body += bytes(-len(body) % SECTION_ALIGNMENT)
            _ENTRY.pack_into(
                body, HEADER_BYTES + _ENTRY.size * index, section, 0, len(body), len(data)
            )
            body += data
        _HEADER.pack_into(
            body,
            0,
            MAGIC,
            FORMAT_VERSION,
            isa.FORMAT_VERSION,
            self.config.hash,
            len(body),
            len(contents),
            0,
        )
        struct.pack_into("<I", body, _CRC_OFFSET, _checksum(body))
        return bytes(body)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a reader sees the old file or the whole new one, never a part.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        target = Path(path)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner can read.
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, check: bool = True) -> Program:
        """Read a file.

        Parameters
        ----------
        path : path
            Of the file.
        check : bool
            Refuse what the static check refuses (`celosia.sw.program.verify`). Without it the
            program is to be looked at, not run.

        Raises
        ------
        ProgramError
            If the file cannot be read, is damaged, or is of a version that is not known.
        """
        what = f"program file {os.fspath(path)}"
        try:
            with open(path, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ProgramError(what, "it is no regular file", "check the path")
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ProgramError(what, error.strerror or str(error), "check the path") from None
        except ValueError as error:  # a path with a zero byte
            raise ProgramError(what, str(error), "check the path") from None
        if len(data) > MAX_FILE_BYTES:
            raise ProgramError(what, f"it has more than {MAX_FILE_BYTES} bytes", _REBUILD)
        program = cls.from_bytes(data, os.fspath(path))
        if check:
            # The check reads programs, so it is above this module.
            from celosia.sw.program.verify import check_program

            check_program(program)
        return program

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "program") -> Program:
        """Return the program that `data` holds; `source` names it in errors.

        Raises
        ------
        ProgramError
            If the data is damaged, or of a version that is not known.
        """
        sections = _sections(data, source)
        what = f"program file {source}"
        try:
            program = _program(sections)
            if program.config.hash != struct.unpack_from("<I", data, 16)[0]:
                raise ValueError("the configuration is not the one that the header names")
        except ReservedError as error:
            raise ProgramError(what, f"{error.what}: {error.cause}", error.remedy) from None
        except ProgramError as error:
            raise ProgramError(what, f"damaged: {error.what}: {error.cause}", _REBUILD) from None
        except ValueError as error:  # of the schema, or of a configuration
            cause = error.cause if isinstance(error, ConfigError) else str(error)
            raise ProgramError(what, f"damaged: {cause}", _REBUILD) from None
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


def _program(sections: dict[int, bytes]) -> Program:
    """Return what the sections hold."""
    about = build(_About, parse(sections[Section.CONFIG], "CONFIG"), "CONFIG")
    tensors = build(_Tensors, parse(sections[Section.TENSORS], "TENSORS"), "TENSORS")
    memory = build(tuple[MemoryPlan, ...], parse(sections[Section.MEMORY], "MEMORY"), "MEMORY")
    layers = build(tuple[LayerInfo, ...], parse(sections[Section.LAYERS], "LAYERS"), "LAYERS")
    entries = _entries(parse(sections[Section.SEGMENTS], "SEGMENTS"))
    on_npu = sum(isinstance(entry, _Segment) for entry in entries)
    if len(memory) != on_npu:
        raise ValueError(f"MEMORY has {len(memory)} entries for {on_npu} segments of the NPU")
    if len(sections[Section.COMMAND_LAYERS]) % np.dtype(_LAYER_TYPE).itemsize:
        raise ValueError("COMMAND_LAYERS ends within a number")
    parts = {
        Section.COMMANDS: _Parts("COMMANDS", sections[Section.COMMANDS]),
        Section.CONSTANTS: _Parts("CONSTANTS", sections[Section.CONSTANTS]),
        Section.LAYERS: _Parts("LAYERS", layers),
        Section.COMMAND_LAYERS: _Parts(
            "COMMAND_LAYERS", np.frombuffer(sections[Section.COMMAND_LAYERS], _LAYER_TYPE)
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
    program = Program(
        config=about.npu,
        model=about.model,
        batch=about.batch,
        one_by_one=about.one_by_one,
        inputs=tuple(tensors[number] for number in tensors.inputs),
        outputs=tuple(tensors[number] for number in tensors.outputs),
        conversions=tuple(_pair(tensors, numbers) for numbers in tensors.conversions),
        between=tuple(tensors[number] for number in tensors.between),
        casts=tuple(tensors[number].name for number in tensors.casts),
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
    owners = parts[Section.COMMAND_LAYERS].take(entry.command_layers)
    if len(owners) not in (0, count):
        raise ValueError(f"{len(owners)} entries of COMMAND_LAYERS for {count} commands")
    wrong = owners[(owners < NO_LAYER) | (owners >= entry.layers)]
    if len(wrong):
        raise ValueError(f"a command is for layer {wrong[0]}, there are {entry.layers}")
    return NpuSegment(
        name=entry.name,
        commands=commands,
        constants=parts[Section.CONSTANTS].take(entry.constant_bytes, alignment=SECTION_ALIGNMENT),
        inputs=placed(entry.inputs),
        outputs=placed(entry.outputs),
        intermediates=placed(entry.intermediates),
        memory=memory,
        layers=parts[Section.LAYERS].take(entry.layers),
        command_layers=tuple(owners.tolist()),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _checksum(data: bytes | bytearray) -> int:
    """CRC-32 of everything but the four bytes that hold it."""
    return zlib.crc32(data[_CRC_OFFSET + 4 :], zlib.crc32(data[:_CRC_OFFSET]))


def _sections(data: bytes, source: str) -> dict[int, bytes]:
    """Check the header and return the sections."""

    def damaged(cause: str, remedy: str = _REBUILD) -> ProgramError:
        return ProgramError(f"program file {source}", cause, remedy)

    if data[: len(MAGIC)] != MAGIC:
        raise damaged("not a Celosia program", "give a file that the compiler wrote")
    if len(data) < HEADER_BYTES:
        raise damaged(f"truncated: {len(data)} bytes are less than a header")
    _, version, isa_version, _, length, count, checksum = _HEADER.unpack_from(data)
    if length != len(data):
        raise damaged(f"truncated or extended: {len(data)} bytes, the header says {length}")
    if checksum != _checksum(data):
        # A version is believed only if the checksum proves that it was written so.
        raise damaged("damaged: the checksum is wrong")
    if version > FORMAT_VERSION or isa_version > isa.FORMAT_VERSION:
        raise damaged(
            f"file version {version}, instruction set {isa_version}; this software knows"
            f" {FORMAT_VERSION} and {isa.FORMAT_VERSION}",
            "update the software, or compile the model again",
        )
    if version != FORMAT_VERSION or isa_version != isa.FORMAT_VERSION:
        raise damaged(f"outdated: file version {version}, instruction set {isa_version}")
    if HEADER_BYTES + count * _ENTRY.size > length or count > MAX_SECTIONS:
        raise damaged("damaged: the section table leaves the file")
    sections: dict[int, bytes] = {}
    for index in range(count):
        section, _, offset, size = _ENTRY.unpack_from(data, HEADER_BYTES + index * _ENTRY.size)
        if offset + size > length:
            raise damaged(f"damaged: section {section} leaves the file")
        if section in sections:
            raise damaged(f"damaged: section {section} is there twice")
        sections[section] = data[offset : offset + size]
    for needed in Section:
        if needed not in sections and needed not in OPTIONAL:
            raise damaged(f"damaged: section {needed.name} is missing")
    return sections
