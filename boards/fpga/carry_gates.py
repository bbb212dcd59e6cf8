"""Gates before the carry chains of an ECP5: in the chain's own tables, not in tables before it.

A CCU2C has a table of four inputs, A to D, before each bit of its chain, and Yosys's adders use two
of them. What chooses, masks or inverts an operand is a table of its own in front of the chain, and
a wire more on the way through it. Here it is taken into the chain's table wherever that can say
the same of at most four wires.

A bit of a chain adds by two functions of its inputs (Lattice FPGA-TN-02205; ``CCU2C`` in Yosys's
``cells_sim.v``):

- the table, ``INIT``: whether the carry goes through, and what it is added to;
- the table's first four entries, where C and D are 0, of A and B: the carry that comes of the bit
  itself, where none goes through.

So the inputs have to be in such an order that these entries are right, too.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

__all__ = ["refine", "take_in_gates"]

CARRY, TABLE = "CCU2C", "LUT4"
PINS = "ABCD"
TIED = ("1", "0")
"""What an input without a wire is tied to: an input that is left alone is high."""

Bit = int | str
Function = tuple[int, ...]
"""Values, by the number that the inputs make, the first one its lowest bit."""


def _read(table: int, inputs: Sequence[Bit], values: Mapping[Bit, int]) -> int:
    """Return a table's entry where the wires have these values."""
    place = sum(values.get(bit, int(bit == "1")) << index for index, bit in enumerate(inputs))
    return table >> place & 1


@cache
def _arrange(count: int, passes: Function, carries: Function) -> tuple[tuple[Bit, ...], int] | None:
    """Return pins A to D, each a wire's number or what it is tied to, and the table; or None.

    Parameters
    ----------
    count : int
        How many wires there are.
    passes, carries : Function
        Of them: whether the carry goes through; the carry where it does not.
    """
    for tied in TIED:
        for pins in dict.fromkeys(permutations([*range(count), *(tied,) * (len(PINS) - count)])):
            table = _table(pins, count, passes, carries)
            if table is not None:
                return pins, table
    return None


def _table(pins: Sequence[Bit], count: int, passes: Function, carries: Function) -> int | None:
    """Return the table for wires on these pins; None if its first four entries would be wrong."""
    entries: dict[int, int] = {}
    generated: dict[int, int] = {}
    for number, (through, carry) in enumerate(zip(passes, carries, strict=True)):
        place = 0
        for index, pin in enumerate(pins):
            value = number >> pin & 1 if isinstance(pin, int) else int(pin)
            place |= value << index
        entries[place] = through
        if not through and generated.setdefault(place % 4, carry) != carry:
            return None
    for place, carry in generated.items():
        if entries.setdefault(place, carry) != carry:
            return None
    return sum(value << place for place, value in entries.items())


class _Gates:
    """The tables and the bits of the carry chains of a flat module."""

    def __init__(self, module: dict[str, Any]) -> None:
        self._cells: dict[str, dict[str, Any]] = module["cells"]
        self._tables: dict[Bit, str] = {}
        # Readers of each wire: cell and bit of a chain; of other cells and of ports no bit.
        self._readers: defaultdict[Bit, set[tuple[str, str]]] = defaultdict(set)
        for name, port in module["ports"].items():
            for bit in port["bits"]:
                self._readers[bit].add((name, ""))
        for name, cell in self._cells.items():
            if cell["type"] == TABLE:
                self._tables[cell["connections"]["Z"][0]] = name
            for port, bits in cell["connections"].items():
                if cell["port_directions"][port] != "output":
                    half = port[1:] if cell["type"] == CARRY and port[0] in PINS else ""
                    for bit in bits:
                        self._readers[bit].add((name, half))

    def take_in(self) -> int:
        """Take in what can be; return how many tables are gone."""
        gone = 0
        while True:
            # The smaller ones first: they leave more inputs to others.
            waiting = sorted(self._tables.items(), key=lambda entry: len(self._wires(entry[1])))
            taken = sum(self._takes(bit, table) for bit, table in waiting)
            gone += taken
            if not taken:
                return gone

    def _inputs(self, cell: str, half: str = "") -> list[Bit]:
        connections = self._cells[cell]["connections"]
        return [connections[pin + half][0] for pin in PINS]

    def _wires(self, table: str) -> list[Bit]:
        return [bit for bit in dict.fromkeys(self._inputs(table)) if isinstance(bit, int)]

    def _takes(self, bit: Bit, table: str) -> bool:
        """Put a table into all that read it, if these are bits of chains and all of them can."""
        readers = sorted(self._readers[bit])
        if not readers or not all(half for _, half in readers):
            return False
        changes = []
        for name, half in readers:
            change = self._change(name, half, bit, table)
            if change is None:
                return False
            changes.append(change)
        for wire in self._wires(table):
            self._readers[wire].discard((table, ""))
            self._readers[wire].update(readers)
        for (name, half), (inputs, init) in zip(readers, changes, strict=True):
            cell = self._cells[name]
            for pin, wire in zip(PINS, inputs, strict=True):
                cell["connections"][pin + half] = [wire]
            cell["parameters"]["INIT" + half] = f"{init:016b}"
        del self._cells[table], self._tables[bit], self._readers[bit]
        return True

    def _change(self, name: str, half: str, bit: Bit, table: str) -> tuple[list[Bit], int] | None:
        """Return inputs and table of a bit of a chain that has taken in a table; or None."""
        inputs, gate_inputs = self._inputs(name, half), self._inputs(table)
        init = int(self._cells[name]["parameters"]["INIT" + half], 2)
        gate = int(self._cells[table]["parameters"]["INIT"], 2)
        kept = [wire for wire in inputs if isinstance(wire, int) and wire != bit]
        wires = list(dict.fromkeys([*kept, *self._wires(table)]))
        if len(wires) > len(PINS):
            return None
        passes, carries = [], []
        for number in range(1 << len(wires)):
            values: dict[Bit, int] = {wire: number >> i & 1 for i, wire in enumerate(wires)}
            values[bit] = _read(gate, gate_inputs, values)
            passes.append(_read(init, inputs, values))
            carries.append(_read(init, [*inputs[:2], "0", "0"], values))
        found = _arrange(len(wires), tuple(passes), tuple(carries))
        if found is None:
            return None
        pins, arranged = found
        return [wires[pin] if isinstance(pin, int) else pin for pin in pins], arranged


def take_in_gates(module: dict[str, Any]) -> int:
    """Take tables before carry chains into the chains' own tables.

    Parameters
    ----------
    module : dict
        A flat one, of Yosys's ``write_json``; it is changed.

    Returns
    -------
    int
        How many tables are gone.
    """
    return _Gates(module).take_in()


def refine(netlist: Path) -> Counter[str]:
    """Do so in a netlist, what Yosys's ``write_json`` wrote, with the top module ``top``.

    Returns
    -------
    Counter of str
        Its cells by type.
    """
    content: dict[str, Any] = json.loads(netlist.read_text(encoding="utf-8"))
    top = content["modules"]["top"]
    if take_in_gates(top):
        netlist.write_text(json.dumps(content), encoding="utf-8")
    return Counter(cell["type"] for cell in top["cells"].values())
