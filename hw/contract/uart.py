"""The UART protocol, in one schema: messages, status codes, identification.

The bridge in gateware, the driver and the tables of ``docs/uart.md`` are derived from these
declarations. All numbers are little-endian.

Pure standard library: the driver imports it without Amaranth.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "CHECKSUM_MAX_WORDS",
    "DEFAULT_BAUD",
    "EVENT",
    "HEAD_BYTES",
    "IDENTITY_WORDS",
    "MAGIC",
    "PHASE_BITS",
    "PROTOCOL_VERSION",
    "REPLY",
    "REQUEST_BYTES",
    "STATE_WORDS",
    "Flag",
    "Identity",
    "Kind",
    "LinkState",
    "Status",
    "baud_of_increment",
    "has_payload",
    "increment_of_baud",
    "is_sequenced",
    "max_payload_words",
]

MAGIC = int.from_bytes(b"CELO", "little")
PROTOCOL_VERSION = 0x0001_0000
"""Major in the high half, minor in the low half. Messages of another major are not understood."""

DEFAULT_BAUD = 115_200
PHASE_BITS = 20
"""Bits of the phase accumulators: a bit lasts as long as the accumulator takes to go round."""
MOST_INCREMENT_BITS = 18
"""A rate of less than four clocks a bit is refused by the bridge."""
LEAST_CLOCKS_PER_BIT = 8
"""What the driver asks for at most: the receiver finds the middle of a bit to within a clock."""
MOST_RATE_ERROR = 0.01

REPLY = 0x80
"""Set in the type of a reply, which else is that of its request."""
EVENT = 0xF0
"""Type of the message that the bridge sends by itself when the interrupt rises."""

REQUEST_BYTES = 12
"""A request without payload: two header words and the CRC."""
HEAD_BYTES = 2
"""Type and sequence number of a reply, before its payload."""
TAIL_BYTES = 5
"""Status and CRC of a reply, after its payload."""
CHECKSUM_MAX_WORDS = 1 << 16


class Kind(IntEnum):
    """Types of requests. Bit 0: `count` words of payload follow. Bits 6:4 not 0: sequenced."""

    HELLO = 0x02
    """Begin a session: argument is a nonce; the next sequence number is this one plus 1."""
    PING = 0x04
    """Ask for the state of the link: argument is a nonce."""
    BAUD = 0x06
    """Change the rate after the reply: argument is the increment of the phase."""
    READ_MEMORY = 0x10
    """Read `count` words of system memory from a byte address, a multiple of 4."""
    WRITE_MEMORY = 0x11
    """Write them; of the first and the last word only the bytes in their masks."""
    READ_REGISTERS = 0x20
    """Read `count` registers from a byte address."""
    WRITE_REGISTERS = 0x21
    """Write them, one after the other, each once."""
    CHECKSUM = 0x30
    """CRC-32 of words of system memory; their number minus 1 is in bits 31:16 of the header."""


class Status(IntEnum):
    """How a request ended: bits 3:0 of a reply's status."""

    OK = 0
    BUS_ERROR = 1
    """The bus answered with an error; the last word of the payload is the address."""
    BUS_TIMEOUT = 2
    """The bus did not answer; the last word of the payload is the address."""
    ILLEGAL = 3
    """No such message, an address that is not a multiple of 4, or a rate out of range."""
    OUT_OF_SEQUENCE = 4
    """Not executed: it is not the next one. A request before it was lost, or it came twice."""
    NO_SESSION = 5
    """Not executed: the board was reset since the last HELLO."""


class Flag(IntEnum):
    """Bits of a reply's status above the code."""

    SESSION = 0x40
    """There was a HELLO since reset."""
    IRQ = 0x80
    """Level of the interrupt when the status was sent."""


def is_sequenced(kind: int) -> bool:
    """Return whether a request is executed only in its turn."""
    return kind & 0x70 != 0


def has_payload(kind: int) -> bool:
    """Return whether payload follows a request's header."""
    return bool(kind & 1)


def increment_of_baud(baud: int, clock_hz: int) -> int:
    """Return the phase increment of a rate.

    Raises
    ------
    ValueError
        If the clock is too slow for it, or the rate that results is off by more than 1 %.
    """
    if baud <= 0 or clock_hz < baud * LEAST_CLOCKS_PER_BIT:
        raise ValueError(f"{baud} baud cannot be made from a clock of {clock_hz / 1e6:g} MHz")
    increment = round((baud << PHASE_BITS) / clock_hz)
    if abs(baud_of_increment(increment, clock_hz) / baud - 1) > MOST_RATE_ERROR:
        raise ValueError(f"{baud} baud is too slow for a clock of {clock_hz / 1e6:g} MHz")
    return increment


def baud_of_increment(increment: int, clock_hz: int) -> float:
    """Return the rate of a phase increment."""
    return increment * clock_hz / (1 << PHASE_BITS)


def max_payload_words(buffer_words: int) -> int:
    """Return how long a payload may be, so that a receive buffer of a size holds two requests."""
    return min(256, buffer_words // 2 - REQUEST_BYTES // 4 - 1)


_IDENTITY = struct.Struct("<10I8s16s")
IDENTITY_WORDS = _IDENTITY.size // 4


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a board says of itself, the payload of HELLO's reply after the nonce.

    Attributes
    ----------
    board : str
        Name, at most 16 ASCII characters.
    clock_hz : int
        Of the bridge.
    memory_bytes : int
        System memory, from address 0.
    max_words : int
        Longest payload of a request or a reply.
    buffer_words : int
        Words of requests that the bridge holds, sequenced and not yet executed.
    silence_ms : int
        After so long without a good frame the rate is `DEFAULT_BAUD` again.
    build : int
        32 bits that tell builds apart.
    revision : str
        First 16 hexadecimal digits of the git revision; empty if it is not known.
    dirty : bool
        The source tree had changes.
    simulated : bool
        Not a chip: slow, and its clock is not real time.
    version : int
        Of the protocol.
    """

    board: str
    clock_hz: int
    memory_bytes: int
    max_words: int = 252
    buffer_words: int = 512
    silence_ms: int = 2000
    build: int = 0
    revision: str = ""
    dirty: bool = False
    simulated: bool = False
    version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        if not self.board.isascii() or not 0 < len(self.board) <= 16:
            raise ValueError(f"board must be 1 to 16 ASCII characters, not {self.board!r}")
        if self.revision and (len(self.revision) != 16 or bytes.fromhex(self.revision) == b""):
            raise ValueError(f"revision must be 16 hexadecimal digits, not {self.revision!r}")
        for name in ("clock_hz", "memory_bytes", "build"):
            value = getattr(self, name)
            if not 0 <= value < 1 << 32:
                raise ValueError(f"{name} must be a 32-bit number, not {value}")

    def to_bytes(self) -> bytes:
        """Return the 64 bytes of the message."""
        return _IDENTITY.pack(
            MAGIC,
            self.version,
            self.clock_hz,
            0,
            self.memory_bytes,
            self.max_words | self.buffer_words << 16,
            self.silence_ms | PHASE_BITS << 16,
            DEFAULT_BAUD,
            int(self.dirty) | int(self.simulated) << 1 | int(bool(self.revision)) << 2,
            self.build,
            bytes.fromhex(self.revision) or bytes(8),
            self.board.encode("ascii"),
        )

    @property
    def words(self) -> tuple[int, ...]:
        """The same as 32-bit words."""
        return struct.unpack(f"<{IDENTITY_WORDS}I", self.to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes) -> Identity:
        """Return what `content` says.

        Raises
        ------
        ValueError
            If it does not begin as it should, or makes no sense.
        """
        if len(content) != _IDENTITY.size:
            raise ValueError(f"an identification has {_IDENTITY.size} bytes, not {len(content)}")
        magic, version, clock, _, size, limits, timing, _, flags, build, revision, board = (
            _IDENTITY.unpack(content)
        )
        if magic != MAGIC:
            raise ValueError(f"an identification begins with CELO, not 0x{magic:08x}")
        return cls(
            board=board.rstrip(b"\0").decode("ascii"),
            clock_hz=clock,
            memory_bytes=size,
            max_words=limits & 0xFFFF,
            buffer_words=limits >> 16,
            silence_ms=timing & 0xFFFF,
            build=build,
            revision=revision.hex() if flags & 4 else "",
            dirty=bool(flags & 1),
            simulated=bool(flags & 2),
            version=version,
        )


_STATE = struct.Struct("<BBBBBBBx")
STATE_WORDS = _STATE.size // 4


@dataclass(frozen=True)
class LinkState:
    """What the bridge knows of the link, the payload of PING's reply after the nonce.

    Attributes
    ----------
    expected : int
        Sequence number of the next request to be executed.
    errors : int
        Requests since HELLO that ended with an error, modulo 256.
    last_status, last_sequence : int
        Of the last one.
    dropped : int
        Frames that were not good (CRC, length, framing) since reset, modulo 256.
    overflows : int
        Good frames for which there was no room, modulo 256.
    framing_errors : int
        Characters without a stop bit, modulo 256.
    """

    expected: int
    errors: int
    last_status: int
    last_sequence: int
    dropped: int
    overflows: int
    framing_errors: int

    def to_bytes(self) -> bytes:
        """Return the 8 bytes of the message."""
        return _STATE.pack(
            self.expected,
            self.errors,
            self.last_status,
            self.last_sequence,
            self.dropped,
            self.overflows,
            self.framing_errors,
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> LinkState:
        """Return what the 8 bytes `content` say."""
        return cls(*_STATE.unpack(content))
