"""System memories that boards share; where a board has its own, its file has it."""

from __future__ import annotations

from functools import partial
from typing import Any

from celosia.boards.board import Board, BoardMemory
from celosia.hw.contract.config import NpuConfig

__all__ = ["block_ram"]

BLOCK_RAM_LATENCY_CYCLES = 2
"""Without an output register."""


def block_ram(memory_bytes: int, *, output_register: bool = True) -> BoardMemory:
    """Return system memory made of the FPGA's block RAM, unless another size is asked for.

    See :class:`celosia.hw.system.ram.BlockRam` for `output_register`.
    """
    return BoardMemory(
        kind="block RAM",
        bytes=memory_bytes,
        first_cycles=BLOCK_RAM_LATENCY_CYCLES + output_register,
        make=partial(_make_block_ram, output_register=output_register),
        on_chip=True,
    )


def _make_block_ram(
    board: Board, config: NpuConfig, clock_hz: int, memory_bytes: int, *, output_register: bool
) -> Any:
    from celosia.hw.system.ram import BlockRam

    return BlockRam(config, memory_bytes=memory_bytes, output_register=output_register)
