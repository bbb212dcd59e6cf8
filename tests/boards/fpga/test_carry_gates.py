"""Gates before carry chains: they go into the chains' tables, and all sums stay the same."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.boards.fpga.carry_gates import refine, take_in_gates
from celosia.boards.fpga.tools import SYNTHESIS, YOSYS, FpgaToolError, find_tool, run_fpga_tool

TIME_OUT_S = 300
BITS = 6
SUM = 0x96AA
"""What Yosys's adders have: ``a ^ b ^ c`` where d is 1, a where c and d are 0."""
XOR, MUX, MUX_OF_INVERTED, ALL = 0x6666, 0xCACA, 0xC5C5, 0x8000


def table(init: int, inputs: list[Any], output: int) -> dict[str, Any]:
    return {
        "type": "LUT4",
        "parameters": {"INIT": f"{init:016b}"},
        "port_directions": dict.fromkeys("ABCD", "input") | {"Z": "output"},
        "connections": dict(zip("ABCD", ([bit] for bit in inputs), strict=True)) | {"Z": [output]},
    }


def chain(a: int, b: int, c: str = "0") -> dict[str, Any]:
    pins = [pin + half for half in "01" for pin in "ABCD"]
    bits = [a, b, c, "1", "0", "0", "0", "1"]
    return {
        "type": "CCU2C",
        "parameters": {"INIT0": f"{SUM:016b}", "INIT1": f"{SUM:016b}"},
        "port_directions": dict.fromkeys(pins, "input"),
        "connections": dict(zip(pins, ([bit] for bit in bits), strict=True)),
    }


def bit_of(cell: dict[str, Any], wires: dict[Any, int]) -> tuple[int, int | None]:
    """Return whether a chain's first bit lets the carry through, and the carry where it does not.

    As ``CCU2C`` of Yosys's ``cells_sim.v`` has it.
    """
    init = int(cell["parameters"]["INIT0"], 2)
    values = [
        wires.get(bit, int(bit == "1")) for bit in (cell["connections"][p + "0"][0] for p in "ABCD")
    ]
    through = init >> sum(value << place for place, value in enumerate(values)) & 1
    carry = init >> sum(value << place for place, value in enumerate(values[:2])) & 1
    return through, None if through else carry


@pytest.mark.parametrize("inverts", ["0", "1"], ids=["adds", "subtracts"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("init", "inputs"),
    [(XOR, [2, 3, "0", "0"]), (MUX, [2, 3, 4, "1"]), (MUX_OF_INVERTED, [2, 3, 4, "1"])],
    ids=["xor", "mux", "mux of inverted"],
)
def test_a_bit_with_a_gate_in_it_is_the_one_behind_the_gate(
    init: int, inputs: list[Any], place: int, inverts: str
) -> None:
    operands = [9, 5] if place == 0 else [5, 9]
    cells = {"gate": table(init, inputs, 9), "sum": chain(*operands, inverts)}
    before = bit_of_all(cells)
    taken = take_in_gates({"ports": {}, "cells": cells})
    assert taken == 1 - ("gate" in cells)
    assert bit_of_all(cells) == before
    if init == XOR:
        assert taken


def bit_of_all(cells: dict[str, Any]) -> list[tuple[int, int | None]]:
    found = []
    for values in product((0, 1), repeat=4):
        wires: dict[Any, int] = dict(zip((2, 3, 4, 5), values, strict=True))
        if "gate" in cells:
            gate = cells["gate"]
            bits = [gate["connections"][pin][0] for pin in "ABCD"]
            place = sum(wires.get(bit, int(bit == "1")) << i for i, bit in enumerate(bits))
            wires[9] = int(gate["parameters"]["INIT"], 2) >> place & 1
        found.append(bit_of(cells["sum"], wires))
    return found


@pytest.mark.parametrize(
    ("reader", "bits"),
    [({"o": {"direction": "output", "bits": [9]}}, [2, 3, "1", "1"]), ({}, [2, 3, 4, 6])],
    ids=["read by others", "too many inputs"],
)
def test_what_the_chain_cannot_have_stays(reader: dict[str, Any], bits: list[Any]) -> None:
    cells = {"gate": table(ALL, bits, 9), "sum": chain(5, 9)}
    assert take_in_gates({"ports": reader, "cells": cells}) == 0
    assert set(cells) == {"gate", "sum"}


class Sums(Component):
    """Adders with something before them."""

    def __init__(self) -> None:
        names = "abcd"
        results = {f"o{index}": Out(BITS + 1) for index in range(6)}
        super().__init__({**{name: In(BITS) for name in names}, "s": In(1), "t": In(1), **results})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b, c, d, s, t = self.a, self.b, self.c, self.d, self.s, self.t
        spread = Signal(BITS)
        m.d.comb += [
            spread.eq(s.replicate(BITS)),
            self.o0.eq(a + Mux(s, b, c)),
            self.o1.eq(Mux(s, a, d) - b),
            self.o2.eq(a - Mux(t, b, ~c)),
            self.o3.eq((a ^ spread) + s),
            self.o4.eq(Mux(s, a, b) + Mux(t, c, d)),
            self.o5.eq((a & b) + (c & ~d)),
        ]
        return m


def test_sums_are_the_same_with_fewer_tables(tmp_path: Path) -> None:
    try:
        yosys = find_tool(YOSYS, task="test")
    except FpgaToolError as error:
        pytest.skip(str(error))

    def run(commands: str) -> None:
        tool = [yosys, "-q", "-p", commands]
        run_fpga_tool(tool, task="test", timeout_s=TIME_OUT_S, cwd=tmp_path)

    (tmp_path / "top.il").write_text(rtlil.convert(Sums(), name="top", emit_src=False))
    run(f"read_rtlil top.il; {SYNTHESIS}; write_json before.json")
    before = json.loads((tmp_path / "before.json").read_text())
    # Without the ports of cells, whose models are read below.
    before["modules"] = {"top": before["modules"]["top"]}
    (tmp_path / "top.json").write_text(json.dumps(before))
    cells = refine(tmp_path / "top.json")
    kinds = Counter(cell["type"] for cell in before["modules"]["top"]["cells"].values())
    assert cells["CCU2C"] == kinds["CCU2C"]
    assert cells["LUT4"] <= kinds["LUT4"] - 4 * BITS
    run(
        "read_rtlil top.il; hierarchy -top top; proc; flatten; rename top gold; design -stash gold;"
        " read_json top.json; delete */t:$scopeinfo;"
        " read_verilog -DNO_INCLUDES +/ecp5/cells_sim.v; hierarchy -top top; proc; flatten;"
        " opt -full; rename top gate; design -stash gate;"
        " design -copy-from gold gold; design -copy-from gate gate;"
        " miter -equiv -flatten -make_assert gold gate miter; hierarchy -top miter; opt;"
        " sat -verify -prove-asserts miter"
    )
