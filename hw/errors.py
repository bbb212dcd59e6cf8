"""The base of all exceptions that a user of Celosia can meet.

Here, below everything else, so that configuration and instruction set can raise their own; the
others are in ``sw/errors.py``. Pure standard library.
"""

from __future__ import annotations

import unicodedata

__all__ = ["CelosiaError", "printable"]

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that a terminal obeys or hides: controls (C0, DEL, C1), formats (among them
those that turn the direction of the text), lone surrogates, separators of lines."""


def printable(text: str, *, keep: str = "") -> str:
    """Show characters that a terminal obeys or hides as escapes, all others as they are.

    Parameters
    ----------
    text : str
        Anything that came from a file or from its name.
    keep : str
        Characters to leave alone, for example the line feeds of a table.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _HIDDEN else _escape(char)
        for char in text
    )


def _escape(char: str) -> str:
    # ASCII encodes its own controls as they are: only what lies above becomes an escape there.
    above = ord(char) > 0x7F
    return char.encode("ascii", "backslashreplace").decode() if above else f"\\x{ord(char):02x}"


class CelosiaError(Exception):
    """Base of all Celosia exceptions; printed as ``what: cause. Remedy``.

    Parameters
    ----------
    what : str
        What failed, named as the user knows it: a file, an operator, a device.
    cause : str
        Why it failed. Without a final full stop.
    remedy : str
        What the user can do. Without a final full stop.
    """

    def __init__(self, what: str, cause: str = "", remedy: str = "") -> None:
        # Names in files come into messages, and messages go to terminals. Line feeds are ours:
        # lists in the messages have them; the readers of files escape those in names.
        what, cause, remedy = (printable(text, keep="\n") for text in (what, cause, remedy))
        super().__init__(what, cause, remedy)
        self.what = what
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.what}: {self.cause}" if self.cause else self.what
        if not self.remedy:
            return text
        return f"{text.rstrip('.')}. {self.remedy[:1].upper()}{self.remedy[1:]}"
