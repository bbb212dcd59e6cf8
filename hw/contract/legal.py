"""Which field values an engine refuses before it does anything.

Shared by the emulator, which faults, and by the static check, which refuses the program.
"""

from __future__ import annotations

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    Command,
    Conv,
    Load,
    Mode,
    Softmax,
    Space,
    Store,
    Transfer,
    Vector,
    VectorOp,
)
from celosia.hw.contract.regs import ErrorCause

__all__ = ["ACC_OPS", "WINDOW_OPS", "field_problem"]

ACC_OPS = frozenset({VectorOp.REQUANT, VectorOp.REQUANT_ADD})
"""Operations that take their A from the accumulator."""
WINDOW_OPS = frozenset({VectorOp.AVERAGE, VectorOp.MAX})
"""Operations that reduce a window of A."""

_CONV_COUNTS = (
    "out_w",
    "out_h",
    "tile_rows",
    "row_len",
    "stride_x",
    "n_ky",
    "n_kx",
    "n_ic",
    "n_oc",
)
_VECTOR_COUNTS = ("n_oc", "out_h", "out_w", "n_ky", "n_kx")

Problem = tuple[ErrorCause, str]


def field_problem(command: Command, config: NpuConfig) -> Problem | None:
    """Return the fault that a command's own fields cause, with the reason, or None.

    Addresses that leave a memory while the command runs are not looked at here.
    """
    if isinstance(command, Transfer):
        return _transfer_problem(command, config)
    if isinstance(command, Conv):
        return _conv_problem(command, config)
    if isinstance(command, Vector):
        return _vector_problem(command)
    if isinstance(command, Softmax):
        return _zero_count(command, ("channels", "n_rows"))
    return None


def _zero_count(command: Command, names: tuple[str, ...]) -> Problem | None:
    for name in names:
        if getattr(command, name) == 0:
            return ErrorCause.ILLEGAL_FIELD, f"{type(command).__name__}.{name} is 0"
    return None


def _transfer_problem(command: Transfer, config: NpuConfig) -> Problem | None:
    problem = _zero_count(command, ("row_bytes", "n1", "n2"))
    if problem:
        return problem
    if isinstance(command, Store) and command.space != Space.ACT:
        return ErrorCause.ILLEGAL_FIELD, "a Store reads ACT only"
    if isinstance(command, Load) and command.space != Space.ACT:
        for name in (
            "mem_addr",
            "sram_addr",
            "row_bytes",
            "mem_stride1",
            "sram_stride1",
            "mem_stride2",
            "sram_stride2",
        ):
            if getattr(command, name) % config.bus_bytes:
                return (
                    ErrorCause.ILLEGAL_FIELD,
                    f"Load.{name} is no multiple of the bus word ({config.bus_bytes} bytes)",
                )
    return None


def _conv_problem(command: Conv, config: NpuConfig) -> Problem | None:
    problem = _zero_count(command, _CONV_COUNTS)
    if problem:
        return problem
    if command.wgt_addr % 2:
        return ErrorCause.ILLEGAL_FIELD, "Conv.wgt_addr is odd"
    if command.mode == Mode.WINDOW:
        if (command.row_len, command.extra, command.stride_x) != (command.out_w, 0, 1):
            return (
                ErrorCause.ILLEGAL_FIELD,
                "WINDOW needs row_len = out_w, extra = 0 and stride_x = 1",
            )
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


def _vector_problem(command: Vector) -> Problem | None:
    problem = _zero_count(command, _VECTOR_COUNTS)
    if problem:
        return problem
    if command.op in ACC_OPS:
        problem = _zero_count(command, ("tile_rows",))
        if problem:
            return problem
    if command.op not in WINDOW_OPS and (command.n_ky, command.n_kx) != (1, 1):
        return ErrorCause.ILLEGAL_FIELD, f"{VectorOp(command.op).name} has no window"
    if command.shared and command.op != VectorOp.REQUANT:
        return ErrorCause.ILLEGAL_FIELD, f"{VectorOp(command.op).name} has no shared multiplier"
    return None
