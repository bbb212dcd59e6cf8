"""Radiona ULX3S with an LFE5U-85F: https://radiona.org/ulx3s"""

from __future__ import annotations

from typing import Any

from celosia.boards.board import Board, BoardMemory
from celosia.boards.memories import BLOCK_RAM_LATENCY_CYCLES, make_block_ram
from celosia.boards.resources import capacity_of_ecp5

__all__ = ["ULX3S_85F"]


def _platform() -> Any:
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    return ULX3S_85F_Platform()


ULX3S_85F = Board(
    name="ulx3s",
    title="ULX3S-85F",
    device="LFE5U-85F",
    family="ecp5",
    capacity=capacity_of_ecp5("LFE5U-85F"),
    config="base",
    input_hz=25_000_000,
    clock_hz=80_000_000,
    memory=BoardMemory(
        kind="block RAM",
        bytes=192 * 1024,
        latency_cycles=BLOCK_RAM_LATENCY_CYCLES,
        make=make_block_ram,
        on_chip=True,
    ),
    platform=_platform,
    programmer="ulx3s",
)
"""The board of reference: 64 multipliers."""
