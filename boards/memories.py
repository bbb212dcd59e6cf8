"""System memories that boards share; where a board has its own, its file has it."""

from __future__ import annotations

from typing import Any

from celosia.boards.board import Board, BoardMemory
from celosia.hw.config import NpuConfig

__all__ = ["block_ram"]

BLOCK_RAM_LATENCY_CYCLES = 3


def block_ram(memory_bytes: int) -> BoardMemory:
    """Return system memory made of the FPGA's block RAM, unless another size is asked for."""
    return BoardMemory(
        kind="block RAM",
        bytes=memory_bytes,
        first_cycles=BLOCK_RAM_LATENCY_CYCLES,
        make=_make_block_ram,
        on_chip=True,
    )


def _make_block_ram(board: Board, config: NpuConfig, clock_hz: int, memory_bytes: int) -> Any:
    from celosia.hw.system.ram import BlockRam

    return BlockRam(config, memory_bytes=memory_bytes)
