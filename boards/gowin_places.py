"""Where the array's multipliers go on a Gowin FPGA.

The four multipliers of 9 x 9 bits in a macro have four wires for clock enables between them.
nextpnr 0.11 counts every enable that it has ever tried in a macro, so that with the enables of
eight rows of weights it soon finds no macro that is legal. Here multipliers with one enable get
macros of their own, in the order of the array's rows, and the placer leaves them there.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

__all__ = ["GRIDS", "place_multipliers"]

MULTIPLIER = "MULT9X9"
PER_MACRO = 4
MACROS_PER_BLOCK = 2
ENABLES_PER_MACRO = 4

GRIDS = {
    "GW2A-LV18": tuple((x, 18) for x in (1, 10, 19, 28, 37, 46))
    + tuple((x, 36) for x in (46, 37, 28, 19, 10, 1))
}
"""x and y of the DSP blocks of a device, there and back; from Apicula's data of the GW2A-18C."""


def _in_order(name: str) -> list[int | str]:
    """Return what sorts names by the numbers in them."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def place_multipliers(netlist: Path, device: str) -> int:
    """Give every multiplier of 9 x 9 bits a place, if they have more enables than a macro has.

    Parameters
    ----------
    netlist : Path
        Of Yosys's ``write_json``, with the top module ``top``; it is changed.
    device : str
        The part's name begins with one of :data:`GRIDS`; of others nothing is placed.

    Returns
    -------
    int
        Multipliers that have been given a place; 0 also if there are too many of them.
    """
    blocks = next((grid for name, grid in GRIDS.items() if device.startswith(name)), ())
    content: dict[str, Any] = json.loads(netlist.read_text(encoding="utf-8"))
    cells: dict[str, dict[str, Any]] = content["modules"]["top"]["cells"]
    groups: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name in sorted(cells, key=_in_order):
        if cells[name]["type"] == MULTIPLIER:
            groups[tuple(cells[name]["connections"]["CE"])].append(name)
    macros = sum(-(-len(names) // PER_MACRO) for names in groups.values())
    if len(groups) <= ENABLES_PER_MACRO or macros > MACROS_PER_BLOCK * len(blocks):
        return 0
    macro = placed = 0
    for names in groups.values():
        for place, name in enumerate(names):
            block, half = divmod(macro + place // PER_MACRO, MACROS_PER_BLOCK)
            x, y = blocks[block]
            bel = f"X{x}Y{y}/{MULTIPLIER}{half}{place % PER_MACRO}"
            cells[name].setdefault("attributes", {})["BEL"] = bel
            placed += 1
        macro += -(-len(names) // PER_MACRO)
    netlist.write_text(json.dumps(content), encoding="utf-8")
    return placed
