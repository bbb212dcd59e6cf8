"""Ends of carry chains: what nobody reads takes no table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.boards.fpga.carry_ends import free_carry_ends, open_carries
from celosia.boards.fpga.tools import (
    NEXTPNR_ECP5,
    SYNTHESIS,
    YOSYS,
    FpgaToolError,
    find_tool,
    run_fpga_tool,
)

TIME_OUT_S = 300
BITS = 12
CELLS_OF_AN_END = 2


def cell(cin: Any, cout: Any, kind: str = "CCU2C") -> dict[str, Any]:
    return {
        "type": kind,
        "port_directions": {"CIN": "input", "COUT": "output"},
        "connections": {"CIN": [cin], "COUT": [cout]},
    }


def test_only_carries_that_nobody_reads_are_opened() -> None:
    module = {
        "ports": {"o": {"direction": "output", "bits": [9]}},
        "cells": {
            "first": cell("0", 2),
            "last": cell(2, 3),
            "shown": cell("0", 9),
            "other": cell("0", 4, "OTHER"),
            "open": cell("0", "x"),
        },
    }
    assert open_carries(module) == 1
    carries = {name: found["connections"]["COUT"] for name, found in module["cells"].items()}
    assert carries == {"first": [2], "last": ["x"], "shown": [9], "other": [4], "open": ["x"]}


class Sum(Component):
    """Without its carry."""

    def __init__(self) -> None:
        super().__init__({"a": In(BITS), "b": In(BITS), "o": Out(BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(BITS)
        m.d.comb += [total.eq(self.a + self.b), self.o.eq(total)]
        return m


def packed(netlist: str, folder: Path) -> int:
    """Return how many tables nextpnr makes of a netlist."""
    router = find_tool(NEXTPNR_ECP5, task="test")
    options = ("--85k", "--package", "CABGA381", "--pack-only", "--lpf-allow-unconstrained")
    run_fpga_tool(
        [router, "--quiet", *options, "--json", netlist, "--write", "packed.json"],
        task="test",
        timeout_s=TIME_OUT_S,
        cwd=folder,
    )
    content = json.loads((folder / "packed.json").read_text(encoding="utf-8"))
    cells = content["modules"]["top"]["cells"].values()
    return sum(found["type"] == "TRELLIS_COMB" for found in cells)


def test_nextpnr_takes_no_cell_for_such_an_end(tmp_path: Path) -> None:
    try:
        yosys = find_tool(YOSYS, task="test")
        find_tool(NEXTPNR_ECP5, task="test")
    except FpgaToolError as error:
        pytest.skip(str(error))
    (tmp_path / "top.il").write_text(rtlil.convert(Sum(), name="top", emit_src=False))
    run_fpga_tool(
        [yosys, "-q", "-p", f"read_rtlil top.il; {SYNTHESIS}; write_json top.json"],
        task="test",
        timeout_s=TIME_OUT_S,
        cwd=tmp_path,
    )
    before = packed("top.json", tmp_path)
    assert free_carry_ends(tmp_path / "top.json") == 1
    assert packed("top.json", tmp_path) == before - CELLS_OF_AN_END
