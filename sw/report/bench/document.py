"""Puts the tables of a measurement into a document, in place of the older ones.

A document marks where a table belongs by a comment line; the code block behind it is replaced::

    <!-- bench: layers kws_int8 base -->
    ```
    (the table)
    ```
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

from celosia.errors import CelosiaError
from celosia.sw.report.files import write_bytes
from rich.console import Console, RenderableType

__all__ = ["marked_tables", "renew_tables", "table_text"]

WIDTH = 150
_BLOCK = re.compile(r"^<!-- bench: (?P<name>.+?) -->\n```\n.*?^```$", re.M | re.S)


def table_text(table: RenderableType) -> str:
    """Return a table as it is printed, without colours and without blanks at line ends."""
    console = Console(width=WIDTH, file=io.StringIO(), highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def marked_tables(path: Path) -> list[str]:
    """Return the names of the tables that a document has places for.

    Raises
    ------
    CelosiaError
        If it cannot be read or has none.
    """
    try:
        names = [block["name"] for block in _BLOCK.finditer(path.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise CelosiaError(f"document {path}", str(error), "check the path") from None
    if not names:
        raise CelosiaError(
            f"document {path}",
            "it has no place for a table",
            "write a line '<!-- bench: main -->' with a code block behind it",
        )
    return names


def renew_tables(path: Path, tables: Mapping[str, str]) -> None:
    """Replace the tables of a document that were measured; the others stay as they are.

    Parameters
    ----------
    path : Path
        The document.
    tables : mapping of str to str
        By name.

    Raises
    ------
    CelosiaError
        If the document cannot be read or written.
    """
    marked_tables(path)

    def renewed(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in tables:
            return block[0]
        return f"<!-- bench: {name} -->\n```\n{tables[name]}\n```"

    write_bytes(path, _BLOCK.sub(renewed, path.read_text(encoding="utf-8")).encode())
