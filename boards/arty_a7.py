"""Digilent Arty A7-100T with an XC7A100T: https://digilent.com/reference/arty-a7

There is no place and route for it among the tools from PyPI: a project for Vivado can be written,
and resources are counted with Yosys.
"""

from __future__ import annotations

from typing import Any

from celosia.boards.board import Board
from celosia.boards.memories import block_ram

__all__ = ["ARTY_A7_100T"]


def _platform() -> Any:
    from amaranth_boards.arty_a7 import ArtyA7_100Platform

    class Platform(ArtyA7_100Platform):  # type: ignore[misc]
        """Writes the design in Amaranth's own format, too, which is what Yosys counts from.

        As Verilog, a memory whose words are set one by one, it takes a quarter of an hour to read.
        """

        @property
        def file_templates(self) -> dict[str, str]:
            return {**super().file_templates, "{{name}}.il": "{{emit_rtlil()}}"}

    return Platform()


ARTY_A7_100T = Board(
    name="arty-a7-100t",
    title="Arty A7-100T",
    device="xc7a100ticsg324-1L",
    family="xilinx7",
    # AMD DS180, table 4. Two block memories of 18 Kibit are one of 36.
    capacity={"LUT6": 63400, "FF": 126800, "RAMB18": 270, "DSP48E1": 240},
    config="base",
    input_hz=100_000_000,
    clock_hz=80_000_000,
    memory=block_ram(256 * 1024),
    platform=_platform,
    programmer="arty_a7_100t",
    remark="no bitstream without Vivado: resources are counted, --project writes a Vivado project;"
    " the DDR3 memory is not used",
)
