"""Figures in documents: marked in the text, so that a command writes them and a test holds them.

A block is a comment line with a code block or a table behind it; what is behind it is replaced::

    <!-- make docs: cycles main -->
    ```
    (the table)
    ```

A figure within a sentence or a cell stands between two comments, which no reader of the page sees::

    kws takes <!--= cycles kws_int8 base -->46,777<!--/--> cycles

Such a mark must not begin a line: in Markdown a comment there ends the paragraph.
"""

from __future__ import annotations

import re
from typing import Protocol

from celosia.errors import CelosiaError

__all__ = ["FigureError", "NotHereError", "Source", "marks_of", "render"]

_BLOCK = re.compile(
    r"^<!-- make docs: (?P<name>.+?) -->\n"
    r"(?:(?P<fence>```.*)\n(?P<code>(?s:.*?))^```$|(?P<table>(?:^\|.*\n?)+))",
    re.M,
)
_FIGURE = re.compile(r"<!--= (?P<name>[^>]+?) -->(?P<value>[^<]*)<!--/-->")
_MARK = re.compile(r"<!-- make docs:|<!--=|<!--/-->")
_FIRST = re.compile(r"^\s*<!--=.*", re.M)


class FigureError(CelosiaError):
    """A mark that nobody knows, one without an end, or one where it must not be."""


class NotHereError(CelosiaError):
    """What a figure is made of is not here; the figure stays as it is."""


class Source(Protocol):
    """What writes the figures."""

    def block(self, name: str, old: str) -> str:
        """Return the lines of a block, without a line end at its end.

        Parameters
        ----------
        name : str
            As the document marks it.
        old : str
            The lines that are there.

        Raises
        ------
        FigureError
            If there is no such block.
        NotHereError
            If it cannot be made here.
        """

    def figure(self, name: str) -> str:
        """Return a figure within a sentence; raises as `block` does."""


def render(text: str, source: Source, problems: list[str] | None = None) -> str:
    """Return a document with its figures written anew.

    Parameters
    ----------
    text : str
        The document.
    source : Source
        What writes them.
    problems : list of str, optional
        Gets why a figure stays as it is, once each.

    Raises
    ------
    FigureError
        If a mark is not known, has no end, or begins a line.
    """
    notes = [] if problems is None else problems

    def stays(error: NotHereError) -> None:
        if str(error) not in notes:
            notes.append(str(error))

    def block(found: re.Match[str]) -> str:
        try:
            old = found["table"] if found["fence"] is None else found["code"]
            new = source.block(found["name"], old.rstrip("\n")).rstrip("\n")
        except NotHereError as error:
            stays(error)
            return found[0]
        head = f"<!-- make docs: {found['name']} -->\n"
        if found["fence"] is None:
            return f"{head}{new}\n"
        return f"{head}{found['fence']}\n{new}\n```"

    def figure(found: re.Match[str]) -> str:
        try:
            return f"<!--= {found['name']} -->{source.figure(found['name'])}<!--/-->"
        except NotHereError as error:
            stays(error)
            return found[0]

    left = _FIGURE.sub("", _BLOCK.sub("", text))
    if (mark := _MARK.search(left)) is not None:
        line = left[mark.start() :].splitlines()[0]
        raise FigureError("a figure's mark", f"{line!r} has no end, or nothing to write into")
    if (first := _FIRST.search(text)) is not None:
        raise FigureError("a figure's mark", f"{first[0].strip()!r} begins a line")
    return _FIGURE.sub(figure, _BLOCK.sub(block, text))


def marks_of(text: str) -> list[str]:
    """Return the names of a document's figures, blocks first."""
    return [found["name"] for pattern in (_BLOCK, _FIGURE) for found in pattern.finditer(text)]
