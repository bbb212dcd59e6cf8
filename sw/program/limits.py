"""How large a program may be, looked at before anything is made of its size.

A few fields of a command multiply to more than any computer can hold or finish. What the compiler
makes is far below all limits: vww at ``tiny``, the largest of the benchmark's programs, has 609
commands, and takes a twentieth of the steps and a four-hundredth of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

from celosia.errors import ProgramError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, Conv, Engine, Mode, Softmax, Transfer, Vector
from celosia.sw.program.footprint import BLOCK_POSITIONS
from celosia.sw.program.order import command_name

__all__ = [
    "MAX_PAIRS",
    "MAX_PAIR_EFFORT",
    "MAX_SYSTEM_BYTES",
    "MAX_WORK_CYCLES",
    "check_limits",
]

MAX_SYSTEM_BYTES = 64 << 20
"""All regions of a segment."""
MAX_PAIRS = 1 << 24
"""Pairs of accesses that nothing orders; the compiler leaves about one or two a command."""
MAX_PAIR_EFFORT = 1 << 25
"""Of telling apart those that are near each other, in intervals."""
MAX_WORK_CYCLES = 1 << 26
"""Cycles that one engine works at least, whatever the memory does."""
MAX_PLACES = 1 << 22
"""Bytes, lines or runs of one command that the check lists."""
MAX_TOTAL_PLACES = 1 << 23
MAX_EFFORT = 1 << 28
"""Of the check, in elements of arrays: about twenty seconds."""

_LOOP_EFFORT = 2000
"""A step in Python, in elements."""
_COMMAND_EFFORT = 4000
_MASK_EFFORT = 20_000
"""Looks at all bytes of the activation memory, for every length of a read."""
_ROLL_EFFORT = 1000
"""One look at all of them."""


def check_limits(commands: Sequence[Command], config: NpuConfig) -> None:
    """Refuse a program that is too large to be checked or run.

    Parameters
    ----------
    commands : sequence of Command
        With legal fields.
    config : NpuConfig
        The machine.

    Raises
    ------
    ProgramError
        Naming the first command at which a limit is passed.
    """
    work = dict.fromkeys(Engine, 0)
    total_places = total_effort = 0
    for index, command in enumerate(commands):
        if command.engine is None:
            continue
        cycles, places, effort = _sizes(command, config)
        work[command.engine] += cycles
        total_places += places
        total_effort += effort
        for what, value, limit in (
            ("cycles of work", work[command.engine], MAX_WORK_CYCLES),
            ("places of one command", places, MAX_PLACES),
            ("places of all commands", total_places, MAX_TOTAL_PLACES),
            ("steps of the check", total_effort, MAX_EFFORT),
        ):
            if value > limit:
                raise ProgramError(
                    command_name(index, command),
                    f"{value} {what} so far, at most {limit} are taken",
                    "make the layer smaller",
                )


def _sizes(command: Command, config: NpuConfig) -> tuple[int, int, int]:
    """Return least cycles, places and effort of a command."""
    if isinstance(command, Transfer):
        runs = command.n1 * command.n2
        words = runs * max(1, command.row_bytes // config.bus_bytes)
        return words, runs, 4 * runs + _COMMAND_EFFORT
    if isinstance(command, Conv):
        tiles = -(-command.out_h // command.tile_rows)
        rows = min(command.tile_rows, command.out_h)
        passes = command.n_ky * command.n_kx * command.n_ic
        positions = rows * command.row_len + command.extra
        cycles = command.n_oc * tiles * passes * positions
        loops = tiles * -(-passes * positions // BLOCK_POSITIONS)
        segments = {Mode.ROWS: config.dw_segments, Mode.JOINED: 2}.get(Mode(command.mode), 1)
        effort = loops * _LOOP_EFFORT + segments * tiles * passes * positions + _MASK_EFFORT
        if command.step_oc:
            effort += command.n_oc * _ROLL_EFFORT
        # Positions of a tile and passes are listed, each for itself; intervals are of the chip.
        return cycles, max(positions, passes), effort
    if isinstance(command, Vector):
        vectors = command.n_oc * command.out_h * command.out_w
        elements = vectors * command.n_ky * command.n_kx
        tiles = 0
        if command.reads_acc:
            tiles = command.n_oc * -(-command.out_h // command.tile_rows)
        return elements, elements, 4 * elements + _LOOP_EFFORT * tiles + _COMMAND_EFFORT
    assert isinstance(command, Softmax), "no other command has an engine"
    lines = command.n_rows * -(-command.channels // config.line_bytes)
    elements = command.n_rows * command.channels
    # The emulator takes the elements one by one.
    return 16 * elements, lines, lines + _LOOP_EFFORT * command.n_rows + _COMMAND_EFFORT
