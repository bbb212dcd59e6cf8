"""One command on its way into a program, with what it reads and writes.

Footprints are byte intervals in one memory each. An interval may be larger than what the command
really touches (strided transfers, channel tiles of a tensor): that costs at most a needless wait,
never a race.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from celosia.hw.contract.isa import Command, Engine, Region, Space
from celosia.sw.compiler.arithmetic.whole import Range

__all__ = ["Footprint", "Part", "Place", "Step", "conflict", "is_requantise"]


class Place(IntEnum):
    """The memories that commands communicate through."""

    ACT = 0
    WGT = 1
    PARAM = 2
    TABLE = 3
    CODE = 4
    CONST = 5
    IO = 6
    SCRATCH = 7

    @staticmethod
    def of_space(space: Space) -> Place:
        """Return the place of an on-chip memory."""
        return Place(int(space))

    @staticmethod
    def of_region(region: Region) -> Place:
        """Return the place of a window of system memory."""
        return Place(4 + int(region))


@dataclass(frozen=True)
class Part:
    """A box of a grid of pixels: footprints of one grid overlap only if their boxes do.

    Attributes
    ----------
    grid : tuple of int
        What the grid is: where it begins, bytes from row to row and from pixel to pixel.
    box : tuple of (int, int)
        Rows, columns and bytes of a pixel.
    """

    grid: tuple[int, int, int]
    box: tuple[Range, Range, Range]


@dataclass(frozen=True)
class Footprint:
    """Bytes ``start`` to ``end - 1`` of one memory, or those of them that belong to a part."""

    place: Place
    start: int
    end: int
    part: Part | None = None

    def overlaps(self, other: Footprint) -> bool:
        """Whether the two may have a byte in common."""
        # Every command is held against many: the cheap part of the question first.
        return (
            self.start < other.end
            and other.start < self.end
            and self.place is other.place
            and not self._beside(other)
        )

    def _beside(self, other: Footprint) -> bool:
        """Whether they are boxes of one grid that have nothing in common."""
        one, two = self.part, other.part
        if one is None or two is None or one.grid != two.grid:
            return False
        return any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one.box, two.box, strict=True))


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command without tag and tokens.

    Attributes
    ----------
    command : Command
        `wait`, `signal` and `tag` are still zero.
    reads, writes : tuple of Footprint
        Everything the command touches; reads of constants in memory are left out, since nothing
        writes them.
    layer : int
        Index of the layer that the command works for.
    """

    command: Command
    reads: tuple[Footprint, ...]
    writes: tuple[Footprint, ...]
    layer: int

    @property
    def engine(self) -> Engine:
        """The engine that runs the command."""
        engine = self.command.engine
        assert engine is not None, "End has no engine"
        return engine


def _any_overlap(one: tuple[Footprint, ...], other: tuple[Footprint, ...]) -> bool:
    # Asked for most pairs of steps: loops are faster than `any`.
    for a in one:
        for b in other:
            if a.overlaps(b):
                return True
    return False


def conflict(earlier: Step, later: Step) -> bool:
    """Whether the order of two steps matters: read after write, write after read or write."""
    return (
        _any_overlap(earlier.writes, later.reads)
        or _any_overlap(earlier.reads, later.writes)
        or _any_overlap(earlier.writes, later.writes)
    )


def is_requantise(step: Step) -> bool:
    """Whether the step empties the accumulator tiles of the `Conv` before it."""
    return step.command.reads_acc
