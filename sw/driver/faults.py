"""What stopped a program, in words."""

from __future__ import annotations

from dataclasses import dataclass

from celosia.errors import DeviceError
from celosia.hw.contract.isa import COMMAND_BYTES, Region
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.contract.units import Unit
from celosia.sw.driver.layout import Layout
from celosia.sw.program.segments import NpuSegment

__all__ = ["Fault", "fault_error"]

UNITS = ("load engine", "store engine", "array", "vector engine", "command fetch")

_DAMAGED = "compile the model again; if it stays, the compiler has a defect: please report it"
_EXPLANATIONS: dict[ErrorCause, tuple[str, str]] = {
    ErrorCause.NONE: ("no cause was recorded", _DAMAGED),
    ErrorCause.ILLEGAL_OPCODE: ("a command has an unknown opcode", _DAMAGED),
    ErrorCause.ILLEGAL_FIELD: ("a command has a field outside its range", _DAMAGED),
    ErrorCause.ACT_RANGE: ("an address is outside the activation memory", _DAMAGED),
    ErrorCause.WGT_RANGE: ("an address is outside the weight memory", _DAMAGED),
    ErrorCause.PARAM_RANGE: ("an address is outside the parameter memory", _DAMAGED),
    ErrorCause.ACC_OVERFLOW: ("a tile is larger than the accumulator", _DAMAGED),
    ErrorCause.BANK_CONFLICT: ("three kernel rows are not in three banks", _DAMAGED),
    ErrorCause.MEM_WINDOW: ("a transfer leaves its region of system memory", _DAMAGED),
    ErrorCause.BUS_ERROR: (
        "system memory answered with an error",
        "check that the device's memory is as large as memory_bytes says",
    ),
    ErrorCause.BUS_TIMEOUT: (
        "system memory did not answer",
        "check the memory behind the bus, or raise bus_timeout_cycles",
    ),
    ErrorCause.WATCHDOG: (
        "the program did not end within its time",
        "raise watchdog_cycles if the memory is slow; else it waits for something that never comes",
    ),
    ErrorCause.FETCH_WINDOW: ("the command stream has no End", _DAMAGED),
    ErrorCause.TOKEN_OVERFLOW: ("an engine gave more tokens than can be counted", _DAMAGED),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the registers say about an error.

    Attributes
    ----------
    cause : int
        `ErrorCause`, or a number this software does not know.
    unit : int
        Engine; 4 is the command fetch.
    tag : int
        Tag of the command in error.
    address : int
        System memory address or on-chip byte address.
    detail : str
        What a device knows beyond its registers.
    """

    cause: int
    unit: int
    tag: int
    address: int
    detail: str = ""


def fault_error(fault: Fault, segment: NpuSegment, layout: Layout) -> DeviceError:
    """Return the exception that tells a user of a fault.

    Parameters
    ----------
    fault : Fault
        From the registers.
    segment : NpuSegment
        That was run: its layers name the command.
    layout : Layout
        Where it lies in system memory.
    """
    try:
        name = ErrorCause(fault.cause).name
        text, remedy = _EXPLANATIONS[ErrorCause(fault.cause)]
    except ValueError:
        name, text, remedy = str(fault.cause), "an unknown cause", "update the software"
    command = _command(fault, layout[Region.CODE].base, layout[Region.CODE].end)
    layer = None if command is None else segment.layer_of(command)
    place = f"program {segment.name!r}"
    if layer is not None:
        place += f", layer {layer.name!r} ({layer.op})"
    unit = UNITS[fault.unit] if fault.unit < len(UNITS) else f"unit {fault.unit}"
    where = unit if command is None else f"{unit}, command {command}"
    cause = f"{name}: {text} ({where}, address 0x{fault.address:08x})"
    if fault.detail:
        cause += f": {fault.detail}"
    return DeviceError(place, cause, remedy, fault=name, address=fault.address, command=command)


def _command(fault: Fault, code_base: int, code_end: int) -> int | None:
    """Return the index of the command in error, if it is known."""
    if fault.cause == ErrorCause.WATCHDOG:
        return None
    if fault.unit == Unit.FETCH and fault.cause in (
        ErrorCause.BUS_ERROR,
        ErrorCause.BUS_TIMEOUT,
        ErrorCause.FETCH_WINDOW,
    ):
        # The command was never read, so there is no tag: its address tells which it is.
        inside = code_base <= fault.address < code_end
        return (fault.address - code_base) // COMMAND_BYTES if inside else None
    return fault.tag
