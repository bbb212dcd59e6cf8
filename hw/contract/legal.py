"""Which field values an engine refuses before it does anything.

Shared by the emulator, which faults, and by the static check, which refuses the program.
"""

from __future__ import annotations

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    Command,
    Conv,
    Mode,
    Softmax,
    Space,
    Store,
    Transfer,
    Vector,
    VectorOp,
    counts_of,
    fields_of,
    whole_words_of,
)
from celosia.hw.contract.needed import operations_of
from celosia.hw.contract.operations import Operation
from celosia.hw.contract.regs import ErrorCause

__all__ = ["LACKING_REMEDY", "field_problem", "lacking"]

LACKING_REMEDY = "use a configuration that has it, or leave the operator to the host"
"""What to do about an operation that a machine has not."""

Problem = tuple[ErrorCause, str]


def field_problem(command: Command, config: NpuConfig) -> Problem | None:
    """Return the fault that a command's own fields cause, with the reason, or None.

    Addresses that leave a memory while the command runs are not looked at here.
    """
    for operation in operations_of(command):
        if config.can(operation):
            continue
        fault = ErrorCause.ILLEGAL_FIELD
        if isinstance(command, Softmax):
            fault = ErrorCause.ILLEGAL_OPCODE
        return fault, lacking(operation, config)
    cause = _value_problem(command, config)
    if cause:
        return ErrorCause.ILLEGAL_FIELD, cause
    if isinstance(command, Conv):
        return _conv_problem(command, config)
    if isinstance(command, Vector):
        return _vector_problem(command)
    return None


def lacking(operation: Operation, config: NpuConfig) -> str:
    """Return what is wrong with an operation that a machine has not."""
    return (
        f"{operation.name} is not among the operations of configuration {config.name!r}, which are"
        f" {', '.join(config.operations)}"
    )


def _value_problem(command: Command, config: NpuConfig) -> str:
    """Return what is wrong with a field by itself, as the schema has it; empty if nothing is."""
    kind = type(command)
    for name in counts_of(kind):
        if getattr(command, name) == 0:
            return f"{kind.__name__}.{name} is 0"
    if isinstance(command, Transfer) and command.space != Space.ACT:
        if isinstance(command, Store):
            return "a Store reads ACT only"
        for name in whole_words_of(kind):
            if getattr(command, name) % config.bus_bytes:
                what = f"the bus word ({config.bus_bytes} bytes)"
                return f"{kind.__name__}.{name} is no multiple of {what}"
    for spec in fields_of(kind):
        if getattr(command, spec.name) % spec.multiple_of:
            return f"{kind.__name__}.{spec.name} is no multiple of {spec.multiple_of}"
    return ""


def _conv_problem(command: Conv, config: NpuConfig) -> Problem | None:
    mode = Mode(command.mode)
    if mode.windows:
        if (command.row_len, command.extra, command.stride_x) != (command.out_w, 0, 1):
            return (
                ErrorCause.ILLEGAL_FIELD,
                f"{mode.name} needs row_len = out_w, extra = 0 and stride_x = 1",
            )
        if mode is Mode.JOINED and (problem := _joined_problem(command, config)):
            return ErrorCause.ILLEGAL_FIELD, problem
    elif (command.out_w - 1) * command.stride_x >= command.row_len:
        return ErrorCause.ILLEGAL_FIELD, "row_len positions do not reach the last output"
    if (command.hold or command.accumulate) and (
        command.n_oc > 1 or command.out_h > command.tile_rows
    ):
        return ErrorCause.ILLEGAL_FIELD, "hold and accumulate need a Conv of one tile"
    vectors = min(command.tile_rows, command.out_h) * command.out_w
    if vectors > config.acc_depth:
        return (
            ErrorCause.ACC_OVERFLOW,
            f"a tile of {vectors} vectors in a half of {config.acc_depth}",
        )
    return None


def _joined_problem(command: Conv, config: NpuConfig) -> str:
    if not config.joins_rows:
        return "this machine has no mode JOINED"
    if (command.n_ky, command.n_kx, command.ky_rows) != (1, 1, 1):
        return "JOINED needs n_ky = n_kx = ky_rows = 1"
    if command.step_kx == 0:
        return "JOINED needs kernel rows of a byte at least"
    stride_bytes = config.act_banks * config.line_bytes
    if command.row_pitch % stride_bytes != stride_bytes // 2:
        return f"JOINED needs a row_pitch of 2 lines, modulo {config.act_banks}"
    return ""


def _vector_problem(command: Vector) -> Problem | None:
    op = VectorOp(command.op)
    if op.reads_acc and command.tile_rows == 0:
        return ErrorCause.ILLEGAL_FIELD, "Vector.tile_rows is 0"
    if not op.windowed and (command.n_ky, command.n_kx) != (1, 1):
        return ErrorCause.ILLEGAL_FIELD, f"{op.name} has no window"
    if command.shared and not op.shares:
        return ErrorCause.ILLEGAL_FIELD, f"{op.name} has no shared multiplier"
    if (command.pair or command.least) and op != VectorOp.MAX:
        return ErrorCause.ILLEGAL_FIELD, f"{op.name} has no pair and no least value"
    if command.pair and (command.n_ky, command.n_kx) != (1, 1):
        return ErrorCause.ILLEGAL_FIELD, "a pair has no window"
    if command.b_oc and not command.has_b:
        return ErrorCause.ILLEGAL_FIELD, f"{op.name} has no tensor B"
    return None
