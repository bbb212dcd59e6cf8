"""Whole numbers: division and multiples, rounded up."""

from __future__ import annotations

__all__ = ["ceil_div", "round_up"]


def ceil_div(value: int, divisor: int) -> int:
    """Return ``value / divisor``, rounded up."""
    return -(-value // divisor)


def round_up(value: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is not below `value`."""
    return ceil_div(value, multiple) * multiple
