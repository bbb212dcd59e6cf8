"""Tables for terminals of any width: numbers are never cut, columns go by their importance."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Column", "bar", "cut", "milliseconds", "table_lines"]

GAP = 2
LEAST_TEXT = 16
"""Of the last column, whose cells are wrapped: with less it is left out."""
EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    title : str
    cells : sequence of str
        One a row.
    importance : int
        Columns of the least go first; 0 stays at any width.
    right : bool
        Whether its cells end at its right edge, as numbers do.
    wraps : bool
        Whether its cells take several lines if need be; of the last one only.
    """

    title: str
    cells: Sequence[str]
    importance: int = 0
    right: bool = False
    wraps: bool = False

    @property
    def width(self) -> int:
        """Characters of its widest cell."""
        return max(len(self.title), *(len(cell) for cell in self.cells), 0)


def table_lines(columns: Sequence[Column], width: int) -> list[str]:
    """Return a table's lines, of at most `width` characters if the columns that stay allow it.

    Parameters
    ----------
    columns : sequence of Column
        In order; all have as many cells.
    width : int
    """

    def least(column: Column) -> int:
        return min(LEAST_TEXT, column.width) if column.wraps else column.width

    shown = [column for column in columns if any(column.cells)]
    while sum(least(column) + GAP for column in shown) - GAP > width:
        optional = [column for column in shown if column.importance]
        if not optional:
            break
        # The larger the number, the less it matters.
        worst = max(optional, key=lambda column: column.importance)
        shown = [column for column in shown if column is not worst]
    fixed = sum(column.width + GAP for column in shown if not column.wraps)
    rows = zip(*([column.title, *column.cells] for column in shown), strict=True)
    lines: list[str] = []
    for row in rows:
        parts, wrapped = [], [""]
        for column, cell in zip(shown, row, strict=True):
            if column.wraps:
                wrapped = textwrap.wrap(cell, max(width - fixed, 1)) or [""]
            else:
                parts.append(cell.rjust(column.width) if column.right else cell.ljust(column.width))
        first, *more = wrapped
        lines.append((" " * GAP).join([*parts, first]).rstrip())
        lines += [" " * fixed + text for text in more]
    return lines


def cut(text: str, width: int) -> str:
    """Return a text of at most `width` characters."""
    return text if len(text) <= width else f"{text[: width - 2]}.."


def bar(share: float, width: int, *, blocks: bool = True) -> str:
    """Return a bar for a share of 1.

    Parameters
    ----------
    share : float
        0 to 1.
    width : int
        Characters of a whole.
    blocks : bool
        Whether there are block characters, to an eighth; else number signs.
    """
    if not blocks:
        return "#" * round(share * width)
    whole, part = divmod(round(share * width * 8), 8)
    return ("█" * whole + EIGHTHS[part]).rstrip()


def milliseconds(value: float) -> str:
    """Return a time with three digits, and no exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
