"""Places for an array with more columns than the FPGA has columns of multipliers.

::

    y   0   lanes, and what is left of the array      multipliers
            accumulator, tables, parameters           memories
            array                                     multipliers
            activations                               memories
            array                                     multipliers
            activations, weights                      memories
            weights                                   memories

What belongs to the first of an NPU's columns is on the left, what belongs to the last on the right.
Rows of the array whose products are made of tables lie between the others, where the placer likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product

from celosia.boards.fpga.blocks import (
    ACC,
    ACT,
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
    BlockGrid,
)

__all__ = ["wide_floorplan"]

ROWS_OF = (
    (ACC, (0,)),
    (MIRRORED, (0,)),
    (TABLE, (0,)),
    (PARAM, (0,)),
    (ACT, (1, 2)),
    (WGT, (3, 2, 0)),
)
"""Rows of block memories that each memory of the NPU goes into, the best one first."""

NEAR_COLUMNS = 3
"""The next one is as good as the one wanted; then another row is better."""

Block = tuple[float, list[str]]
"""Where in the width, 0 to 1, some cells want to be that share a DSP block."""


def wide_floorplan(cells: dict[str, str], grid: BlockGrid) -> dict[str, str]:
    """Return places as :func:`celosia.boards.fpga.floorplan.floorplan` does.

    Parameters
    ----------
    cells : dict of str to str
        Types of the netlist's cells, by name.
    grid : BlockGrid
        The FPGA's.

    Returns
    -------
    dict of str to str
        Empty if there are too few multipliers. A memory for which there is no room is left out.
    """
    blocks = _blocks([name for name, kind in cells.items() if kind == MULTIPLIERS], grid)
    if blocks is None:
        return {}
    places = {}
    for row, wishes in enumerate(blocks):
        ordered = sorted(wishes)
        for index, (_, names) in enumerate(ordered):
            column = index * len(grid.columns) // len(ordered)
            for place, name in enumerate(names):
                places[name] = grid.multiplier(column, row, place)
    places.update(_memories([name for name, kind in cells.items() if kind == MEMORIES], grid))
    return places


def _blocks(names: Iterable[str], grid: BlockGrid) -> list[list[Block]] | None:
    """Return what goes into the DSP blocks of each row; None if there are too few."""
    lanes: dict[int, list[tuple[int, str]]] = {}
    softmax: list[tuple[int, str]] = []
    array: dict[int, list[tuple[int, str]]] = {}
    for name in names:
        if match := PRODUCT.search(name):
            array.setdefault(int(match[1]), []).append((int(match[2]), name))
        elif match := LANE.search(name):
            entry = (PARTIAL_PRODUCTS.index(match[2]), name)
            lanes.setdefault(int(match[1]), []).append(entry)
        elif match := SOFTMAX.search(name):
            softmax.append((PARTIAL_PRODUCTS.index(match[1]), name))
    rows: list[list[Block]] = [[] for _ in grid.multiplier_rows]
    # Lanes from the first row on; the array from the last, where its sums begin.
    of_vectors = [_named(parts) for _, parts in sorted(lanes.items())]
    of_vectors += [_named(softmax)] if softmax else []
    for index, block in enumerate(of_vectors):
        row, column = divmod(index, len(grid.columns))
        if row >= len(rows):
            return None
        there = min(len(grid.columns), len(of_vectors) - row * len(grid.columns))
        rows[row].append(((column + 0.5) / there, block))
    following = sorted(array)
    for blocks in reversed(rows):
        cells: list[tuple[int, int, str]] = []
        room = PER_BLOCK * (len(grid.columns) - len(blocks))
        while following and len(cells) + len(array[following[0]]) <= room:
            row = following.pop(0)
            cells += [(column, row, name) for column, name in array[row]]
        # Column by column, as sums run down the rows.
        blocks += _spread([name for *_, name in sorted(cells)])
    return None if following else rows


def _named(parts: list[tuple[int, str]]) -> list[str]:
    return [name for _, name in sorted(parts)]


def _spread(names: Sequence[str]) -> Iterator[Block]:
    """Yield cells by blocks, over the whole width."""
    for first in range(0, len(names), PER_BLOCK):
        yield (first + PER_BLOCK / 2) / len(names), list(names[first : first + PER_BLOCK])


def _memories(names: Sequence[str], grid: BlockGrid) -> Iterator[tuple[str, str]]:
    """Yield block memories with their places."""
    columns = len(grid.columns)
    free = dict.fromkeys(product(range(len(grid.memory_rows)), range(columns)), 0)
    for pattern, rows in ROWS_OF:
        # By slice, then by bank: the bits of a byte beside one another.
        found = sorted(
            (_indices(match)[1:], _indices(match)[0], name)
            for name in names
            if (match := pattern.search(name))
        )
        for index, (*_, name) in enumerate(found):
            wanted = (2 * index + 1) * columns // (2 * len(found))
            near = sorted(range(columns), key=lambda column: abs(column - wanted))
            order = product(rows, near[:NEAR_COLUMNS]), product(rows, near[NEAR_COLUMNS:])
            for row, column in chain(*order):
                if (place := free[row, column]) < PER_BLOCK:
                    free[row, column] += 1
                    yield name, grid.memory(column, row, place)
                    break


def _indices(match: re.Match[str]) -> tuple[int, ...]:
    """Return bank and slice as numbers."""
    return tuple(int(index) for index in match.groups())
