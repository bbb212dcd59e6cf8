"""What Yosys is told for an ECP5."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.boards.fpga.tools import SYNTHESIS, YOSYS, FpgaToolError, find_tool, run_fpga_tool

TIME_OUT_S = 300


class Rows(Component):
    """Registers in an array of arrays.

    Members
    -------
    i : In(8), o : Out(8)
    """

    def __init__(self) -> None:
        super().__init__({"i": In(8), "o": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = Signal(data.ArrayLayout(data.ArrayLayout(8, 2), 2))
        m.d.sync += [rows[0][0].eq(self.i), rows[0][1].eq(rows[0][0])]
        m.d.sync += [rows[1][0].eq(rows[0][1] + self.i), rows[1][1].eq(rows[1][0])]
        m.d.comb += self.o.eq(rows[1][1])
        return m


def names(script: str, folder: Path) -> set[str]:
    """Return the names of array elements among the wires of the design after a script."""
    (folder / "top.il").write_text(rtlil.convert(Rows(), name="top"), encoding="utf-8")
    command = f"read_rtlil top.il; {script}; write_rtlil after.il"
    run_fpga_tool(
        [find_tool(YOSYS, task="test"), "-q", "-p", command],
        task="test",
        timeout_s=TIME_OUT_S,
        cwd=folder,
    )
    text = (folder / "after.il").read_text(encoding="utf-8")
    return set(re.findall(r"^ +wire .*(\\rows\[.*)$", text, re.MULTILINE))


def test_abc9_sees_no_name_that_may_be_a_bit_or_an_element(tmp_path: Path) -> None:
    """It calls bit 1 of ``rows`` what the element ``rows[1]`` is called, and may join the two."""
    try:
        find_tool(YOSYS, task="test")
    except FpgaToolError as error:
        pytest.skip(str(error))
    before, _ = SYNTHESIS.split("; abc9")
    steps = before.split("; ")
    assert names("; ".join(steps[:-1]), tmp_path)
    assert not names(before, tmp_path)
