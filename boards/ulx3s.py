"""Radiona ULX3S with an LFE5U-85F: https://radiona.org/ulx3s"""

from __future__ import annotations

from typing import Any

from celosia.boards.board import Board, BoardMemory
from celosia.boards.fpga.resources import capacity_of_ecp5
from celosia.hw.contract.config import NpuConfig
from celosia.hw.system.sdram_timing import SDRAM_CHIPS

__all__ = ["ULX3S_85F"]


SDRAM = SDRAM_CHIPS["IS42S16160G-7"]
"""Boards come with this one or with a W9825G6KH; it is the slower one in every respect."""
SDRAM_HZ = 133_333_333
"""The fastest at which all waiting times are as short in cycles as the controller provides for."""
SDRAM_FIRST_CYCLES = 7
"""Until the first 16 bits of a word, with CAS latency 3; a test holds it to the controller."""


def _platform() -> Any:
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    return ULX3S_85F_Platform()


def _sdram(board: Board, config: NpuConfig, clock_hz: int, memory_bytes: int) -> Any:
    from celosia.boards.sdram import BoardSdram

    return BoardSdram(config, chip=SDRAM, clock_hz=board.memory_hz(clock_hz), own_clock=True)


ULX3S_85F = Board(
    name="ulx3s",
    title="ULX3S-85F",
    device="LFE5U-85F",
    family="ecp5",
    capacity=capacity_of_ecp5("LFE5U-85F"),
    config="ulx3s",
    input_hz=25_000_000,
    clock_hz=80_000_000,
    memory=BoardMemory(
        kind="SDRAM",
        bytes=SDRAM.memory_bytes,
        first_cycles=SDRAM_FIRST_CYCLES,
        port_bits=16,
        make=_sdram,
        sdram=SDRAM,
        clock_hz=SDRAM_HZ,
        crossing_cycles=5,
        lost=0.03,
    ),
    platform=_platform,
    programmer="ulx3s",
    others={"wide": 70_500_000},
)
"""The board of reference: 64 multipliers, or 256 of which most are made of tables."""
