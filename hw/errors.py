"""The base of all exceptions that a user of Celosia can meet.

Here, below everything else, so that configuration and instruction set can raise their own; the
others are in ``sw/errors.py``. Pure standard library.
"""

from __future__ import annotations

__all__ = ["CelosiaError"]


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
        super().__init__(what, cause, remedy)
        self.what = what
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.what}: {self.cause}" if self.cause else self.what
        if not self.remedy:
            return text
        return f"{text.rstrip('.')}. {self.remedy[:1].upper()}{self.remedy[1:]}"
