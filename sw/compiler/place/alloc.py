"""Placing buffers with lifetimes in one memory: first fit, largest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from celosia.sw.compiler.arithmetic.whole import Range

__all__ = ["Item", "free_gaps", "pack", "place_in_gaps"]


@dataclass(frozen=True)
class Item:
    """A buffer of `size_bytes`, alive from step `first` to step `last`, both included."""

    size_bytes: int
    first: int
    last: int


def pack(items: Sequence[Item], capacity_bytes: int) -> list[int] | None:
    """Return an address for each item such that items alive together are disjoint.

    Several orders of placement are tried (size, lifetime, area), each first fit at the lowest
    address; None if none of them fits. Addresses keep the alignment that all sizes share.
    """
    orders = (
        lambda i: (-items[i].size_bytes, items[i].first),
        lambda i: (items[i].first, -items[i].size_bytes),
        lambda i: (items[i].first - items[i].last, -items[i].size_bytes),
        lambda i: (-items[i].size_bytes * (items[i].last - items[i].first + 1), items[i].first),
        lambda i: (-items[i].last, -items[i].size_bytes),
    )
    for order in orders:
        addresses = _first_fit(items, sorted(range(len(items)), key=order), capacity_bytes)
        if addresses is not None:
            return addresses
    return None


def _first_fit(items: Sequence[Item], order: list[int], capacity_bytes: int) -> list[int] | None:
    addresses: dict[int, int] = {}
    for index in order:
        item = items[index]
        taken = [
            (address, address + items[other].size_bytes)
            for other, address in addresses.items()
            if items[other].first <= item.last and item.first <= items[other].last
        ]
        for start, end in free_gaps(taken, capacity_bytes):
            if end - start >= item.size_bytes:
                addresses[index] = start
                break
        else:
            return None
    return [addresses[index] for index in range(len(items))]


def free_gaps(taken: Iterable[Range], capacity_bytes: int) -> list[Range]:
    """Return what is free between the taken ranges, in order of address."""
    gaps = []
    start = 0
    for first, end in sorted(taken):
        if first > start:
            gaps.append((start, first))
        start = max(start, end)
    if start < capacity_bytes:
        gaps.append((start, capacity_bytes))
    return gaps


def place_in_gaps(sizes: Sequence[int], gaps: Iterable[Range]) -> list[int] | None:
    """Return addresses for buffers that are all alive together, or None if they do not fit."""
    free = list(gaps)
    addresses = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[index]
        # Best fit: the smallest gap that takes it.
        fitting = [gap for gap in free if gap[1] - gap[0] >= size]
        if not fitting:
            return None
        gap = min(fitting, key=lambda g: g[1] - g[0])
        free[free.index(gap)] = (gap[0] + size, gap[1])
        addresses[index] = gap[0]
    return addresses
