"""Sipeed Tang Primer 20K on its dock, with a GW2A-18C:
https://wiki.sipeed.com/hardware/en/tang/tang-primer-20k/primer-20k.html"""

from __future__ import annotations

from typing import Any

from celosia.boards.board import Board
from celosia.boards.memories import block_ram

__all__ = ["TANG_PRIMER_20K"]


def _platform() -> Any:
    from amaranth_boards.tang_primer_20k import TangPrimer20kDockPlatform

    return TangPrimer20kDockPlatform(toolchain="Apicula")


TANG_PRIMER_20K = Board(
    name="tang-primer-20k",
    title="Tang Primer 20K (dock)",
    device="GW2A-LV18PG256C8/I7",
    family="gowin",
    # Gowin DS102, table 1-1. A multiplier of 18 x 18 bits takes the place of two of 9 x 9. Every
    # table is a place for one, or for a flip-flop that has none before it.
    capacity={"places": 20736, "LUT4": 20736, "FF": 15552, "BSRAM": 46, "MULT9X9": 96},
    config="tiny",
    input_hz=27_000_000,
    # 27 MHz x 9 / 4: the lowest clock from 60 MHz on whose phase detector is well above its limit.
    clock_hz=60_750_000,
    memory=block_ram(16 * 1024, output_register=False),
    platform=_platform,
    programmer="tangprimer20k",
    tool_options={
        # Spread over the whole chip, or the wires amid it run out. The other router, the default,
        # is left with some hundred wires that two nets want.
        "route": ("--placer-heap-beta", "0.5", "--router", "router1"),
        # The lamps and the serial line are on pins that configuration uses first.
        "pack": ("--mspi_as_gpio", "--sspi_as_gpio", "--ready_as_gpio", "--done_as_gpio"),
    },
    remark="the DDR3 memory is not used: there is no open controller for it here",
)
