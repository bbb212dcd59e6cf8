"""Multiples of units."""

from __future__ import annotations

__all__ = ["KIB", "MHZ"]

KIB = 1024
"""Bytes of a kibibyte."""

MHZ = 1_000_000
"""Hertz of a megahertz."""
