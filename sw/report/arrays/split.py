"""Ways to divide a layer's output among arrays: by rows of the image, by channels, by both."""

from __future__ import annotations

from dataclasses import dataclass

from celosia.sw.compiler.arithmetic.whole import Range, ceil_div

__all__ = [
    "COLUMNS",
    "FOUR",
    "HALVES",
    "ONE",
    "PAIR",
    "SQUARE",
    "STRIPES",
    "TWO",
    "Region",
    "Split",
]


@dataclass(frozen=True)
class Region:
    """The part of an image [H, W, C] that an array computes or holds.

    Attributes
    ----------
    rows, channels : (int, int)
        First, and one past the last; the width is whole.
    """

    rows: Range
    channels: Range


@dataclass(frozen=True)
class Split:
    """How many parts a layer's output is divided into.

    Attributes
    ----------
    stripes : int
        Parts of the image's rows.
    columns : int
        Parts of the channels. Arrays of one stripe read the same activations.
    """

    stripes: int
    columns: int

    @property
    def name(self) -> str:
        """Stripes times columns, as tables and the record call it."""
        return f"{self.stripes}x{self.columns}"

    @property
    def arrays(self) -> int:
        """How many arrays it is for."""
        return self.stripes * self.columns

    def regions(self, height: int, channels: int, line: int) -> list[Region | None]:
        """Return the region of each array, stripe by stripe; None where nothing is left for one.

        Bounds are proportional, so that a layer with half of the rows is cut where the one before
        it is. Channels are cut between lines of `line` channels, which no array shares.
        """
        groups = ceil_div(channels, line)
        rows = _bounds(height, self.stripes)
        columns = [
            (first * line, min(end * line, channels))
            for first, end in _bounds(groups, self.columns)
        ]
        return [
            Region(own, part) if own[0] < own[1] and part[0] < part[1] else None
            for own in rows
            for part in columns
        ]


def _bounds(size: int, parts: int) -> list[Range]:
    """Return where each part begins and ends."""
    ends = [ceil_div(size * number, parts) for number in range(parts + 1)]
    return list(zip(ends[:-1], ends[1:], strict=True))


ONE, HALVES, PAIR = Split(1, 1), Split(2, 1), Split(1, 2)
STRIPES, SQUARE, COLUMNS = Split(4, 1), Split(2, 2), Split(1, 4)
FOUR = (STRIPES, SQUARE, COLUMNS)
"""Of four arrays."""
TWO = (HALVES, PAIR)
"""Of two."""
