"""Constants that are looked up, in logic that is the same whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Const, Instance, Module, Signal, Value
from amaranth.lib.memory import Memory

__all__ = ["look_up"]

TABLE_BITS = 16
TABLE_INPUTS = 4

TABLES = {
    "LFE5U": ("LUT4", "INIT", ("A", "B", "C", "D"), "Z"),
    "iCE40": ("SB_LUT4", "LUT_INIT", ("I0", "I1", "I2", "I3"), "O"),
    "GW2A": ("LUT4", "INIT", ("I0", "I1", "I2", "I3"), "F"),
}
"""By the beginning of the FPGA's name: table, parameter with the contents, inputs, output."""
NAMED_BY = ("device", "part")
"""What an Amaranth platform has the FPGA's name in: the second those for Gowin."""


def look_up(m: Module, bits: Sequence[int], place: Value, *, platform: object) -> Value:
    """Return the bit at a place.

    From constants synthesis makes what logic they need. Some of these are a git revision: with
    each commit all of a design would be placed anew, and its clock be another one. On the FPGAs in
    :data:`TABLES` every 16 bits are a table of their own, and differ in nothing but its contents
    (nearly always: Yosys leaves an input open that a table's contents do not depend on).

    Parameters
    ----------
    m : Module
        Gets the tables.
    bits : sequence of int
        Their number is a multiple of 16.
    place : Value
    platform : object
        What ``elaborate`` was called with.
    """
    names = tuple(str(getattr(platform, attribute, "")) for attribute in NAMED_BY)
    cell = next((c for fpga, c in TABLES.items() if any(n.startswith(fpga) for n in names)), None)
    if cell is None:
        m.submodules.constants = rom = Memory(shape=1, depth=len(bits), init=bits)
        port = rom.read_port(domain="comb")
        m.d.comb += port.addr.eq(place)
        return port.data
    kind, parameter, inputs, result = cell
    tables = []
    for first in range(0, len(bits), TABLE_BITS):
        contents = sum(bit << k for k, bit in enumerate(bits[first : first + TABLE_BITS]))
        output = Signal(name=f"constants_{first}")
        m.submodules[f"constants_{first}"] = Instance(
            kind,
            **{f"p_{parameter}": Const(contents, TABLE_BITS), f"o_{result}": output},
            **{f"i_{name}": place[k] for k, name in enumerate(inputs)},
        )
        tables.append(output)
    chosen: Value = Array(tables)[place[TABLE_INPUTS:]]
    return chosen
