"""Places of multipliers and block memories."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import pytest
from celosia.boards.fpga.blocks import GRIDS, PRODUCT
from celosia.boards.fpga.floorplan import constrain, floorplan
from celosia.boards.fpga.flows import FLOWS
from celosia.boards.fpga.multipliers import multipliers_of, table_rows
from celosia.boards.fpga.resources import capacity_of_ecp5
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.contract.parts import Part

DEVICE = "LFE5U-85F"
PARTS = ("low_low", "low_high", "high_low", "high_high")
SLICES = range(15)
"""Of 512 bits, 36 each."""


def cells_of(config: NpuConfig, *, slices: int = 8) -> dict[str, str]:
    """Return cells by the names that Yosys gives them."""
    mirrored = Part.MIRRORED_ACCUMULATOR in config.parts
    accumulator = ("of_adder", "of_reader") if mirrored else ("half_0", "half_1")
    npu = "soc.npu.core"
    suffix = "TRELLIS_FF_Q_DI_MULT18X18D_P0"
    multipliers = [
        f"{npu}.array.grid.product_{row}_{column}_{suffix}"
        for row, column in product(range(config.rows), range(config.cols))
    ]
    multipliers += [
        f"{npu}.vector.pipeline.lane_{lane}.multiplier.{part}_{suffix}"
        for lane, part in product(range(config.cols), PARTS)
    ]
    multipliers += [f"{npu}.vector.softmax.multiplier.{part}_{suffix}" for part in PARTS]
    memories = [
        f"{npu}.{name}.{index}"
        for name, index in product(
            (
                *(f"act.bank_{bank}.memory.0" for bank in range(config.act_banks)),
                *(f"array.accumulator.{memory}.memory.0" for memory in accumulator),
                *(f"wgt.bank_{bank}.memory.memory.0" for bank in range(2)),
            ),
            range(slices),
        )
    ]
    memories += [f"{npu}.vector.table_ram.table_{j}.memory.0.0" for j in range(config.cols)]
    memories += ["soc.bridge.frames.ring.memory.0.0"]
    cells = dict.fromkeys(multipliers, "MULT18X18D") | dict.fromkeys(memories, "DP16KD")
    return cells | {"soc.npu.core.act.bank_0.other": "TRELLIS_FF"}


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_every_part_of_the_npu_has_a_place_of_its_own(name: str) -> None:
    cells = cells_of(PRESETS[name])
    places = floorplan(cells, DEVICE)
    left = {cell for cell, kind in cells.items() if kind != "TRELLIS_FF"} - set(places)
    assert "soc.bridge.frames.ring.memory.0.0" in left
    assert all(cells[cell] == "DP16KD" for cell in left)
    assert len(left) == 1
    assert len(set(places.values())) == len(places)
    grid = GRIDS[DEVICE]
    multipliers = {
        grid.multiplier(column, row, place)
        for column, row, place in product(
            range(len(grid.columns)), range(len(grid.multiplier_rows)), range(4)
        )
    }
    memories = {
        grid.memory(column, row, place)
        for column, row, place in product(
            range(len(grid.columns)), range(len(grid.memory_rows)), range(4)
        )
    }
    assert len(multipliers) == 156  # of an LFE5U-85: Lattice FPGA-DS-02012, table 1.1
    assert len(memories) == 208
    for cell, place in places.items():
        assert place in (multipliers if cells[cell] == "MULT18X18D" else memories), cell


def test_a_lane_is_in_one_block_above_its_accumulator() -> None:
    places = floorplan(cells_of(PRESETS["base"]), DEVICE)
    lane = {place for cell, place in places.items() if ".lane_3." in cell}
    assert lane == {"X58/Y10/MULT18_0", "X59/Y10/MULT18_1", "X62/Y10/MULT18_4", "X63/Y10/MULT18_5"}
    assert places["soc.npu.core.array.accumulator.of_adder.memory.0.3"] == "X58/Y22/EBR0"
    column = {place.split("/")[1] for cell, place in places.items() if "product_" in cell}
    assert column == {"Y34", "Y58"}


def wide_cells() -> dict[str, str]:
    """Return the hard blocks of `wide`, as it is made for this FPGA."""
    config = PRESETS["wide"]
    flow, capacity = FLOWS["ecp5"], capacity_of_ecp5(DEVICE)["MULT18X18D"]
    tables = table_rows(config, flow, capacity)
    npu = "soc.npu.core"
    suffix = "TRELLIS_FF_Q_DI_MULT18X18D_P0"
    multipliers = [
        f"{npu}.array.grid.product_{row}_{column}_{suffix}"
        for row, column in product(range(config.rows), range(config.cols))
        if not tables.has(row, config.rows)
    ]
    multipliers += [
        f"{npu}.vector.pipeline.lane_{lane}.multiplier.{part}_{suffix}"
        for lane, part in product(range(config.vector_lanes), PARTS)
    ]
    assert len(multipliers) == multipliers_of(config, flow, capacity) <= capacity
    memories = [
        *(
            f"array.accumulator.{of}.memory.0.{i}"
            for of in ("of_adder", "of_reader")
            for i in SLICES
        ),
        *(f"act.bank_{bank}.memory.0.{i}" for bank in range(config.act_banks) for i in range(16)),
        *(f"wgt.bank_{bank}.memory.memory.0.{i}" for bank in range(2) for i in range(48)),
        *(f"param.memory.memory.0.{i}" for i in range(4)),
        *(f"vector.table_ram.table_{j}.memory.0.0" for j in range(config.vector_lanes)),
    ]
    return dict.fromkeys(multipliers, "MULT18X18D") | {
        f"{npu}.{name}": "DP16KD" for name in memories
    }


def test_an_array_wider_than_the_fpga_has_places() -> None:
    cells = wide_cells()
    places = floorplan(cells, DEVICE)
    assert set(places) == set(cells)
    assert len(set(places.values())) == len(places)
    for cell, place in places.items():
        assert ("MULT18" in place) == (cells[cell] == "MULT18X18D")
    # A lane is a block; sums run from the far rows to the lanes, and from left to right.
    for lane in range(8):
        of_lane = {place for cell, place in places.items() if f".lane_{lane}." in cell}
        assert {place.split("/")[1] for place in of_lane} == {"Y10"}
        xs = [int(place.split("/")[0][1:]) for place in of_lane]
        assert max(xs) - min(xs) == 5
    height: dict[int, int] = {}
    left: dict[int, list[tuple[int, int]]] = {}
    for cell, place in places.items():
        if match := PRODUCT.search(cell):
            x, y = (int(part[1:]) for part in place.split("/")[:2])
            assert height.setdefault(int(match[1]), y) == y
            left.setdefault(int(match[1]), []).append((int(match[2]), x))
    by_row = [y for _, y in sorted(height.items())]
    assert by_row == sorted(by_row, reverse=True)
    assert set(by_row) == {10, 34, 58}
    for columns in left.values():
        xs = [x for _, x in sorted(columns)]
        assert all(after >= before - 9 for before, after in pairwise(xs))


@pytest.mark.parametrize(("name", "device"), [("large", DEVICE), ("base", "LFE5U-25F")])
def test_what_has_no_layout_is_left_to_the_placer(name: str, device: str) -> None:
    assert floorplan(cells_of(PRESETS[name]), device) == {}


def test_netlist_gets_the_places(tmp_path: Path) -> None:
    cells = {name: {"type": kind} for name, kind in cells_of(PRESETS["base"]).items()}
    netlist = tmp_path / "top.json"
    netlist.write_text(json.dumps({"modules": {"top": {"cells": cells}}}), encoding="utf-8")
    count = constrain(netlist, DEVICE)
    written = json.loads(netlist.read_text(encoding="utf-8"))["modules"]["top"]["cells"]
    assert count == sum("BEL" in cell.get("attributes", {}) for cell in written.values()) > 150
