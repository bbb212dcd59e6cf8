"""The load and store engines of the emulator."""

from __future__ import annotations

import numpy as np
from celosia.hw.isa import Load, Region, Space, Transfer
from celosia.hw.regs import ErrorCause
from celosia.sim.emulator_addresses import transfer_runs
from celosia.sim.emulator_state import Bytes, EngineFault, MachineState

__all__ = ["transfer"]

_RANGE_CAUSE = {
    Space.ACT: ErrorCause.ACT_RANGE,
    Space.WGT: ErrorCause.WGT_RANGE,
    Space.PARAM: ErrorCause.PARAM_RANGE,
    # The table has no cause of its own; its contents are parameters of the vector engine.
    Space.TABLE: ErrorCause.PARAM_RANGE,
}
_BUS_MASK = (1 << 32) - 1


def transfer(state: MachineState, command: Transfer) -> int:
    """Carry out a `Load` or a `Store` and return the number of bytes it moved.

    Raises
    ------
    EngineFault
        MEM_WINDOW outside the region, BUS_ERROR outside system memory, ACT_RANGE, WGT_RANGE or
        PARAM_RANGE outside the on-chip memory; the address is where the run in error begins.
    """
    offsets, chip_starts = transfer_runs(command)
    base, size = state.regions[Region(command.region)]
    memory_starts = offsets + base
    space = Space(command.space)
    target = _flat_memory(state, space)
    length = command.row_bytes
    bad_window = (offsets < 0) | (offsets + length > size)
    bad_chip = chip_starts + length > len(target)
    bad = bad_window | bad_chip
    if bad.any():
        run = int(bad.argmax())
        if bad_window[run]:
            raise EngineFault(ErrorCause.MEM_WINDOW, int(memory_starts[run]) & _BUS_MASK)
        raise EngineFault(_RANGE_CAUSE[space], int(chip_starts[run]))
    byte = np.arange(length, dtype=np.int64)
    memory = (memory_starts[:, None] + byte).ravel()
    chip = (chip_starts[:, None] + byte).ravel()
    bad = memory >= len(state.memory)
    if bad.any():
        raise EngineFault(ErrorCause.BUS_ERROR, int(memory[int(bad.argmax())]) & _BUS_MASK)
    if isinstance(command, Load):
        target[chip] = state.memory[memory]
    else:
        state.memory[memory] = target[chip]
    return len(chip)


def _flat_memory(state: MachineState, space: Space) -> Bytes:
    if space == Space.ACT:
        return state.act
    if space == Space.WGT:
        return state.wgt.view(np.uint8).reshape(-1)
    if space == Space.PARAM:
        return state.param
    return state.table.reshape(-1)
