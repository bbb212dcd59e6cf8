"""The program file: everything a device needs to run a compiled model.

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
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np
from celosia.errors import ProgramError
from celosia.hw.contract import isa
from celosia.hw.contract.config import ConfigError, NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Command, IsaError, Region
from celosia.hw.contract.legal import LACKING_REMEDY, lacking
from celosia.hw.contract.operations import OPERATIONS, operations_in
from celosia.sw.program.schema import build, parse
from celosia.sw.program.tensors import TensorInfo

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "LayerInfo",
    "MAGIC",
    "MemoryPlan",
    "NO_LAYER",
    "Program",
    "Section",
    "TensorInfo",
]

MAX_FILE_BYTES = 128 << 20
MAX_SYSTEM_BYTES = 64 << 20
"""All regions of a program; what is more is refused before it is allocated."""
MAGIC = b"CELOSIA\0"
FORMAT_VERSION = 2
"""Version of the file; that of the instruction set is a field of its own."""
MAX_COMMANDS = 1 << 16
MAX_SECTIONS = 256
NO_LAYER = -1
"""In `Program.command_layers`: the command works for no layer."""
SECTION_ALIGNMENT = 64
"""So that commands and constants can be mapped from the file onto any bus."""

_HEADER = struct.Struct("<8sIIIQII")
_ENTRY = struct.Struct("<IIQQ")
HEADER_BYTES = _HEADER.size
_CRC_OFFSET = HEADER_BYTES - 4
_LAYER_TYPE = "<i4"
_REBUILD = "compile the model again"


class Section(IntEnum):
    """What the sections of a file hold."""

    CONFIG = 1
    COMMANDS = 2
    CONSTANTS = 3
    TENSORS = 4
    MEMORY = 5
    LAYERS = 6
    COMMAND_LAYERS = 7


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a program needs of system memory, and how the compiler placed things on chip.

    Parameters
    ----------
    region_bytes : dict
        Bytes needed of each region, by the name of `Region`.
    plan : list of dict
        For people and reports: one entry an allocation, as the compiler chooses to describe it.
    """

    region_bytes: dict[str, int] = field(default_factory=dict)
    plan: list[dict[str, int | str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, size in self.region_bytes.items():
            if name not in Region.__members__:
                raise ProgramError("the program's memory plan", f"no region {name!r}", _REBUILD)
            if size < 0:
                raise ProgramError(
                    "the program's memory plan", f"region {name} has {size} bytes", _REBUILD
                )


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """Debug information of one layer.

    Parameters
    ----------
    name, op : str
        The layer's name and its TFLite operator.
    tflite_index : int
        Number of the operator in the model; -1 if the compiler made the layer.
    first_tag, last_tag : int
        The first and the last of its commands; -1 if it has none. Layers overlap: between the two
        are commands of others as well, `Program.command_layers` says which.
    tiles : int
        Accumulator tiles.
    macs : int
        Multiplications that the layer's definition needs.
    folded_macs : int
        How many of these are not computed because constant or unread channels were removed.
    predicted_cycles : int
        The compiler's estimate.
    sram_bytes, dram_bytes : int
        Activations and weights held on chip; bytes that cross the bus.
    runs_on : str
        "npu" or "host".
    reason : str
        Why it runs there.
    """

    name: str
    op: str
    tflite_index: int = -1
    first_tag: int = -1
    last_tag: int = -1
    tiles: int = 0
    macs: int = 0
    folded_macs: int = 0
    predicted_cycles: int = 0
    sram_bytes: int = 0
    dram_bytes: int = 0
    runs_on: str = "npu"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled program.

    Parameters
    ----------
    config : NpuConfig
        The configuration it was compiled for.
    commands : bytes
        The command stream (region CODE).
    constants : bytes
        Weights and parameters (region CONST).
    inputs, outputs, intermediates : tuple of TensorInfo
        Where tensors lie in system memory; `intermediates` only if they were asked for.
    memory : MemoryPlan
        Bytes per region.
    layers : tuple of LayerInfo
        One entry a layer, in order.
    command_layers : tuple of int
        For each command the layer it works for, as an index into `layers`; -1: none (`End`).
        Empty if nobody knows, as for commands that were written by hand.
    model : str
        Name of the model, for people.
    """

    config: NpuConfig
    commands: bytes
    constants: bytes = b""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    intermediates: tuple[TensorInfo, ...] = ()
    memory: MemoryPlan = field(default_factory=MemoryPlan)
    layers: tuple[LayerInfo, ...] = ()
    command_layers: tuple[int, ...] = ()
    model: str = ""

    @property
    def folded_macs(self) -> int:
        """Multiplications of the model that are not computed; more than 0 if it was folded."""
        return sum(layer.folded_macs for layer in self.layers)

    def layer_of(self, command: int) -> LayerInfo | None:
        """Return the layer that a command works for; None if it has none or nobody knows."""
        if not 0 <= command < len(self.command_layers):
            return None
        layer = self.command_layers[command]
        return None if layer == NO_LAYER else self.layers[layer]

    def decode(self) -> list[Command]:
        """Return the commands up to and including `End`.

        Raises
        ------
        ProgramError
            Naming the command that cannot be decoded.
        """
        if len(self.commands) % COMMAND_BYTES:
            raise ProgramError(
                "the program's command stream",
                f"{len(self.commands)} bytes are no whole number of commands",
                _REBUILD,
            )
        try:
            return isa.disassemble(self.commands)
        except IsaError as error:
            raise ProgramError(
                "the program's command stream", f"{error.what}: {error.cause}", _REBUILD
            ) from None

    def region_bytes(self, region: Region) -> int:
        """Return the bytes that a region must have at least."""
        own = {Region.CODE: len(self.commands), Region.CONST: len(self.constants)}
        return max(own.get(region, 0), self.memory.region_bytes.get(region.name, 0))

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
        for index, operation in operations_in(self.commands):
            if not config.can(operation):
                raise ProgramError(
                    f"the program's command {index}", lacking(operation, config), LACKING_REMEDY
                )

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        tensors = {
            kind: [asdict(tensor) for tensor in getattr(self, kind)]
            for kind in ("inputs", "outputs", "intermediates")
        }
        contents = {
            Section.CONFIG: _json({"model": self.model, "npu": asdict(self.config)}),
            Section.COMMANDS: self.commands,
            Section.CONSTANTS: self.constants,
            Section.TENSORS: _json(tensors),
            Section.MEMORY: _json(asdict(self.memory)),
            Section.LAYERS: _json([asdict(layer) for layer in self.layers]),
            Section.COMMAND_LAYERS: np.array(self.command_layers, _LAYER_TYPE).tobytes(),
        }
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
        header = struct.unpack_from("<I", data, 16)[0]
        try:
            about = build(_About, parse(sections[Section.CONFIG], "CONFIG"), "CONFIG")
            if about.npu.hash != header:
                raise ValueError("the configuration is not the one that the header names")
            tensors = build(_Tensors, parse(sections[Section.TENSORS], "TENSORS"), "TENSORS")
            memory = build(MemoryPlan, parse(sections[Section.MEMORY], "MEMORY"), "MEMORY")
            layers = build(_Layers, {"layers": parse(sections[Section.LAYERS], "LAYERS")}, "LAYERS")
            program = cls(
                config=about.npu,
                commands=sections[Section.COMMANDS],
                constants=sections[Section.CONSTANTS],
                inputs=tensors.inputs,
                outputs=tensors.outputs,
                intermediates=tensors.intermediates,
                memory=memory,
                layers=layers.layers,
                command_layers=_command_layers(
                    sections[Section.COMMAND_LAYERS],
                    len(sections[Section.COMMANDS]) // COMMAND_BYTES,
                    len(layers.layers),
                ),
                model=about.model,
            )
        except ValueError as error:  # of the schema, or of a configuration
            cause = error.cause if isinstance(error, ConfigError) else str(error)
            raise ProgramError(f"program file {source}", f"damaged: {cause}", _REBUILD) from None
        except ProgramError as error:
            raise ProgramError(
                f"program file {source}", f"damaged: {error.what}: {error.cause}", _REBUILD
            ) from None
        if len(program.commands) > MAX_COMMANDS * COMMAND_BYTES:
            raise ProgramError(
                f"program file {source}", f"it has more than {MAX_COMMANDS} commands", _REBUILD
            )
        for tensor in (*program.inputs, *program.outputs, *program.intermediates):
            if tensor.end > program.region_bytes(Region[tensor.region]):
                raise ProgramError(
                    f"program file {source}",
                    f"tensor {tensor.name!r} ends at byte {tensor.end} of region {tensor.region},"
                    f" which has {program.region_bytes(Region[tensor.region])}",
                    _REBUILD,
                )
        total = sum(program.region_bytes(region) for region in Region)
        if total > MAX_SYSTEM_BYTES:
            raise ProgramError(
                f"program file {source}",
                f"needs {total} bytes of system memory, at most {MAX_SYSTEM_BYTES} are given",
                _REBUILD,
            )
        return program


@dataclass(frozen=True, kw_only=True)
class _About:
    """What section CONFIG holds."""

    model: str
    npu: NpuConfig


@dataclass(frozen=True, kw_only=True)
class _Tensors:
    """What section TENSORS holds."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    intermediates: tuple[TensorInfo, ...]


@dataclass(frozen=True, kw_only=True)
class _Layers:
    """What section LAYERS holds."""

    layers: tuple[LayerInfo, ...]


def _command_layers(data: bytes, commands: int, layers: int) -> tuple[int, ...]:
    if data and len(data) != commands * np.dtype(_LAYER_TYPE).itemsize:
        raise ValueError(f"{len(data)} bytes of COMMAND_LAYERS for {commands} commands")
    owners = np.frombuffer(data, _LAYER_TYPE)
    wrong = owners[(owners < NO_LAYER) | (owners >= layers)]
    if len(wrong):
        raise ValueError(f"a command is for layer {wrong[0]}, there are {layers}")
    return tuple(owners.tolist())


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
        if needed not in sections:
            raise damaged(f"damaged: section {needed.name} is missing")
    return sections
