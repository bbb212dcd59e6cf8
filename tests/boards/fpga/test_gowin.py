"""Registers of a Gowin FPGA's multipliers and memories, and what a netlist takes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from celosia.boards.fpga.flows import FLOWS
from celosia.boards.fpga.gowin import ALONE, absorb, fix_adders, flip_flops_alone, refine
from celosia.boards.fpga.tools import YOSYS, FpgaToolError, find_tool, run_fpga_tool
from celosia.boards.registry import BOARDS

CLOCK, OTHER_CLOCK, ENABLE, OTHER_ENABLE, LOW, HIGH = range(2, 8)
DIRECTIONS = {"Q": "output", "DO": "output", "DOUT": "output", "F": "output", "SUM": "output"}


def cell(kind: str, **connections: list[int]) -> dict[str, Any]:
    return {
        "type": kind,
        "parameters": {},
        "connections": dict(connections),
        "port_directions": {port: DIRECTIONS.get(port, "input") for port in connections},
    }


def flip_flop(source: int, target: int, clock: int = CLOCK, enable: int = ENABLE) -> dict[str, Any]:
    return cell("DFFE", D=[source], Q=[target], CLK=[clock], CE=[enable])


def module(**cells: dict[str, Any]) -> dict[str, Any]:
    ties = {
        "gnd": {**cell("GND", G=[LOW]), "port_directions": {"G": "output"}},
        "vcc": {**cell("VCC", V=[HIGH]), "port_directions": {"V": "output"}},
    }
    return {"ports": {}, "cells": {**ties, **cells}}


def memory(width_bits: int = 36) -> dict[str, Any]:
    """A memory of which two outputs, 100 and 101, are used, and 102 is not."""
    ram = cell("SDPX9B", DO=[100, 101, 102], CLKB=[CLOCK], OCE=[HIGH], RESETB=[LOW])
    ram["parameters"] = {"BIT_WIDTH_1": f"{width_bits:032b}", "READ_MODE": "0"}
    return ram


def multiplier() -> dict[str, Any]:
    """Operand 20, 21 with its sign twice, and a constant below; operand 30; product 40, 41."""
    return cell(
        "MULT9X9", A=[LOW, 20, 21, 21], B=[30, 30], DOUT=[40, 41], CLK=[LOW], CE=[LOW], RESET=[LOW]
    )


def test_a_memory_takes_the_register_behind_it() -> None:
    netlist = module(ram=memory(), a=flip_flop(100, 200), b=flip_flop(101, 201))
    assert absorb(netlist) == {"SDPX9B": 2}
    assert "a" not in netlist["cells"]
    assert "b" not in netlist["cells"]
    ram = netlist["cells"]["ram"]
    assert ram["connections"]["DO"] == [200, 201, 102]
    assert ram["connections"]["OCE"] == [ENABLE]
    assert ram["parameters"]["READ_MODE"] == "1"


@pytest.mark.parametrize(
    "cells",
    [
        {"b": flip_flop(101, 201, enable=OTHER_ENABLE)},
        {"b": flip_flop(101, 201, clock=OTHER_CLOCK)},
        {"b": cell("LUT1", I0=[101], F=[201])},
        {"b": flip_flop(101, 201), "also": cell("LUT1", I0=[101], F=[300])},
        {"b": cell("DFFRE", D=[101], Q=[201], CLK=[CLOCK], CE=[ENABLE], RESET=[9])},
        {"b": flip_flop(9, 201, enable=101)},
        {"b": flip_flop(101, 201), "ram": memory(width_bits=18)},
    ],
    ids=["enable", "clock", "table", "two users", "reset", "not as data", "narrow"],
)
def test_a_memory_keeps_its_hands_off(cells: dict[str, Any]) -> None:
    netlist = module(**{"ram": memory(), "a": flip_flop(100, 200), **cells})
    before = json.dumps(netlist)
    assert not absorb(netlist).total()
    assert json.dumps(netlist) == before


def test_a_memory_of_another_clock_than_its_registers() -> None:
    netlist = module(
        ram=memory(),
        a=flip_flop(100, 200, clock=OTHER_CLOCK),
        b=flip_flop(101, 201, clock=OTHER_CLOCK),
    )
    assert not absorb(netlist).total()


def test_a_memory_that_is_reset_has_no_other_register() -> None:
    ram = memory()
    ram["connections"]["RESETB"] = [90]
    assert not absorb(module(ram=ram, a=flip_flop(100, 200), b=flip_flop(101, 201))).total()


def test_a_multiplier_takes_what_shares_its_enable() -> None:
    netlist = module(
        mult=multiplier(),
        a0=flip_flop(10, 20),
        a1=flip_flop(11, 21),
        b=flip_flop(12, 30, enable=OTHER_ENABLE),
        p0=flip_flop(40, 50),
        p1=flip_flop(41, 51),
    )
    assert absorb(netlist) == {"MULT9X9": 4}
    mult = netlist["cells"]["mult"]
    assert mult["connections"]["A"] == [LOW, 10, 11, 11]
    assert mult["connections"]["B"] == [30, 30]
    assert mult["connections"]["DOUT"] == [50, 51]
    assert mult["connections"]["CLK"] == [CLOCK]
    assert mult["connections"]["CE"] == [ENABLE]
    assert mult["parameters"] == {"OUT_REG": "1", "AREG": "1"}
    assert set(netlist["cells"]) == {"gnd", "vcc", "mult", "b"}


@pytest.mark.parametrize("tables", [0, 1, 2])
def test_a_multiplier_takes_the_registers_that_free_most_places(tables: int) -> None:
    """Of two enables; an operand's bit of which a table is before is worth nothing."""
    width = 3
    a, b = range(20, 20 + width), range(30, 30 + 2)
    mult = multiplier()
    mult["connections"].update(A=[*a], B=[*b])
    before = {f"t{i}": cell("LUT2", I0=[80], I1=[81], F=[10 + i]) for i in range(tables)}
    netlist = module(
        mult=mult,
        **before,
        **{f"a{i}": flip_flop(10 + i, bit) for i, bit in enumerate(a)},
        **{f"b{i}": flip_flop(15 + i, bit, enable=OTHER_ENABLE) for i, bit in enumerate(b)},
        reader=cell("LUT2", I0=[40], I1=[41], F=[90]),
    )
    operand_wins = width - tables >= 2  # the longer one, if both free as many
    alone = flip_flops_alone(netlist)
    assert absorb(netlist) == {"MULT9X9": width if operand_wins else 2}
    assert flip_flops_alone(netlist) == alone - max(width - tables, 2)
    assert mult["connections"]["CE"] == [ENABLE if operand_wins else OTHER_ENABLE]
    assert mult["parameters"] == {"AREG" if operand_wins else "BREG": "1"}


def test_an_operand_that_others_see_stays() -> None:
    netlist = module(
        mult=multiplier(),
        a0=flip_flop(10, 20),
        a1=flip_flop(11, 21),
        seen=cell("LUT1", I0=[21], F=[60]),
    )
    assert not absorb(netlist).total()


def test_flip_flops_share_the_place_of_the_table_before_them() -> None:
    netlist = module(
        table=cell("LUT2", I0=[10], I1=[11], F=[12]),
        behind=flip_flop(12, 13),
        again=flip_flop(12, 14),
        adder=cell("ALU", I0=[10], I1=[11], SUM=[15]),
        sum=flip_flop(15, 16),
        shift=flip_flop(16, 17),
        constant=flip_flop(HIGH, 18),
    )
    assert flip_flops_alone(netlist) == 3


def test_a_file_is_changed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "top.json"
    netlist = module(ram=memory(), a=flip_flop(100, 200), b=flip_flop(101, 201), c=flip_flop(9, 8))
    path.write_text(json.dumps({"modules": {"top": netlist}}), encoding="utf-8")
    assert refine(path) == {"GND": 1, "VCC": 1, "SDPX9B": 1, "DFFE": 1, ALONE: 1}
    cells = json.loads(path.read_text(encoding="utf-8"))["modules"]["top"]["cells"]
    assert cells["ram"]["connections"]["DO"] == [200, 201, 102]


DESIGN = """
module top(input clk, input en, input signed [3:0] a, b, input [1:0] w, r, input we,
           input [31:0] d, output reg signed [7:0] p, output reg [31:0] q, output reg [4:0] n);
  reg signed [3:0] x, y;
  (* ram_style = "block", no_rw_check *) reg [31:0] m [0:3];
  reg [31:0] o;
  initial n = 0;
  always @(posedge clk) begin
    if (we && w != r) m[w] <= d;
    o <= m[r];
    if (en) begin x <= a; y <= b; p <= x * y; q <= o; n <= n + 1; end
  end
endmodule
"""

MODELS = """
module MULT9X9 (
    input signed [8:0] A, B, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET, input [8:0] SIA, SIB,
    output signed [17:0] DOUT);
  parameter AREG = 0, BREG = 0, OUT_REG = 0;
  reg signed [8:0] a, b;
  reg signed [17:0] o;
  wire signed [8:0] x = AREG ? a : A, y = BREG ? b : B;
  wire signed [17:0] product = x * y;
  always @(posedge CLK) if (CE) begin a <= A; b <= B; o <= product; end
  assign DOUT = OUT_REG ? o : product;
endmodule
module SDPX9B (
    input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB, input [13:0] ADA, ADB, input [35:0] DI,
    input [2:0] BLKSELA, BLKSELB, output [35:0] DO);
  parameter READ_MODE = 0, BIT_WIDTH_0 = 36, BIT_WIDTH_1 = 36, BLK_SEL_0 = 0, BLK_SEL_1 = 0;
  parameter RESET_MODE = "SYNC";
  reg [35:0] m [0:3];
  reg [35:0] first, second;
  always @(posedge CLKA) if (CEA) m[ADA[6:5]] <= DI;
  always @(posedge CLKB) if (CEB) first <= m[ADB[6:5]];
  always @(posedge CLKB) if (OCE) second <= first;
  assign DO = READ_MODE ? second : first;
endmodule
"""
"""Of Gowin's cells as UG285 and UG287 describe them, with four words: Yosys has black boxes."""


def _yosys() -> str | None:
    try:
        return find_tool(YOSYS, task="test")
    except FpgaToolError:
        return None


@pytest.mark.skipif(_yosys() is None, reason="Yosys is missing")
@pytest.mark.parametrize("refined", [True, False], ids=["refined", "as it was"])
def test_registers_inside_do_what_those_outside_did(tmp_path: Path, refined: bool) -> None:
    """The netlist of a design equals the design, for all inputs of eight cycles."""
    tool = _yosys()
    assert tool is not None
    script = FLOWS["gowin"].synthesis(BOARDS["tang-primer-20k"])
    (tmp_path / "design.v").write_text(DESIGN, encoding="utf-8")
    contents = ", ".join(f"INIT_RAM_{line:02X} = 0" for line in range(64))
    models = MODELS.replace("READ_MODE = 0", f"READ_MODE = 0, {contents}", 1)
    (tmp_path / "models.v").write_text(models, encoding="utf-8")

    def run(*commands: str) -> None:
        arguments = [tool, "-q", "-p", "; ".join(commands)]
        run_fpga_tool(arguments, task="test", timeout_s=240, cwd=tmp_path)

    run("read_verilog design.v", script, "write_json top.json")
    if refined:
        cells = refine(tmp_path / "top.json")
        # All but the counter's are inside; its adder, as narrow as it is, is made of tables.
        assert sum(number for kind, number in cells.items() if kind.startswith("DFF")) == 5
        assert cells["ALU"] == 0
        assert cells["SDPX9B"] == cells["MULT9X9"] == 1
    run(
        *("read_verilog design.v", "hierarchy -top top", "proc", "memory", "rename top gold"),
        *("design -stash gold", "read_json top.json", "delete */t:$scopeinfo"),
        *("delete =A:blackbox =A:whitebox", "read_verilog +/gowin/cells_sim.v models.v"),
        *("hierarchy -top top", "proc", "flatten", "memory", "opt -full", "rename top gate"),
        *("design -stash gate", "design -copy-from gold gold", "design -copy-from gate gate"),
        *("miter -equiv -flatten -make_assert gold gate miter", "hierarchy -top miter", "opt"),
        "sat -verify -prove-asserts -set-init-zero -tempinduct-baseonly -maxsteps 8 miter",
    )


def test_multipliers_have_one_enable_between_them() -> None:
    """That with which most flip-flops are saved; also those that have no register get it."""
    cells: dict[str, dict[str, Any]] = {}
    for place, (enable, width) in enumerate(((50, 1), (51, 2), (52, 1), (50, 2), (0, 1))):
        operand = [100 + 10 * place + bit for bit in range(width)]
        cells[f"m{place}"] = cell("MULT9X9", A=operand, B=[LOW], DOUT=[], CLK=[LOW], CE=[LOW])
        if enable:
            cells.update({f"r{bit}": flip_flop(1000 + bit, bit, enable=enable) for bit in operand})
    netlist = module(**cells)
    assert absorb(netlist) == {"MULT9X9": 3}
    multipliers = [netlist["cells"][f"m{place}"] for place in range(5)]
    assert {(*each["connections"]["CLK"], *each["connections"]["CE"]) for each in multipliers} == {
        (CLOCK, 50)
    }
    assert [each["parameters"].get("AREG") for each in multipliers] == ["1", None, None, "1", None]


def test_a_register_between_two_multipliers_goes_into_one() -> None:
    netlist = module(
        first=cell("MULT9X9", A=[LOW], B=[LOW], DOUT=[40], CLK=[LOW], CE=[LOW]),
        between=flip_flop(40, 20),
        second=cell("MULT9X9", A=[20], B=[LOW], DOUT=[50], CLK=[LOW], CE=[LOW]),
    )
    assert absorb(netlist) == {"MULT9X9": 1}
    assert "between" not in netlist["cells"]
    assert netlist["cells"]["first"]["connections"]["DOUT"] == [20]
    assert netlist["cells"]["second"]["connections"]["A"] == [20]


def adder(select: int, other: int = 11) -> dict[str, Any]:
    bit = cell("ALU", I0=[10], I1=[other], I3=[select], CIN=[12], SUM=[13], COUT=[14])
    bit["parameters"] = {"ALU_MODE": f"{2:032b}", "ALUTYPE": "0"}
    return bit


def bit_of_adder(table: str, i0: int, i1: int, i3: int, carry: int) -> tuple[int, int]:
    """Sum and carry of an ALU, whose input I2 is always high (nextpnr's drawing of it)."""
    places = table[::-1]
    difference = int(places[8 * i3 + 4 + 2 * i1 + i0])
    return difference ^ carry, carry if difference else int(places[2 * i1 + i0])


@pytest.mark.parametrize("select", [HIGH, LOW], ids=["add", "subtract"])
def test_an_adder_that_always_adds_needs_nobody_to_say_so(select: int) -> None:
    netlist = module(bit=adder(select))
    assert fix_adders(netlist) == 1
    bit = netlist["cells"]["bit"]
    assert "I3" not in bit["connections"]
    assert "I3" not in bit["port_directions"]
    # Whatever the input that is not connected may be.
    for i3, i0, i1, carry in itertools.product((0, 1), repeat=4):
        total = i0 + (i1 if select == HIGH else 1 - i1) + carry
        found = bit_of_adder(bit["parameters"]["RAW_ALU_LUT"], i0, i1, i3, carry)
        assert found == (total & 1, total >> 1)


@pytest.mark.parametrize(
    "bit",
    [adder(20), adder(HIGH, other=LOW), adder(LOW, other=HIGH), cell("LUT1", I0=[10], F=[13])],
    ids=["says so as it goes", "a constant 0", "a constant 1", "a table"],
)
def test_other_adders_are_as_they_were(bit: dict[str, Any]) -> None:
    netlist = module(bit=bit)
    before = json.dumps(netlist)
    assert fix_adders(netlist) == 0
    assert json.dumps(netlist) == before
