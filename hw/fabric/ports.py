"""Ports between the control part and the engines."""

from __future__ import annotations

from amaranth.lib import stream
from amaranth.lib.wiring import Out, Signature
from celosia.hw.contract.isa import COMMAND_BITS
from celosia.hw.contract.units import Unit

__all__ = ["CommandPort", "FaultPort", "Unit"]


def CommandPort() -> stream.Signature:  # noqa: N802 - used as a signature's name
    """Return the signature of a command stream, seen from the source of the commands.

    The payload is the raw 512-bit command (see :func:`celosia.hw.control.decode.command_layout`).
    It is stable while ``valid`` is high; the engine works meanwhile and answers with one cycle of
    ``ready`` when the command is complete.
    """
    return stream.Signature(COMMAND_BITS)


class FaultPort(Signature):
    """An error report, seen from the part that reports it.

    Members
    -------
    valid : Out(1)
        There is an error. One cycle is enough; the first of a program is latched.
    cause : Out(8)
        :class:`celosia.hw.contract.regs.ErrorCause`.
    address : Out(32)
        Address in error (system memory or on-chip byte), 0 if there is none.
    """

    def __init__(self) -> None:
        super().__init__({"valid": Out(1), "cause": Out(8), "address": Out(32)})
