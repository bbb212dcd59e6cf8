"""What is in frames, as bytes: requests and replies."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from celosia.hw.contract.frames import (
    CRC_BYTES,
    DELIMITER,
    LONGEST_FRAME,
    decode_frame,
    encode_frame,
)
from celosia.hw.contract.uart import HEAD_BYTES, REPLY, TAIL_BYTES, Flag, Status, has_payload

__all__ = ["FrameSplitter", "Reply", "request"]

STATUS_MASK = 0x0F


def request(
    kind: int,
    sequence: int,
    argument: int,
    *,
    count: int = 1,
    first: int = 0xF,
    last: int = 0xF,
    payload: bytes = b"",
) -> bytes:
    """Return the characters of a request.

    Parameters
    ----------
    kind : int
        See :class:`celosia.hw.contract.uart.Kind`.
    sequence : int
        Modulo 256.
    argument : int
        Second word: an address, a nonce, an increment.
    count : int
        Words; for CHECKSUM up to 65,536, else up to 256.
    first, last : int
        Bytes of the first and the last word that are written, lowest bit for the lowest byte.
    payload : bytes
        Exactly ``4 * count``, if the type has payload.
    """
    assert len(payload) == (4 * count if has_payload(kind) else 0)
    if count > 256:
        assert not has_payload(kind)
        masks = (count - 1) >> 8
    elif has_payload(kind):
        masks = first | last << 4
    else:
        masks = 0
    head = struct.pack("<BBBBI", kind, sequence & 0xFF, (count - 1) & 0xFF, masks, argument)
    return encode_frame(head + payload)


@dataclass(frozen=True)
class Reply:
    """A reply or an event.

    Attributes
    ----------
    kind : int
        Type of the request with bit 7 set, or ``EVENT``.
    sequence : int
        That of the request.
    payload : bytes
    code : int
        See :class:`celosia.hw.contract.uart.Status`.
    flags : int
        See :class:`celosia.hw.contract.uart.Flag`.
    """

    kind: int
    sequence: int
    payload: bytes
    code: int
    flags: int

    @classmethod
    def parse(cls, content: bytes) -> Reply | None:
        """Return what a frame says, or None if it is too short or no reply."""
        if len(content) < HEAD_BYTES + TAIL_BYTES - CRC_BYTES or not content[0] & REPLY:
            return None
        status = content[-1]
        return cls(
            kind=content[0],
            sequence=content[1],
            payload=content[HEAD_BYTES:-1],
            code=status & STATUS_MASK,
            flags=status & ~STATUS_MASK,
        )

    @property
    def ok(self) -> bool:
        """Whether it was executed without an error."""
        return self.code == Status.OK

    @property
    def irq(self) -> bool:
        """Level of the interrupt."""
        return bool(self.flags & Flag.IRQ)

    @property
    def session(self) -> bool:
        """Whether the bridge is in a session."""
        return bool(self.flags & Flag.SESSION)


class FrameSplitter:
    """Gathers characters into good replies; what is damaged is counted and left out.

    Attributes
    ----------
    characters : int
        Seen so far.
    damaged : int
        Frames left out so far.
    """

    def __init__(self) -> None:
        self.characters = 0
        self.damaged = 0
        self._partial = bytearray()

    def feed(self, characters: bytes) -> list[Reply]:
        """Return the replies that these characters complete."""
        self.characters += len(characters)
        *frames, rest = (bytes(self._partial) + characters).split(DELIMITER)
        self._partial = bytearray(rest)
        if len(rest) > LONGEST_FRAME:
            self._partial.clear()
            self.damaged += 1
        replies = []
        for frame in frames:
            if not frame:
                continue
            content = decode_frame(frame)
            reply = None if content is None else Reply.parse(content)
            if reply is None:
                self.damaged += 1
            else:
                replies.append(reply)
        return replies

    def clear(self) -> None:
        """Forget a frame that has begun."""
        self._partial.clear()
