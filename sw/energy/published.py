"""Energies of single events, with their sources: ``published.json`` and ``sram.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from celosia.errors import CelosiaError

__all__ = ["MEMORIES", "Bounds", "Source", "event", "sources", "sram"]

MEMORIES = ("dram", "sram")
"""Kinds of system memory: ``memory_*`` among the events."""
SRAM_SOURCE = "cacti"


@dataclass(frozen=True)
class Source:
    """Where a number was published.

    Attributes
    ----------
    text, url : str
    node_nm : int or None
        Process; None where it is not said.
    voltage_v : float or None
    """

    text: str
    url: str
    node_nm: int | None
    voltage_v: float | None


@dataclass(frozen=True)
class Bounds:
    """The energy of an event in picojoules, at least and at most, and the sources of both."""

    low_pj: float
    high_pj: float
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        assert 0 < self.low_pj <= self.high_pj, f"{self.low_pj} to {self.high_pj} pJ"
        assert set(self.sources) <= set(sources()), self.sources

    def times(self, factor: float) -> Bounds:
        """Return the energy of so many events at once."""
        return Bounds(self.low_pj * factor, self.high_pj * factor, self.sources)


@cache
def _read(name: str) -> dict[str, Any]:
    text = (resources.files("celosia.sw.energy") / name).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def sources() -> dict[str, Source]:
    """Return all sources by name."""
    return {name: Source(**entry) for name, entry in _read("published.json")["sources"].items()}


def event(name: str) -> Bounds:
    """Return the energy of an event of ``published.json`` (KeyError if there is none)."""
    entry = _read("published.json")["events"][name]
    low, high = entry["low"], entry["high"]
    named = tuple(dict.fromkeys((low["source"], high["source"])))
    return Bounds(low["pj"], high["pj"], named)


def sram(width_bits: int, size_bytes: int, *, write: bool) -> Bounds:
    """Return the energy of an access to a memory on the chip.

    Parameters
    ----------
    width_bits, size_bytes : int
        Of a word, and of all words. The table has powers of two; the next larger size counts.
    write : bool
        A write, else a read.

    Raises
    ------
    CelosiaError
        If the table has no such memory.
    """
    action = "write_pj" if write else "read_pj"
    for row in _read("sram.json")["memories"]:
        if row["width_bits"] == width_bits and row["size_bytes"] >= size_bytes:
            values = row[action]
            return Bounds(min(values), max(values), (SRAM_SOURCE,))
    raise CelosiaError(
        f"energy of a memory of {size_bytes:,} bytes in words of {width_bits} bits",
        "nothing is published of it in sw/energy/sram.json",
        "take a configuration with smaller memories",
    )
