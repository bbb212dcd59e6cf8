"""Who an error is laid to.

Pure standard library.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Unit"]


class Unit(IntEnum):
    """An engine (as in :class:`celosia.hw.contract.isa.Engine`) or the fetch."""

    LOAD = 0
    STORE = 1
    ARRAY = 2
    VECTOR = 3
    FETCH = 4
