"""How many multipliers there must be, and which rows of the array do without."""

from __future__ import annotations

from celosia.boards.fpga.carry import CarryAndAdder
from celosia.boards.fpga.flows import FLOWS
from celosia.boards.fpga.multipliers import multipliers_of, table_rows, table_rows_of
from celosia.boards.registry import BOARDS
from celosia.hw.array.products import NO_TABLES
from celosia.hw.contract.config import PRESETS
from celosia.hw.contract.named import resolve_config

ECP5 = FLOWS["ecp5"]


def test_a_lane_takes_four_a_cell_one() -> None:
    base = PRESETS["base"]
    assert multipliers_of(base, ECP5) == 64 + 4 * 8  # softmax borrows
    assert multipliers_of(base.with_(compact=False), ECP5) == 64 + 4 * 8 + 4
    assert multipliers_of(base.with_(compact=False, lanes=2), ECP5) == 64 + 4 * 2 + 4
    assert multipliers_of(PRESETS["tiny"], ECP5) == 64 + 4 * 2  # softmax borrows
    assert multipliers_of(PRESETS["nano"], ECP5) == 4 + 4


def test_rows_are_tables_where_multipliers_are_lacking() -> None:
    wide = PRESETS["wide"]
    assert multipliers_of(wide, ECP5) == 256 + 4 * 8
    for available in range(0, 300, 7):
        rows = table_rows_of(wide, ECP5, available)
        taken = multipliers_of(wide, ECP5, available)
        assert taken == 16 * (16 - rows) + 4 * 8
        assert rows == 16 or taken <= available
        assert rows == 0 or taken + 16 > available  # no more than must be
    assert table_rows(wide, ECP5, 156).adder is CarryAndAdder


def test_firmware_and_other_families_have_none() -> None:
    assert table_rows_of(PRESETS["nano"], ECP5, 0) == 0
    for family in ("ice40", "gowin", "xilinx7"):
        assert table_rows_of(PRESETS["large"], FLOWS[family], 0) == 0
        assert table_rows(PRESETS["large"], FLOWS[family], 0) == NO_TABLES


def test_the_boards_own_machines_have_multipliers_for_all() -> None:
    for board in BOARDS.values():
        flow = FLOWS[board.family]
        for name in board.configs:
            rows = table_rows_of(resolve_config(name), flow, board.capacity[flow.multiplier])
            assert rows == (9 if name == "wide" else 0)
