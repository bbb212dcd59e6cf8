"""What the bridge takes of an FPGA: block memories where memories were meant, and few tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("amaranth")
from amaranth.back import rtlil
from amaranth.lib.wiring import Component
from celosia.boards.fpga.clock import read_report
from celosia.boards.fpga.harness import TimingHarness
from celosia.boards.fpga.resources import TABLES_OF_CCU2C, TABLES_OF_DPR16X4, cell_counts
from celosia.boards.fpga.tools import NEXTPNR_ECP5, YOSYS, FpgaToolError, find_tool, run_fpga_tool
from celosia.hw.contract.uart import Identity, max_payload_words
from celosia.hw.uart.bridge import UartBridge

TIME_OUT_S = 300.0


def make_bridge(buffer_words: int, clock_hz: int) -> UartBridge:
    """Return a bridge."""
    identity = Identity(
        board="test",
        clock_hz=clock_hz,
        memory_bytes=1 << 20,
        max_words=max_payload_words(buffer_words),
        buffer_words=buffer_words,
        revision="0123456789abcdef",
    )
    return UartBridge(identity=identity)


def as_rtlil(component: Component) -> str:
    """Return a component as RTLIL."""
    text: str = rtlil.convert(component, name="top", emit_src=False)
    return text


@pytest.fixture(autouse=True)
def _yosys() -> None:
    try:
        find_tool(YOSYS, task="synthesis")
    except FpgaToolError as error:
        pytest.skip(str(error))


def test_ecp5() -> None:
    cells = cell_counts(
        as_rtlil(make_bridge(512, 80_000_000)), "synth_ecp5 -top top", timeout_s=TIME_OUT_S
    )
    tables = cells["LUT4"] + TABLES_OF_CCU2C * cells["CCU2C"]
    print(f"{cells['LUT4']} LUT4, {tables} tables, {cells['TRELLIS_FF']} FF")
    assert cells["DP16KD"] == 2
    assert TABLES_OF_DPR16X4 * cells.get("TRELLIS_DPR16X4", 0) == 0
    assert cells["LUT4"] < 750
    assert tables < 950
    assert cells["TRELLIS_FF"] < 550


def test_ice40_with_a_small_buffer() -> None:
    cells = cell_counts(
        as_rtlil(make_bridge(256, 24_000_000)), "synth_ice40 -top top", timeout_s=TIME_OUT_S
    )
    flip_flops = sum(count for name, count in cells.items() if name.startswith("SB_DFF"))
    print(f"{cells['SB_LUT4']} SB_LUT4, {flip_flops} SB_DFF, {cells['SB_RAM40_4K']} RAM")
    assert cells["SB_RAM40_4K"] == 3
    assert cells["SB_LUT4"] < 950
    assert flip_flops < 550


def test_clock_on_an_ecp5(tmp_path: Path) -> None:
    try:
        nextpnr = find_tool(NEXTPNR_ECP5, task="place and route")
    except FpgaToolError as error:
        pytest.skip(str(error))
    bridge = make_bridge(512, 80_000_000)
    (tmp_path / "top.il").write_text(as_rtlil(TimingHarness(bridge)), encoding="utf-8")
    script = "read_rtlil top.il; synth_ecp5 -top top -json top.json"
    synthesis = [find_tool(YOSYS, task="synthesis"), "-q", "-p", script]
    device = ["--85k", "--package", "CABGA381", "--speed", "6", "--seed", "1", "--freq", "80"]
    files = ["--json", "top.json", "--report", "report.json", "--lpf-allow-unconstrained"]
    for command in (synthesis, [nextpnr, "--quiet", *device, *files, "--timing-allow-fail"]):
        run_fpga_tool(command, task="place and route", timeout_s=TIME_OUT_S, cwd=tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    report = read_report(content, config="bridge", device="LFE5U-85F", speed=6, seed=1)
    print(f"{report.fmax_mhz:.1f} MHz")
    assert report.fmax_mhz >= 100
