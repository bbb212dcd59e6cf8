"""Whole numbers: division and multiples, rounded up, and ranges of them."""

from __future__ import annotations

__all__ = ["Range", "ceil_div", "round_up", "sparse_sizes", "split"]

Range = tuple[int, int]
"""First, and end (not in it)."""


def ceil_div(value: int, divisor: int) -> int:
    """Return ``value / divisor``, rounded up."""
    return -(-value // divisor)


def round_up(value: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is not below `value`."""
    return ceil_div(value, multiple) * multiple


def split(total: int, size: int) -> tuple[Range, ...]:
    """Cut ``range(total)`` into ranges of `size`, the last one possibly shorter."""
    return tuple((first, min(first + size, total)) for first in range(0, total, size))


def sparse_sizes(size: int) -> list[int]:
    """Return sizes of parts of a whole, each about four fifths of the one before, down to 1."""
    sizes, part = [size], size
    while part > 1:
        part = min(part - 1, ceil_div(size, ceil_div(5 * size, 4 * part)))
        sizes.append(part)
    return sizes
