"""Carry chains of an ECP5 that end without a table of their own.

Yosys has every cell of a chain drive a wire with its carry, the last one too. nextpnr brings a
carry out of the chain through one more cell wherever there is such a wire, whether or not anybody
reads it. A wire that nobody reads is taken away.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["free_carry_ends", "open_carries"]

CARRY = "CCU2C"
OPEN = "x"
"""What Yosys writes for a port that is connected to nothing."""


def open_carries(module: dict[str, Any]) -> int:
    """Disconnect the carries of a flat module that nobody reads.

    Parameters
    ----------
    module : dict
        Of Yosys's ``write_json``; it is changed.

    Returns
    -------
    int
        How many.
    """
    read: Counter[int | str] = Counter()
    for port in module["ports"].values():
        read.update(port["bits"])
    for cell in module["cells"].values():
        for name, bits in cell["connections"].items():
            if cell["port_directions"][name] != "output":
                read.update(bits)
    opened = 0
    for cell in module["cells"].values():
        if cell["type"] == CARRY:
            bits = cell["connections"].get("COUT", [])
            if any(isinstance(bit, int) and not read[bit] for bit in bits):
                cell["connections"]["COUT"] = [OPEN]
                opened += 1
    return opened


def free_carry_ends(netlist: Path) -> int:
    """Do so in a netlist, what Yosys's ``write_json`` wrote, with the top module ``top``."""
    content: dict[str, Any] = json.loads(netlist.read_text(encoding="utf-8"))
    opened = open_carries(content["modules"]["top"])
    if opened:
        netlist.write_text(json.dumps(content), encoding="utf-8")
    return opened
