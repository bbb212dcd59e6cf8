"""Table products on an ECP5: the same sums as anywhere, and as few carry cells as promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from celosia.boards.fpga import resources
from celosia.boards.fpga.carry import CarryAndAdder
from celosia.boards.fpga.tools import SYNTHESIS, YOSYS, FpgaToolError, find_tool, run_fpga_tool
from celosia.hw.array.products import AndAdder, TableProduct

TIME_OUT_S = 300
CARRIES_OF_PRODUCT = 36
"""Five for each of four sums of ten bits and for each of two; six for one of twelve."""

EQUAL = """
read_verilog -overwrite +/ecp5/cells_sim.v
read_rtlil carry.il
hierarchy -top carry
proc
flatten
opt_clean
read_rtlil plain.il
flatten plain
miter -equiv -flatten -make_outputs carry plain miter
hierarchy -top miter
proc
flatten
opt
sat -verify -prove trigger 0 miter
"""
"""Yosys: proves that both are the same, with the makers' model of a carry cell."""


def setup_module() -> None:
    try:
        find_tool(YOSYS, task="synthesis")
    except FpgaToolError as error:
        pytest.skip(str(error))


def adders_of_a_product() -> list[dict[str, int]]:
    """Return what the adders of a product are made with."""
    found: list[dict[str, int]] = []

    class Noted(AndAdder):
        def __init__(self, **arguments: int) -> None:
            found.append(arguments)
            super().__init__(**arguments)

    rtlil.convert(TableProduct(Noted), name="top")
    return found


def prove_equal(carry: Any, plain: Any, folder: Path) -> None:
    for name, part in (("carry", carry), ("plain", plain)):
        text = rtlil.convert(part, name=name, emit_src=False)
        (folder / f"{name}.il").write_text(text, encoding="utf-8")
    (folder / "equal.ys").write_text(EQUAL, encoding="utf-8")
    run_fpga_tool(
        [find_tool(YOSYS, task="proof"), "-q", "-s", "equal.ys"],
        task="proof",
        timeout_s=TIME_OUT_S,
        cwd=folder,
    )


@pytest.mark.parametrize("arguments", adders_of_a_product(), ids=str)
def test_carry_cells_add_as_the_plain_adder_does(arguments: dict[str, int], tmp_path: Path) -> None:
    prove_equal(CarryAndAdder(**arguments), AndAdder(**arguments), tmp_path)


def test_an_odd_width_and_all_flips(tmp_path: Path) -> None:
    arguments = {"width_bits": 7, "first_flips": 0b0101101, "second_flips": 0b1010010}
    prove_equal(CarryAndAdder(**arguments), AndAdder(**arguments), tmp_path)


def test_another_table_is_seen(tmp_path: Path) -> None:
    first = CarryAndAdder(width_bits=4, first_flips=0b100)
    with pytest.raises(FpgaToolError, match="proof did fail"):
        prove_equal(first, AndAdder(width_bits=4, second_flips=0b100), tmp_path)


def test_a_product_takes_carry_cells_alone() -> None:
    text = rtlil.convert(TableProduct(CarryAndAdder), name="top", emit_src=False)
    cells = resources.cell_counts(text, SYNTHESIS, timeout_s=TIME_OUT_S)
    assert {kind: count for kind, count in cells.items() if kind != "$scopeinfo"} == {
        "CCU2C": CARRIES_OF_PRODUCT
    }
