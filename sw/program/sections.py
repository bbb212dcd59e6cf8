"""The frame of a program file: a header, a table, and sections of bytes.

What is in the sections, `celosia.sw.program.encode` and `celosia.sw.program.decode` know.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum

from celosia.errors import ProgramError
from celosia.hw.contract import isa
from celosia.sw.program.remedies import REBUILD, UPDATE

__all__ = [
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "HOST",
    "LAYER_TYPE",
    "MAGIC",
    "NPU",
    "SECTION_ALIGNMENT",
    "Section",
    "pack_sections",
    "unpack_sections",
]

MAGIC = b"CELOSIA\0"
FORMAT_VERSION = 3
"""Version of the file; that of the instruction set is a field of its own."""
MAX_SECTIONS = 256
SECTION_ALIGNMENT = 64
"""So that commands and constants can be mapped from the file onto any bus."""
NPU, HOST = "npu", "host"
"""Kinds of segments in section SEGMENTS."""
LAYER_TYPE = "<i4"
"""Type of the entries of section COMMAND_LAYERS, for NumPy."""

_HEADER = struct.Struct("<8sIIIQII")
_ENTRY = struct.Struct("<IIQQ")
HEADER_BYTES = _HEADER.size
_CRC_OFFSET = HEADER_BYTES - 4


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


def pack_sections(contents: dict[Section, bytes], config_hash: int) -> bytes:
    """Return the file of these sections, in their order.

    Parameters
    ----------
    contents : dict of Section to bytes
        What the sections hold.
    config_hash : int
        Of the configuration that the program is for.
    """
    body = bytearray(HEADER_BYTES + _ENTRY.size * len(contents))
    for index, (section, data) in enumerate(contents.items()):
        body += bytes(-len(body) % SECTION_ALIGNMENT)
        _ENTRY.pack_into(body, HEADER_BYTES + _ENTRY.size * index, section, 0, len(body), len(data))
        body += data
    _HEADER.pack_into(
        body,
        0,
        MAGIC,
        FORMAT_VERSION,
        isa.FORMAT_VERSION,
        config_hash,
        len(body),
        len(contents),
        0,
    )
    struct.pack_into("<I", body, _CRC_OFFSET, _checksum(body))
    return bytes(body)


def _checksum(data: bytes | bytearray) -> int:
    """CRC-32 of everything but the four bytes that hold it."""
    return zlib.crc32(data[_CRC_OFFSET + 4 :], zlib.crc32(data[:_CRC_OFFSET]))


def unpack_sections(data: bytes, source: str) -> tuple[dict[int, bytes], int]:
    """Check the header and return the sections, and the hash of the configuration that it names.

    Parameters
    ----------
    data : bytes
        Of a file.
    source : str
        What errors call it.

    Raises
    ------
    ProgramError
        If the file is damaged, or of a version that is not known.
    """

    def damaged(cause: str, remedy: str = REBUILD) -> ProgramError:
        return ProgramError(f"program file {source}", cause, remedy)

    if data[: len(MAGIC)] != MAGIC:
        raise damaged("not a Celosia program", "give a file that the compiler wrote")
    if len(data) < HEADER_BYTES:
        raise damaged(f"truncated: {len(data)} bytes are less than a header")
    _, version, isa_version, config_hash, length, count, checksum = _HEADER.unpack_from(data)
    if length != len(data):
        raise damaged(f"truncated or extended: {len(data)} bytes, the header says {length}")
    if checksum != _checksum(data):
        # A version is believed only if the checksum proves that it was written so.
        raise damaged("damaged: the checksum is wrong")
    if version > FORMAT_VERSION or isa_version > isa.FORMAT_VERSION:
        raise damaged(
            f"file version {version}, instruction set {isa_version}; this software knows"
            f" {FORMAT_VERSION} and {isa.FORMAT_VERSION}",
            UPDATE,
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
    return sections, config_hash
