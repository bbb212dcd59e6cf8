"""Exceptions a user of Celosia can meet.

Every one of them says what failed, why, and what to do about it. Anything else that escapes from
the public interface is a defect of Celosia, not of the user's model or board.

Pure standard library: everything else may import it.
"""

from __future__ import annotations

import unicodedata

__all__ = [
    "CelosiaError",
    "CompileError",
    "DeviceError",
    "InputError",
    "ModelError",
    "ProgramError",
    "UnsupportedError",
    "printable",
]

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


class ModelError(CelosiaError):
    """The model file is damaged, is not a TFLite model, or contradicts itself.

    Parameters
    ----------
    what, cause, remedy : str
        See `CelosiaError`.
    file : str
        Path of the model, or a placeholder when it came as bytes.
    op_index : int, optional
        Number of the operator in the file.
    op_type : str
        TFLite name of the operator, for example ``CONV_2D``.
    tensor : str
        Name of the tensor concerned.

    Attributes
    ----------
    parts : tuple of ModelError
        If it tells of several operators: an error for each of them.
    """

    def __init__(
        self,
        what: str,
        cause: str = "",
        remedy: str = "",
        *,
        file: str = "",
        op_index: int | None = None,
        op_type: str = "",
        tensor: str = "",
    ) -> None:
        super().__init__(what, cause, remedy)
        self.file = file
        self.op_index = op_index
        self.op_type = op_type
        self.tensor = tensor
        self.parts: tuple[ModelError, ...] = ()


class UnsupportedError(ModelError):
    """The model is sound, but uses something the NPU or the compiler does not do."""


class CompileError(CelosiaError):
    """A supported model cannot be mapped onto the chosen configuration.

    Parameters
    ----------
    what, cause, remedy : str
        See `CelosiaError`.
    op_index : int, optional
        Number of the operator in the file that does not fit.
    """

    def __init__(
        self, what: str, cause: str = "", remedy: str = "", *, op_index: int | None = None
    ) -> None:
        super().__init__(what, cause, remedy)
        self.op_index = op_index


class DefectError(CompileError):
    """The compiler has made something that makes no sense: a defect, to be reported."""


class ProgramError(CelosiaError):
    """A compiled program is damaged, of another version, or for another configuration."""


class DeviceError(CelosiaError):
    """A device stopped with a fault, or cannot be reached.

    Parameters
    ----------
    what, cause, remedy : str
        See `CelosiaError`.
    fault : str
        Name of the fault as the register map spells it; empty when the device never answered.
    address : int, optional
        Faulting byte address.
    command : int, optional
        Index of the command that was being executed.
    """

    def __init__(
        self,
        what: str,
        cause: str = "",
        remedy: str = "",
        *,
        fault: str = "",
        address: int | None = None,
        command: int | None = None,
    ) -> None:
        super().__init__(what, cause, remedy)
        self.fault = fault
        self.address = address
        self.command = command


class InputError(CelosiaError):
    """An array handed to a program has the wrong shape, dtype or name."""
