"""The load and store engines of the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import transfer_runs
from celosia.hw.contract.isa import Engine, Load, Region, Space, Transfer
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.state import Bytes, EmulatorError, EngineFault, MachineState

__all__ = ["transfer"]

Ints = npt.NDArray[np.int64]

_RANGE_CAUSE = {
    Space.ACT: ErrorCause.ACT_RANGE,
    Space.WGT: ErrorCause.WGT_RANGE,
    Space.PARAM: ErrorCause.PARAM_RANGE,
    # The table has no cause of its own; its contents are parameters of the vector engine.
    Space.TABLE: ErrorCause.PARAM_RANGE,
}
_PIECE_BYTES = 1 << 20
_BUS_MASK = (1 << 32) - 1


def transfer(state: MachineState, command: Transfer) -> int:
    """Carry out a `Load` or a `Store` and return the number of bytes it moved.

    Raises
    ------
    EngineFault
        MEM_WINDOW outside the region, BUS_ERROR outside system memory, ACT_RANGE, WGT_RANGE or
        PARAM_RANGE outside the on-chip memory; the address is where the run in error begins.
    """
    base, size = state.regions[Region(command.region)]
    space = Space(command.space)
    memory, first = state.window(Region(command.region))
    target = state.chip[space]
    length = command.row_bytes
    words = max(1, length // state.config.bus_bytes)
    engine = Engine.LOAD if isinstance(command, Load) else Engine.STORE
    # All runs are looked at before the first byte moves. In pieces: there may be any number.
    for offsets, chip_starts in _pieces(command, 1):
        bad_window = (offsets < 0) | (offsets + length > size)
        bad_chip = chip_starts + length > len(target)
        bad = bad_window | bad_chip
        if bad.any():
            run = int(bad.argmax())
            if bad_window[run]:
                raise EngineFault(ErrorCause.MEM_WINDOW, (base + int(offsets[run])) & _BUS_MASK)
            raise EngineFault(_RANGE_CAUSE[space], int(chip_starts[run]))
        state.charge(engine, words * len(offsets))
    if isinstance(command, Load):
        if memory.shape[1] > target.shape[1]:
            target = state.widen(space)
    elif target.shape[1] > memory.shape[1]:
        raise EmulatorError(f"command tag {command.tag} stores into memory that samples share")
    moved = 0
    for offsets, chip_starts in _pieces(command, length):
        starts = base - first + offsets
        bad = starts + length > len(memory)
        if bad.any():
            where = max(int(starts[int(bad.argmax())]), len(memory))
            raise EngineFault(ErrorCause.BUS_ERROR, (first + where) & _BUS_MASK)
        if isinstance(command, Load):
            _runs(target, length)[chip_starts] = _runs(memory, length)[starts]
        else:
            _runs(memory, length)[starts] = _runs(target, length)[chip_starts]
        moved += length * len(starts)
    return moved


def _runs(memory: Bytes, length: int) -> Bytes:
    """Return the `length` bytes from every address, ``[address, length, samples]``; a view."""
    count, samples = memory.shape
    byte, sample = memory.strides
    shape = (max(0, count - length + 1), length, samples)
    return np.lib.stride_tricks.as_strided(memory, shape, (byte, byte, sample))


def _pieces(command: Transfer, length: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield offsets and on-chip addresses of some runs of `length` bytes at a time, in order."""
    outer = max(1, _PIECE_BYTES // (length * command.n1))
    inner = max(1, min(command.n1, _PIECE_BYTES // length))
    for second in range(0, command.n2, outer):
        for first in range(0, command.n1, inner):
            piece = replace(
                command,
                n2=min(outer, command.n2 - second),
                n1=min(inner, command.n1 - first),
                mem_addr=command.mem_addr
                + second * command.mem_stride2
                + first * command.mem_stride1,
                sram_addr=command.sram_addr
                + second * command.sram_stride2
                + first * command.sram_stride1,
            )
            yield transfer_runs(piece)
