"""OrangeCrab r0.2 with an LFE5U-85F: https://orangecrab-fpga.github.io/orangecrab-hardware

Its serial line is on the pins that a Feather has it on: 0 receives, 1 sends. The DDR3 memory is
not used: there is no controller for it here.
"""

from __future__ import annotations

from typing import Any

from celosia.boards.board import Board
from celosia.boards.fpga.resources import capacity_of_ecp5
from celosia.boards.memories import block_ram

__all__ = ["ORANGECRAB_85F"]


def _platform() -> Any:
    from amaranth.build import Attrs
    from amaranth_boards.orangecrab_r0_2 import OrangeCrabR0_2_85FPlatform
    from amaranth_boards.resources import UARTResource

    platform = OrangeCrabR0_2_85FPlatform()
    line = Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP")
    platform.add_resources([UARTResource(0, rx="0", tx="1", conn=("io", 0), attrs=line)])
    return platform


ORANGECRAB_85F = Board(
    name="orangecrab",
    title="OrangeCrab r0.2 85F",
    device="LFE5U-85F",
    family="ecp5",
    capacity=capacity_of_ecp5("LFE5U-85F"),
    config="tiny",
    input_hz=48_000_000,
    clock_hz=80_000_000,
    memory=block_ram(256 * 1024),
    platform=_platform,
    programmer="orangeCrab",
    leds=(("rgb_led", 0, "g"),),
    tool_options={"pack": ("--freq", "38.8")},
    remark="the DDR3 memory is not used: there is no open controller for it here",
)
"""A serial adapter is needed: the USB socket is connected to the FPGA directly."""
