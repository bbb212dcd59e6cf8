"""What Yosys's netlist for a Gowin FPGA takes, and registers in it that it leaves unused.

A flip-flop that takes what a multiplier or a memory gives costs a whole place in a slice, as the
table before it cannot be used for anything else. Both kinds of cells have such registers inside.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ALONE", "absorb", "fix_adders", "flip_flops_alone", "refine"]

Cell = dict[str, Any]
Bit = int | str

FLIP_FLOPS = {"DFF": False, "DFFE": True}
"""Those without reset, by whether they have a clock enable. A reset would have to be the same for
all registers of a cell, and there is none on the way of data."""

MULTIPLIER_REGISTERS = {"A": "AREG", "B": "BREG", "DOUT": "OUT_REG"}
WIDE_MEMORY_BITS = (32, 36)
"""Memories whose output registers can be used; those of others cannot on a GW2A-18C (nextpnr)."""

LOW, HIGH = "0", "1"

ALONE = "flip-flops alone"

ADD_OR_SUBTRACT = 2
"""Mode of all bits of adders that Yosys makes; their input I3 says which of the two it is."""
ALU_INPUTS = ("I0", "I1", "I3")
FIXED_MODE = 1
"""Any other, so that nextpnr takes the table as it is."""
TABLES = {HIGH: "0110000001101010", LOW: "1001000010011010"}
"""Of a bit that adds and of one that subtracts, by the constant at I3. Bits 15 to 12 and 7 to 4
are the sum of I0 and I1 without carry (I3 high and low), bits 3 to 0 the carry where they are the
same (nextpnr, himbaechel/uarch/gowin/pack_luts.cc)."""


@dataclass(frozen=True)
class _Control:
    """Clock and clock enable of a register; the enable is :data:`HIGH` if there is none."""

    clock: Bit
    enable: Bit


class _Netlist:
    """Who drives and who uses each bit of a flat netlist of Yosys's ``write_json``."""

    def __init__(self, module: dict[str, Any]) -> None:
        self.cells: dict[str, Cell] = module["cells"]
        self.users: defaultdict[Bit, set[tuple[str, str]]] = defaultdict(set)
        self.drivers: dict[Bit, str] = {}
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                for bit in bits:
                    if cell["port_directions"][port] == "output":
                        self.drivers[bit] = name
                    else:
                        self.users[bit].add((name, port))
        for port in module.get("ports", {}).values():
            for bit in port["bits"]:
                # A port is a user that no register can be taken from.
                self.users[bit].add(("", ""))

    def constant(self, bit: Bit) -> str | None:
        """Return the value of a bit that is tied, None if it is not."""
        if isinstance(bit, str):
            return bit
        kind = self.cells[self.drivers[bit]]["type"] if bit in self.drivers else ""
        return {"GND": LOW, "VCC": HIGH}.get(kind)

    def control(self, name: str) -> _Control | None:
        """Return what a flip-flop without reset is controlled by; None of any other cell."""
        cell = self.cells.get(name)
        kind = cell["type"] if cell is not None else ""
        if cell is None or kind not in FLIP_FLOPS:
            return None
        enable = cell["connections"]["CE"][0] if FLIP_FLOPS[kind] else HIGH
        return _Control(cell["connections"]["CLK"][0], enable)

    def behind(self, bits: Iterable[Bit]) -> tuple[dict[Bit, str], _Control] | None:
        """Return the flip-flops that take an output, if nothing else does, and their one control.

        None also if nobody uses it.
        """
        found: dict[Bit, str] = {}
        controls: set[_Control | None] = set()
        for bit in bits:
            users = self.users[bit]
            if not users:
                continue
            if len(users) > 1:
                return None
            ((name, port),) = users
            if port != "D":
                return None
            found[bit] = name
            controls.add(self.control(name))
        if len(controls) != 1:
            return None
        (control,) = controls
        return None if control is None else (found, control)

    def before(
        self, bits: Iterable[Bit], user: tuple[str, str]
    ) -> tuple[dict[Bit, str], _Control] | None:
        """Return the flip-flops that give an input, if they give nothing else, and their control.

        Constants are left as they are. None also if there is no flip-flop at all.
        """
        found: dict[Bit, str] = {}
        controls: set[_Control | None] = set()
        for bit in bits:
            if self.constant(bit) is not None:
                continue
            name = self.drivers.get(bit, "")
            if self.users[bit] != {user}:
                return None
            found[bit] = name
            controls.add(self.control(name))
        if len(controls) != 1:
            return None
        (control,) = controls
        return None if control is None else (found, control)

    def table_before(self, name: str) -> str | None:
        """Return the table, or bit of an adder, whose output a flip-flop takes."""
        bit = self.cells[name]["connections"]["D"][0]
        source = self.drivers.get(bit)
        if source is None:
            return None
        cell = self.cells[source]
        kind = cell["type"]
        if kind.startswith("LUT") or (kind == "ALU" and bit in cell["connections"]["SUM"]):
            return source
        return None

    def is_alone(self, name: str) -> bool:
        """Return whether a flip-flop cannot be in the place of the table before it.

        There is none, or another flip-flop takes it, too.
        """
        if self.table_before(name) is None:
            return True
        (bit,) = self.cells[name]["connections"]["D"]
        return sum(port == "D" for _, port in self.users[bit]) > 1

    def take_outputs(self, name: str, port: str, registers: Mapping[Bit, str]) -> None:
        """Let an output drive what the flip-flops behind it drove."""
        bits = self.cells[name]["connections"][port]
        for place, bit in enumerate(bits):
            if bit in registers:
                register = self.cells.pop(registers[bit])
                (bits[place],) = register["connections"]["Q"]
                self.drivers[bits[place]] = name
                del self.drivers[bit]

    def take_inputs(self, name: str, port: str, registers: Mapping[Bit, str]) -> None:
        """Let an input take what the flip-flops before it took."""
        bits = self.cells[name]["connections"][port]
        taken = {}
        for bit, register in registers.items():
            (taken[bit],) = self.cells.pop(register)["connections"]["D"]
            self.users[taken[bit]].discard((register, "D"))
            self.users[taken[bit]].add((name, port))
            del self.drivers[bit]
        bits[:] = [taken.get(bit, bit) for bit in bits]


def _absorb_memory(netlist: _Netlist, name: str) -> int:
    """Use a memory's output register; return how many flip-flops that saves."""
    cell = netlist.cells[name]
    parameters = cell["parameters"]
    if int(parameters["BIT_WIDTH_1"], 2) not in WIDE_MEMORY_BITS or int(parameters["READ_MODE"], 2):
        return 0
    connections = cell["connections"]
    # A reset is that of the register, too, which has another word than the memory's output.
    if netlist.constant(connections["RESETB"][0]) != LOW:
        return 0
    found = netlist.behind(connections["DO"])
    if found is None or found[1].clock != connections["CLKB"][0]:
        return 0
    registers, control = found
    netlist.take_outputs(name, "DO", registers)
    connections["OCE"] = [control.enable]
    parameters["READ_MODE"] = HIGH
    return len(registers)


def _registers_near(netlist: _Netlist, name: str) -> dict[_Control, dict[str, dict[Bit, str]]]:
    """Return the registers at a multiplier's ports, by what they are controlled by."""
    found: defaultdict[_Control, dict[str, dict[Bit, str]]] = defaultdict(dict)
    for port in MULTIPLIER_REGISTERS:
        bits = netlist.cells[name]["connections"][port]
        near = netlist.behind(bits) if port == "DOUT" else netlist.before(bits, (name, port))
        if near is not None:
            registers, control = near
            found[control][port] = registers
    return found


def _absorb_multipliers(netlist: _Netlist) -> Counter[str]:
    """Use multipliers' registers; return how many flip-flops that saves, by type.

    All multipliers get one clock and one enable, those with which most places are freed. Two of
    nine bits are a pair that has one of each. nextpnr 0.11 places them singly: with several
    enables it soon finds only places whose other half has the wrong one.
    """
    near = {
        name: _registers_near(netlist, name)
        for name, cell in netlist.cells.items()
        if cell["type"] in ("MULT9X9", "MULT18X18")
    }
    worth: defaultdict[_Control, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for found in near.values():
        for control, ports in found.items():
            names = {each for port in ports.values() for each in port.values()}
            alone, number = worth[control]
            alone += sum(netlist.is_alone(each) for each in names)
            worth[control] = (alone, number + len(names))
    saved: Counter[str] = Counter()
    if not worth:
        return saved
    chosen = max(worth, key=lambda control: worth[control])
    for name in near:
        cell = netlist.cells[name]
        # Looked for again: a register between two multipliers may have gone into the other one.
        for port, registers in _registers_near(netlist, name).get(chosen, {}).items():
            saved[cell["type"]] += len(set(registers.values()))
            if port == "DOUT":
                netlist.take_outputs(name, port, registers)
            else:
                netlist.take_inputs(name, port, registers)
            cell["parameters"][MULTIPLIER_REGISTERS[port]] = HIGH
        cell["connections"]["CLK"], cell["connections"]["CE"] = [chosen.clock], [chosen.enable]
    return saved


def absorb(module: dict[str, Any]) -> Counter[str]:
    """Move flip-flops into the multipliers and block memories that they belong to.

    Parameters
    ----------
    module : dict
        A flat module of Yosys's ``write_json``; it is changed.

    Returns
    -------
    Counter of str
        Flip-flops saved, by type of the cell that they went into.

    Notes
    -----
    Registers inside are zero when the FPGA has been configured, as flip-flops without reset are.
    A memory's has an enable of its own (Gowin UG285, "SDPB", pipeline mode), a multiplier's one
    for all three (UG287, "MULT9X9").
    """
    netlist = _Netlist(module)
    saved = _absorb_multipliers(netlist)
    for name, cell in list(netlist.cells.items()):
        if cell["type"] in ("SDPB", "SDPX9B"):
            saved[cell["type"]] += _absorb_memory(netlist, name)
    return saved


def fix_adders(module: dict[str, Any]) -> int:
    """Let bits of adders that always add, or always subtract, do without the input that says so.

    nextpnr brings a constant to each such input, by wires that the signals beside it need.

    Parameters
    ----------
    module : dict
        A flat module of Yosys's ``write_json``; it is changed.

    Returns
    -------
    int
        Inputs freed. Bits with another constant input are left: nextpnr frees theirs itself.
    """
    netlist = _Netlist(module)
    freed = 0
    for cell in netlist.cells.values():
        if cell["type"] != "ALU" or int(cell["parameters"]["ALU_MODE"], 2) != ADD_OR_SUBTRACT:
            continue
        constants = {port: netlist.constant(cell["connections"][port][0]) for port in ALU_INPUTS}
        select = constants.pop("I3")
        if select in TABLES and not any(constants.values()):
            cell["parameters"].update(
                ALU_MODE=format(FIXED_MODE, "032b"), RAW_ALU_LUT=TABLES[select]
            )
            del cell["connections"]["I3"], cell["port_directions"]["I3"]
            freed += 1
    return freed


def flip_flops_alone(module: dict[str, Any]) -> int:
    """Return how many flip-flops have no table before them whose place they could share.

    A flip-flop of a slice takes what the table (or bit of an adder) in the same place gives. One
    that takes anything else, or a table that another flip-flop also takes, needs a whole place.

    Parameters
    ----------
    module : dict
        A flat module of Yosys's ``write_json``.
    """
    netlist = _Netlist(module)
    taken: set[str] = set()
    alone = 0
    for name, cell in netlist.cells.items():
        if not cell["type"].startswith("DFF"):
            continue
        source = netlist.table_before(name)
        if source is not None and source not in taken:
            taken.add(source)
        else:
            alone += 1
    return alone


def refine(netlist: Path) -> Counter[str]:
    """Do :func:`absorb` and :func:`fix_adders` in a file of Yosys's ``write_json``.

    Parameters
    ----------
    netlist : Path
        With the top module ``top``; it is changed.

    Returns
    -------
    Counter of str
        Cells by type, and under :data:`ALONE` those of :func:`flip_flops_alone`.
    """
    content: dict[str, Any] = json.loads(netlist.read_text(encoding="utf-8"))
    module = content["modules"]["top"]
    absorb(module)
    fix_adders(module)
    netlist.write_text(json.dumps(content), encoding="utf-8")
    cells = Counter(str(cell["type"]) for cell in module["cells"].values())
    cells[ALONE] = flip_flops_alone(module)
    return cells
