"""Layouts of the commands, made from the schema in :mod:`celosia.hw.contract.isa`."""

from __future__ import annotations

from amaranth.hdl import signed, unsigned
from amaranth.lib import data
from celosia.hw.contract.isa import COMMAND_BITS, Command, fields_of

__all__ = ["command_layout"]


def command_layout(kind: type[Command]) -> data.StructLayout:
    """Return the layout of a kind of command: exactly 512 bits.

    Signed fields have signed shapes, enumerations are plain unsigned numbers. What is left above
    the last field is called ``reserved``.

    Parameters
    ----------
    kind : type of Command
        For example :class:`celosia.hw.contract.isa.Conv`.
    """
    members = {
        spec.name: signed(spec.width_bits) if spec.signed else unsigned(spec.width_bits)
        for spec in fields_of(kind)
    }
    rest_bits = COMMAND_BITS - sum(shape.width for shape in members.values())
    if rest_bits:
        members["reserved"] = unsigned(rest_bits)
    return data.StructLayout(members)
