"""Exceptions a user of Celosia can meet.

Every one of them says what failed, why, and what to do about it. Anything else that escapes from
the public interface is a defect of Celosia, not of the user's model or board.
"""

from __future__ import annotations

from celosia.hw.errors import CelosiaError, printable

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


class UnsupportedError(ModelError):
    """The model is sound, but uses something the NPU or the compiler does not do."""


class CompileError(CelosiaError):
    """A supported model cannot be mapped onto the chosen configuration."""


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
