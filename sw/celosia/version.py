"""The version of Celosia, which the package's metadata has from here."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.1.0"
