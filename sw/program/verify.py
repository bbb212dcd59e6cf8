"""The static check of a program: legality, ranges, deadlocks and races, before it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.errors import ProgramError
from celosia.hw.contract.addresses import softmax_lines, vector_lines
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    COMMAND_BYTES,
    Command,
    End,
    Region,
    Softmax,
    Transfer,
    Vector,
    VectorOp,
)
from celosia.hw.contract.legal import LACKING_REMEDY, field_problem, lacking
from celosia.hw.contract.operations import operation_of
from celosia.sw.program.file import MAX_SYSTEM_BYTES, Program
from celosia.sw.program.footprint import Access, OutOfRangeError, accesses
from celosia.sw.program.limits import MAX_CHECKED_COMMANDS, MAX_USES, check_limits
from celosia.sw.program.order import CommandOrder, command_name

__all__ = ["check_commands", "check_program"]

_REMEDY = "this is a defect of the compiler that wrote the program: report it"


def check_program(program: Program, *, limits: bool = True) -> None:
    """Refuse a program that could fault, get stuck, or give a result that depends on timing.

    Bus errors and time-outs are the system's, and the contents of constants are not looked at.

    Parameters
    ----------
    program : Program
        What to check.
    limits : bool
        Also refuse what takes long or much memory to check or to run (`check_limits`): for files
        that anybody may have written. What the compiler has just made is as large as its model.

    Raises
    ------
    ProgramError
        Naming the command or the two commands in question, and the reason.
    """
    sizes = {region: program.region_bytes(region) for region in Region}
    if limits and sum(sizes.values()) > MAX_SYSTEM_BYTES:
        raise ProgramError(
            "the program",
            f"needs {sum(sizes.values())} bytes of system memory, at most {MAX_SYSTEM_BYTES}"
            " are given",
            "make the model smaller",
        )
    if limits and len(program.commands) > MAX_CHECKED_COMMANDS * COMMAND_BYTES:
        raise ProgramError(
            "the program",
            f"it has {len(program.commands)} bytes of commands, at most"
            f" {MAX_CHECKED_COMMANDS} commands are checked",
            "use a configuration with larger memories",
        )
    commands = program.decode()
    for tensor in (*program.inputs, *program.outputs, *program.intermediates):
        if tensor.end > sizes[Region[tensor.region]]:
            raise ProgramError(
                f"tensor {tensor.name!r}",
                f"ends at byte {tensor.end} of region {tensor.region}, which has"
                f" {sizes[Region[tensor.region]]}",
                _REMEDY,
            )
    check_commands(commands, program.config, sizes, limits=limits)


def check_commands(
    commands: Sequence[Command],
    config: NpuConfig,
    region_bytes: dict[Region, int],
    *,
    limits: bool = True,
) -> None:
    """Check a command stream; `region_bytes` has the size of every region.

    Raises
    ------
    ProgramError
        As `check_program`.
    """
    reach: list[_Use] = []
    for index, command in enumerate(commands):
        _check_fields(index, command, config)
    if limits:
        check_limits(commands, config)
    for index, command in enumerate(commands):
        try:
            found = accesses(command, config)
        except OutOfRangeError as error:
            raise ProgramError(command_name(index, command), str(error), _REMEDY) from None
        if isinstance(command, Transfer):
            _check_window(index, command, found, region_bytes)
        if isinstance(command, Vector):
            _check_vector_order(index, command)
        if isinstance(command, Softmax):
            _check_softmax_order(index, command, config)
        reach += [_Use(index, access) for access in found]
    if limits:
        _check_uses(reach)
    order = CommandOrder(commands, config.queue_depth)
    for first, second in _races(commands, reach, order):
        writer, other = (first, second) if first.access.write else (second, first)
        verb = "writes" if other.access.write else "reads"
        raise ProgramError(
            f"{command_name(writer.index, commands[writer.index])} and"
            f" {command_name(other.index, commands[other.index])}",
            f"the first writes bytes of {writer.access.memory} that the second {verb}, and nothing"
            " orders them",
            _REMEDY,
        )
    for giver, taker, count in order.tokens_left():
        raise ProgramError(
            "the program",
            f"leaves {count} tokens from {giver.name} to {taker.name}, which would still be there"
            " in the next run",
            _REMEDY,
        )


def _check_fields(index: int, command: Command, config: NpuConfig) -> None:
    name = command_name(index, command)
    if command.tag != index:
        raise ProgramError(name, f"its tag is {command.tag}", _REMEDY)
    tokens = command.wait | command.signal
    if isinstance(command, End) and tokens:
        raise ProgramError(name, "End takes and gives no tokens", _REMEDY)
    if command.engine is not None and tokens >> command.engine & 1:
        raise ProgramError(name, "takes or gives a token of its own engine", _REMEDY)
    operation = operation_of(command)
    if operation is not None and not config.can(operation):
        raise ProgramError(name, lacking(operation, config), LACKING_REMEDY)
    problem = field_problem(command, config)
    if problem:
        raise ProgramError(name, f"{problem[0].name}: {problem[1]}", _REMEDY)
    if isinstance(command, Vector) and command.op == VectorOp.AVERAGE:
        divisor = command.n_ky * command.n_kx
        if command.half >= divisor:
            raise ProgramError(
                name, f"half is {command.half}, the window has {divisor} elements", _REMEDY
            )


def _check_window(
    index: int, transfer: Transfer, found: list[Access], region_bytes: dict[Region, int]
) -> None:
    region = Region(transfer.region)
    memory = found[0]
    low, high = memory.bounds
    name = command_name(index, transfer)
    if low < 0 or high > region_bytes[region]:
        raise ProgramError(
            name,
            f"MEM_WINDOW: bytes {low} to {high - 1} of region {region.name}, which has"
            f" {region_bytes[region]}",
            _REMEDY,
        )
    if memory.write and region in (Region.CODE, Region.CONST):
        raise ProgramError(name, f"writes region {region.name}", _REMEDY)


def _check_vector_order(index: int, vector: Vector) -> None:
    """Refuse a command that reads a line after it has written it: its pipeline decides."""
    operands = [] if vector.reads_acc else ["a"]
    if VectorOp(vector.op).has_b:
        operands.append("b")
    written = vector_lines(vector, "d").ravel()
    # When each line is first written, counted in vectors.
    when = np.full(1 << 16, len(written), np.int64)
    when[written[::-1]] = np.arange(len(written))[::-1]
    for operand in operands:
        lines = vector_lines(vector, operand)
        read = lines.reshape(len(written), -1)
        if (when[read] < np.arange(len(written))[:, None]).any():
            raise ProgramError(
                command_name(index, vector),
                f"reads lines of {operand.upper()} that it has written before",
                _REMEDY,
            )


def _check_softmax_order(index: int, softmax: Softmax, config: NpuConfig) -> None:
    """Refuse a result on top of a vector that is still to be read; in place is allowed."""
    source = softmax_lines(softmax, config.line_bytes, "a")
    target = softmax_lines(softmax, config.line_bytes, "d")
    written = np.zeros(1 << 16, np.bool_)
    for row in range(softmax.n_rows):
        in_place = source[row, 0] == target[row, 0]
        if not in_place:
            written[target[row]] = True
        if written[source[row]].any():
            raise ProgramError(
                command_name(index, softmax), "reads lines that it has written before", _REMEDY
            )
        written[target[row]] = True


BLOCK_USES = 256
"""Accesses held against all others at a time."""


@dataclass(frozen=True)
class _Use:
    """An access and the command that makes it."""

    index: int
    access: Access


def _check_uses(uses: list[_Use]) -> None:
    """Refuse more accesses to a memory than their order may have room for."""
    for memory, count in Counter(use.access.memory for use in uses).items():
        if count > MAX_USES:
            raise ProgramError(
                "the program",
                f"it uses {memory} {count} times, at most {MAX_USES} are checked",
                _REMEDY,
            )


def _races(
    commands: Sequence[Command], uses: list[_Use], order: CommandOrder
) -> Iterator[tuple[_Use, _Use]]:
    """Yield pairs of uses that overlap, one of them a write, and are not ordered."""
    by_memory: dict[str, list[_Use]] = {}
    for use in uses:
        by_memory.setdefault(use.access.memory, []).append(use)
    for group in by_memory.values():
        if not any(use.access.write for use in group):
            continue
        engine = np.array([int(commands[use.index].OPCODE) >> 4 for use in group])
        write = np.array([use.access.write for use in group])
        bounds = np.array([use.access.bounds for use in group])
        ordered = _ordered(group, order)
        # In blocks of rows: tables over all pairs of a long program take gigabytes.
        for start in range(0, len(group), BLOCK_USES):
            rows = slice(start, start + BLOCK_USES)
            suspect = (engine[rows, None] != engine) & (write[rows, None] | write)
            suspect &= bounds[rows, None, 0] < bounds[None, :, 1]
            suspect &= bounds[None, :, 0] < bounds[rows, None, 1]
            suspect &= ~(ordered[rows] | ordered[:, rows].T)
            for row, second in np.argwhere(np.triu(suspect, start)):
                first = start + row
                if group[first].access.overlaps(group[second].access):
                    yield group[first], group[second]


def _ordered(group: list[_Use], order: CommandOrder) -> npt.NDArray[np.bool_]:
    """Return ``[i, j]``: use i is over before use j begins."""
    ends = np.array([order.over[use.index] for use in group])
    size = (len(order.before) + 7) // 8
    matrix = np.zeros((len(group), len(group)), np.bool_)
    for column, use in enumerate(group):
        events = order.first if use.access.after_first else order.start
        bits = order.before[events[use.index]].to_bytes(size, "little")
        row = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
        matrix[:, column] = row[ends]
    return matrix
