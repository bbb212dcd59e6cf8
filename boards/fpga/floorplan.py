"""Where the NPU's multipliers and memories go on an ECP5, so that the placer starts from an order.

nextpnr's placers put block memories and multipliers last, wherever there is room; with the four
multipliers of a lane in four corners a single wire then takes a whole clock cycle. Here they are
laid out as data goes through them: in every column of the FPGA a lane of the vector engine, the
accumulator's and the table's part that belong to it, and a column of the array; the activation
SRAM amid the array's rows, the weights beyond. All else is left to the placer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celosia.boards.fpga.blocks import (
    ACC,
    ACT,
    GRIDS,
    LANE,
    MEMORIES,
    MIRRORED,
    MULTIPLIERS,
    PARAM,
    PARTIAL_PRODUCTS,
    PER_BLOCK,
    PRODUCT,
    SOFTMAX,
    TABLE,
    WGT,
)
from celosia.boards.fpga.wide_floorplan import wide_floorplan

__all__ = ["constrain", "floorplan"]


@dataclass(frozen=True)
class _Wish:
    """A cell, and where it should be.

    Attributes
    ----------
    cell : str
    column : int
        Of the NPU: the lane's, or the array's.
    row : int
    place : int
    """

    cell: str
    column: int
    row: int
    place: int


def _multipliers(names: Iterable[str]) -> Iterator[_Wish]:
    lanes = 1
    softmax: list[tuple[str, int]] = []
    for name in names:
        if match := PRODUCT.search(name):
            # Sums run down the rows, from the far row of blocks to that beside the lanes.
            group, place = divmod(int(match[1]), PER_BLOCK)
            yield _Wish(name, int(match[2]), -1 - group, place)
        elif match := LANE.search(name):
            lanes = max(lanes, int(match[1]) + 1)
            yield _Wish(name, int(match[1]), 0, PARTIAL_PRODUCTS.index(match[2]))
        elif match := SOFTMAX.search(name):
            softmax.append((name, PARTIAL_PRODUCTS.index(match[1])))
    for name, place in softmax:
        yield _Wish(name, lanes, 0, place)


def _memories(names: Iterable[str], columns: int) -> Iterator[_Wish]:
    """`columns`: of the array."""
    parts: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for name in names:
        for pattern, row in ((ACC, 0), (ACT, 1), (WGT, 2)):
            if match := pattern.search(name):
                index = max(int(match[2]), int(match[3]))
                parts.setdefault((row, int(match[1])), []).append((index, name))
        if match := MIRRORED.search(name):
            index = max(int(match[1]), int(match[2]))
            parts.setdefault((0, int(".of_reader" in name)), []).append((index, name))
        if match := TABLE.search(name):
            parts.setdefault((0, 2), []).append((int(match[1]), name))
        elif match := PARAM.search(name):
            parts.setdefault((0, 3), []).append((max(int(match[1]), int(match[2])), name))
    for (row, place), slices in parts.items():
        # Slices of a memory side by side, over the whole width.
        for order, (_, name) in enumerate(sorted(slices)):
            yield _Wish(name, order * columns // len(slices), row, place)


def floorplan(cells: dict[str, str], device: str) -> dict[str, str]:
    """Return places for the multipliers and block memories of an NPU.

    Parameters
    ----------
    cells : dict of str to str
        Types of a netlist's cells, by name: the names that Yosys gives them in a flat design.
    device : str
        FPGA.

    Returns
    -------
    dict of str to str
        nextpnr's names of the places, by cell. Empty if there is no grid for the device or the
        NPU is too large for its layout; a cell that has no place in it is left out.
    """
    grid = GRIDS.get(device)
    if grid is None:
        return {}
    multipliers = list(_multipliers(name for name, kind in cells.items() if kind == MULTIPLIERS))
    if not multipliers:
        return {}
    width = max(wish.column for wish in multipliers) + 1
    array_rows = -min(wish.row for wish in multipliers)
    # The lanes' row, then the array's.
    if width > len(grid.columns) or array_rows + 1 > len(grid.multiplier_rows):
        return wide_floorplan(cells, grid)
    first = (len(grid.columns) - width + 2) // 2
    array_columns = 1 + max((wish.column for wish in multipliers if wish.row < 0), default=0)
    places: dict[str, str] = {}
    for wish in multipliers:
        row = wish.row if wish.row >= 0 else 1 + array_rows + wish.row
        places[wish.cell] = grid.multiplier(first + wish.column, row, wish.place)
    memories = _memories((name for name, kind in cells.items() if kind == MEMORIES), array_columns)
    taken: set[str] = set()
    for wish in memories:
        if wish.place < PER_BLOCK:
            place = grid.memory(first + wish.column, wish.row, wish.place)
            if place not in taken:
                taken.add(place)
                places[wish.cell] = place
    return places


def constrain(netlist: Path, device: str) -> int:
    """Write places into a netlist, as attributes that nextpnr obeys.

    Parameters
    ----------
    netlist : Path
        What Yosys's ``write_json`` wrote, with the top module ``top``; it is changed.
    device : str

    Returns
    -------
    int
        Cells that have a place.
    """
    content: dict[str, Any] = json.loads(netlist.read_text(encoding="utf-8"))
    cells = content["modules"]["top"]["cells"]
    places = floorplan({name: cell["type"] for name, cell in cells.items()}, device)
    for name, place in places.items():
        cells[name].setdefault("attributes", {})["BEL"] = place
    if places:
        netlist.write_text(json.dumps(content), encoding="utf-8")
    return len(places)
