"""The checksum of frames and of memory: CRC-32 as in Ethernet, zlib and PNG.

Polynomial 0x04C11DB7, reflected, initial value and final complement all ones (CRC-32/ISO-HDLC).
"""

from __future__ import annotations

from typing import Any

from amaranth.lib.crc import catalog

__all__ = ["byte_crc"]


def byte_crc() -> Any:
    """Return a new ``amaranth.lib.crc.Processor`` that takes a byte a cycle."""
    return catalog.CRC32_ISO_HDLC(data_width=8).create()
