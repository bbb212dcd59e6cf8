"""What the bridge takes of an FPGA: block memories where memories were meant, and few tables."""

from __future__ import annotations

import pytest

pytest.importorskip("amaranth")
from celosia.boards.resources import TABLES_OF_CCU2C, TABLES_OF_DPR16X4, cell_counts
from celosia.boards.tools import YOSYS, FpgaToolError, find_tool
from celosia.hw.uart.bridge import UartBridge
from celosia.hw.uart.protocol import Identity, max_payload_words

TIME_OUT_S = 300.0


def rtlil(buffer_words: int, clock_hz: int) -> str:
    """Return a bridge as RTLIL."""
    from amaranth.back import rtlil

    identity = Identity(
        board="test",
        clock_hz=clock_hz,
        memory_bytes=1 << 20,
        max_words=max_payload_words(buffer_words),
        buffer_words=buffer_words,
        revision="0123456789abcdef",
    )
    text: str = rtlil.convert(UartBridge(identity=identity), name="top", emit_src=False)
    return text


@pytest.fixture(autouse=True)
def _yosys() -> None:
    try:
        find_tool(YOSYS, task="synthesis")
    except FpgaToolError as error:
        pytest.skip(str(error))


def test_ecp5() -> None:
    cells = cell_counts(rtlil(512, 80_000_000), "synth_ecp5 -top top", timeout_s=TIME_OUT_S)
    tables = cells["LUT4"] + TABLES_OF_CCU2C * cells["CCU2C"]
    print(f"{cells['LUT4']} LUT4, {tables} tables, {cells['TRELLIS_FF']} FF")
    assert cells["DP16KD"] == 2
    assert TABLES_OF_DPR16X4 * cells.get("TRELLIS_DPR16X4", 0) == 0
    assert cells["LUT4"] < 1400
    assert tables < 1700
    assert cells["TRELLIS_FF"] < 800


def test_ice40_with_a_small_buffer() -> None:
    cells = cell_counts(rtlil(256, 24_000_000), "synth_ice40 -top top", timeout_s=TIME_OUT_S)
    flip_flops = sum(count for name, count in cells.items() if name.startswith("SB_DFF"))
    print(f"{cells['SB_LUT4']} SB_LUT4, {flip_flops} SB_DFF, {cells['SB_RAM40_4K']} RAM")
    assert cells["SB_RAM40_4K"] == 3
    assert cells["SB_LUT4"] < 1600
    assert flip_flops < 800
