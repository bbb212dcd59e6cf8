"""Tables as text."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, RenderableType

__all__ = ["markdown_table", "table_text"]

WIDTH = 150


def table_text(table: RenderableType) -> str:
    """Return a table as it is printed, without colours and without blanks at line ends."""
    console = Console(width=WIDTH, file=io.StringIO(), highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> str:
    """Return a Markdown table whose first `texts` columns are texts, the others numbers."""
    lines = [
        f"| {' | '.join(heads)} |",
        "|" + "".join("---|" if index < texts else "--:|" for index in range(len(heads))),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)
