"""1BitSquared iCEBreaker with an iCE40UP5K: https://docs.icebreaker-fpga.org"""

from __future__ import annotations

from typing import Any

from celosia.boards.board import Board, BoardMemory
from celosia.hw.contract.config import NpuConfig

__all__ = ["ICEBREAKER"]

SPRAM_BYTES = 64 * 1024
"""Half of what there is; the other half is the NPU's local memory."""


def _platform() -> Any:
    from amaranth_boards.icebreaker import ICEBreakerPlatform

    return ICEBreakerPlatform()


def _spram(board: Board, config: NpuConfig, clock_hz: int, memory_bytes: int) -> Any:
    from celosia.boards.fpga.spram import Spram

    return Spram(config, memory_bytes=memory_bytes)


def _local(config: NpuConfig) -> Any:
    from celosia.boards.fpga.spram import LocalSpram

    return LocalSpram(config)


ICEBREAKER = Board(
    name="icebreaker",
    title="iCEBreaker",
    device="iCE40UP5K",
    family="ice40",
    # Lattice FPGA-DS-02008, table 1.1. A logic cell is a table with a flip-flop.
    capacity={"logic cells": 5280, "EBR": 30, "SPRAM": 4, "DSP": 8},
    config="nano",
    input_hz=12_000_000,
    clock_hz=24_000_000,
    memory=BoardMemory(kind="SPRAM", bytes=SPRAM_BYTES, first_cycles=3, make=_spram),
    local_memory=_local,
    platform=_platform,
    programmer="ice40_generic",
    leds=(("led_r", 0), ("led_g", 0)),
)
"""The smallest board."""
