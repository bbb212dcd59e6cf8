"""Frames of the serial line: COBS and CRC-32."""

from __future__ import annotations

import zlib

from cobs import cobs

__all__ = ["CRC_BYTES", "DELIMITER", "LONGEST_FRAME", "decode_frame", "encode_frame"]

DELIMITER = b"\0"
CRC_BYTES = 4
LONGEST_FRAME = 4096
"""Nothing longer is a frame: what is gathered without a delimiter is thrown away."""


def encode_frame(content: bytes) -> bytes:
    """Return the characters of a frame: content and CRC-32, stuffed, and the delimiter."""
    checksum = zlib.crc32(content).to_bytes(CRC_BYTES, "little")
    encoded: bytes = cobs.encode(content + checksum)
    return encoded + DELIMITER


def decode_frame(characters: bytes) -> bytes | None:
    """Return the content of a frame, or None if it is damaged.

    Parameters
    ----------
    characters : bytes
        What stood between two delimiters.
    """
    try:
        decoded: bytes = cobs.decode(characters)
    except cobs.DecodeError:
        return None
    content, checksum = decoded[:-CRC_BYTES], decoded[-CRC_BYTES:]
    if len(checksum) < CRC_BYTES or zlib.crc32(content) != int.from_bytes(checksum, "little"):
        return None
    return content
