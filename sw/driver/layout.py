"""Where a segment's regions lie in system memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from celosia.errors import DeviceError
from celosia.hw.contract.isa import Region
from celosia.sw.program.segments import NpuSegment

__all__ = ["Layout", "RegionPlace"]

ALIGNMENT_BYTES = 64
"""A command, and a multiple of every bus word."""
_EXCHANGED = (Region.IO, Region.SCRATCH)
"""Regions that change places from run to run, see `NpuSegment.exchanges`."""


@dataclass(frozen=True)
class RegionPlace:
    """A region in system memory: base address and size, in bytes."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """Address of the byte after the last."""
        return self.base + self.size


@dataclass(frozen=True)
class Layout:
    """Places of all regions."""

    places: Mapping[Region, RegionPlace]

    @classmethod
    def of(cls, segment: NpuSegment, *, first: int, memory_bytes: int) -> Layout:
        """Place a segment's regions one after the other.

        Parameters
        ----------
        segment : NpuSegment
            Whose regions.
        first : int
            Address from which memory may be used.
        memory_bytes : int
            Address of the end of memory.

        Raises
        ------
        DeviceError
            If they do not fit.
        """
        places: dict[Region, RegionPlace] = {}
        address = first
        sizes = {region: segment.region_bytes(region) for region in Region}
        if segment.exchanges:
            sizes |= dict.fromkeys(_EXCHANGED, max(sizes[region] for region in _EXCHANGED))
        for region in Region:
            address += -address % ALIGNMENT_BYTES
            places[region] = RegionPlace(address, sizes[region])
            address = places[region].end
        # The machine reads and writes whole bus words.
        address += -address % ALIGNMENT_BYTES
        if address > memory_bytes:
            raise DeviceError(
                f"program {segment.name!r}",
                f"needs {address} bytes of system memory, there are {memory_bytes}",
                f"open the device with memory_bytes={address} or more",
            )
        return cls(places)

    @property
    def end(self) -> int:
        """Address of the byte after the last region, a multiple of the alignment."""
        last = max(place.end for place in self.places.values())
        return last + -last % ALIGNMENT_BYTES

    def exchanged(self) -> Layout:
        """Return the layout of the next run, where variables stay in memory."""
        one, other = _EXCHANGED
        return Layout({**self.places, one: self.places[other], other: self.places[one]})

    def setup(self, segment: NpuSegment) -> tuple[NpuSegment, Layout]:
        """Return the segment that brings another one's weights, and its layout: the same memory."""
        code = self.places[Region.CODE]
        place = RegionPlace(code.base + len(segment.commands), len(segment.setup))
        alone = NpuSegment(
            name=f"{segment.name}, weights",
            commands=segment.setup,
            constants=segment.constants,
        )
        return alone, Layout({**self.places, Region.CODE: place})

    def __getitem__(self, region: Region) -> RegionPlace:
        return self.places[region]
