"""Products that are made of carry chains."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.sim import Simulator
from celosia.hw.array.products import NO_TABLES, TableProduct, TableRows

BYTES = range(-128, 128)


def test_all_products_of_two_bytes() -> None:
    dut = TableProduct()
    wrong: list[tuple[int, int, int]] = []

    async def check(ctx: Any) -> None:
        for a in BYTES:
            ctx.set(dut.a, a)
            for b in BYTES:
                ctx.set(dut.b, b)
                if (product := ctx.get(dut.product)) != a * b:
                    wrong.append((a, b, product))

    simulator = Simulator(dut)
    simulator.add_testbench(check)
    simulator.run()
    assert wrong == []


@pytest.mark.parametrize("rows", [4, 8, 16, 32])
def test_rows_of_tables_lie_evenly(rows: int) -> None:
    for count in range(rows + 1):
        chosen = [row for row in range(rows) if TableRows(count).has(row, rows)]
        assert len(chosen) == count
        gaps = [after - before for before, after in zip(chosen, chosen[1:], strict=False)]
        assert not gaps or max(gaps) - min(gaps) <= 1
    assert not any(NO_TABLES.has(row, rows) for row in range(rows))
