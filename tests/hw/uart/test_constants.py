"""Constants in tables of an FPGA: every bit is found, and only contents differ."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("amaranth")
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out
from celosia.boards.fpga.tools import YOSYS, FpgaToolError, find_tool, run_fpga_tool
from celosia.boards.registry import BOARDS
from celosia.hw.uart.constants import NAMED_BY, TABLES, look_up

BITS = 48
PLACE_BITS = 6
TIME_OUT_S = 120.0

MODELS = {
    "LFE5U": "+/lattice/cells_sim_ecp5.v",
    "iCE40": "+/ice40/cells_sim.v",
    "GW2A": "+/gowin/cells_sim.v",
}
"""Yosys's model of each FPGA's table."""


class Constants(Component):
    """Constants, and nothing else."""

    def __init__(self, bits: list[int]) -> None:
        self._bits = bits
        super().__init__({"place": In(PLACE_BITS), "bit": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.bit.eq(look_up(m, self._bits, self.place, platform=platform))
        return m


def text_of(bits: list[int], fpga: str) -> str:
    """Return the constants' RTLIL for an FPGA."""
    platform = SimpleNamespace(device=fpga)
    text: str = rtlil.convert(Constants(bits), platform=platform, name="top", emit_src=False)
    return text


def random_bits(seed: int) -> list[int]:
    """Return as many bits as the tests look up."""
    return [int(bit) for bit in np.random.default_rng(seed).integers(0, 2, BITS)]


@pytest.mark.parametrize("fpga", TABLES)
def test_every_bit_is_found(fpga: str, tmp_path: Path) -> None:
    try:
        tool = find_tool(YOSYS, task="evaluation")
    except FpgaToolError as error:
        pytest.skip(str(error))
    bits = random_bits(1)
    (tmp_path / "top.il").write_text(text_of(bits, fpga), encoding="utf-8")
    commands = [f"read_verilog -defer -nooverwrite {MODELS[fpga]}", "read_rtlil top.il"]
    commands += ["hierarchy -top top", "proc", "flatten", "opt", "select top"]
    commands += [f"eval -set place {place} -show bit" for place in range(BITS)]
    arguments = [tool, "-p", "; ".join(commands)]
    log = run_fpga_tool(arguments, task="evaluation", timeout_s=TIME_OUT_S, cwd=tmp_path)
    assert [int(bit) for bit in re.findall(r"Eval result: \\bit = 1'([01])\.", log)] == bits


@pytest.mark.parametrize("fpga", TABLES)
def test_only_contents_differ(fpga: str) -> None:
    first, second = (
        re.sub(r"(parameter \\(?:LUT_)?INIT) 16'[01]+", r"\1", text_of(random_bits(seed), fpga))
        for seed in (1, 2)
    )
    assert first == second
    assert first.count("INIT\n") == BITS // 16


def test_every_board_that_is_placed_and_routed_has_tables() -> None:
    """So that another commit is not another clock there; the Arty is not placed."""
    without = []
    for name, board in BOARDS.items():
        platform = board.make_platform()
        # Its names only: a whole platform wants its tools and pins.
        names = SimpleNamespace(**{key: getattr(platform, key, "") for key in NAMED_BY})
        if "LUT4" not in rtlil.convert(Constants(random_bits(1)), platform=names, name="top"):
            without.append(name)
    assert without == ["arty-a7-100t"]
