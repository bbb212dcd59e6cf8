"""System memories that boards share; where a board has its own, its file has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celosia.hw.config import NpuConfig

if TYPE_CHECKING:
    from celosia.boards.board import Board

__all__ = ["BLOCK_RAM_LATENCY_CYCLES", "make_block_ram"]

BLOCK_RAM_LATENCY_CYCLES = 3


def make_block_ram(board: Board, config: NpuConfig, clock_hz: int, memory_bytes: int) -> Any:
    """Return system memory in block RAM."""
    from celosia.hw.system.ram import BlockRam

    return BlockRam(config, memory_bytes=memory_bytes)
