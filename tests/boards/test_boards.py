"""The boards: every design elaborates with its pins; a board's figures are its design's."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from celosia.boards.board import Board
from celosia.boards.fpga.flows import FLOWS
from celosia.boards.fpga.resources import DEVICES
from celosia.boards.identity import identity_of, revision_of
from celosia.boards.registry import BOARDS, find_board
from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS, NpuConfig, preset
from celosia.hw.contract.named import NAMED_CONFIGS, resolve_config
from celosia.hw.contract.uart import Identity
from celosia.hw.system.sdram_timing import SDRAM_CHIPS

pytest.importorskip("amaranth_boards")

PINS = {
    "ulx3s": {"clk25": "G2", "uart_0__rx": "M1", "uart_0__tx": "L4", "sdram_0__clk": "F19"},
    "orangecrab": {"clk_0": "A9", "uart_0__rx": "N17", "uart_0__tx": "M18"},
    "icebreaker": {"clk12": "35", "uart_0__rx": "6", "uart_0__tx": "9"},
    "tang-primer-20k": {"clk27": "H11", "uart_0__rx": "T13", "uart_0__tx": "M11"},
    "arty-a7-100t": {"clk100": "E3", "uart_0__rx": "A9", "uart_0__tx": "D10", "rst_0": "C2"},
}
"""Of the makers' schematics."""


def plan_of(board: Board) -> dict[str, str]:
    """Return the files of a board's design with the smallest NPU, by name."""
    return _plan(board.name, board.clock_hz)


@cache
def _plan(name: str, clock_hz: int) -> dict[str, str]:
    return files_of(replace(BOARDS[name], clock_hz=clock_hz))


def files_of(board: Board) -> dict[str, str]:
    """Return the same of a board that is not in the list."""
    from celosia.boards.design import BoardDesign

    config = preset("nano")
    identity = identity_of(board, config, clock_hz=board.clock_hz, memory_bytes=board.memory.bytes)
    plan = board.make_platform().prepare(
        BoardDesign(board, config, identity=identity), "top", emit_src=False
    )
    return {
        name: content if isinstance(content, str) else content.decode()
        for name, content in plan.files.items()
    }


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_design_has_its_pins(name: str) -> None:
    board = BOARDS[name]
    files = plan_of(board)
    design = files.get("top.il") or files["top.v"]
    constraints = next(
        text for file, text in files.items() if file.endswith((".lpf", ".pcf", ".cst", ".xdc"))
    )
    for port, pin in PINS[name].items():
        assert any(
            port in line and re.search(rf"\b{pin}\b", line) for line in constraints.splitlines()
        ), (port, pin)
        assert re.search(rf"(wire|input|output) .*\b{port}", design)
    primitive = {
        "ecp5": "EHXPLLL",
        "ice40": "SB_PLL40_PAD",
        "gowin": "rPLL",
        "xilinx7": "PLLE2_BASE",
    }[board.family]
    assert primitive in design
    for file in FLOWS[board.family].constraints:
        assert file in files


def test_the_sdram_has_registers_at_every_pin() -> None:
    design = plan_of(BOARDS["ulx3s"])["top.il"]

    def cells(kind: str) -> int:
        return len(re.findall(rf"^ *cell \\{kind} ", design, re.M))

    outputs = 1 + 4 + 2 + 13 + 2 + 16  # cke; cs, ras, cas, we; ba; a; dqm; dq
    clock = 1
    assert cells("IFS1P3DX") == 16
    assert cells("ODDRX1F") == clock
    assert cells("OFS1P3DX") == 2 * outputs + clock  # each with its output enable


def test_spram_is_the_memory_of_icebreaker() -> None:
    design = plan_of(BOARDS["icebreaker"])["top.il"]
    assert len(re.findall(r"^ *cell \\SB_SPRAM256KA ", design, re.M)) == 4


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_board_makes_sense(name: str) -> None:
    board = BOARDS[name]
    assert board.name == name
    assert board.config in NAMED_CONFIGS
    assert set(board.others) <= set(PRESETS) - {board.config}
    for other, clock_hz in board.others.items():
        assert board.clock_with(preset(other)) == clock_hz
    assert board.clock_with(resolve_config(board.config)) == board.clock_hz
    assert board.make_platform().default_clk_frequency == board.input_hz
    assert set(FLOWS[board.family].count({})) == set(board.capacity)
    Identity(board=name, clock_hz=board.clock_hz, memory_bytes=board.memory.bytes)
    platform = board.make_platform()
    assert (getattr(platform, "device", "") or platform.part).lower()[:6] == board.device.lower()[
        :6
    ]


def test_memory_answers_as_fast_as_the_board_says() -> None:
    from amaranth.hdl import Fragment
    from celosia.boards.sdram import BoardSdram

    board = BOARDS["ulx3s"]
    for config in NAMED_CONFIGS.values():
        memory = board.memory.make(board, config, board.clock_hz, board.memory.bytes)
        Fragment.get(memory, board.make_platform())  # else Amaranth warns that it was for nothing
        assert isinstance(memory, BoardSdram)
        words = board.memory.port_cycles(config)
        assert memory.latency_cycles == board.memory.first_cycles + words - 1
        assert memory.memory_bytes == board.memory.bytes
        assert words == config.bus_bits // 16


@pytest.mark.parametrize("chip", sorted(SDRAM_CHIPS))
@pytest.mark.parametrize("mhz", [25, 40, 50, 60, 66, 80, 90, 100, 125, 133])
def test_read_data_are_taken_when_they_are_there(mhz: int, chip: str) -> None:
    from celosia.boards.sdram import CLOCK_OUTPUT_NS, RETURN_NS, best_capture

    clock_hz = mhz * 1_000_000
    cas_latency = SDRAM_CHIPS[chip].cas_latency(clock_hz)
    timing = SDRAM_CHIPS[chip].timing
    capture = best_capture(SDRAM_CHIPS[chip], clock_hz)
    # The chip's word is there from tAC after one of its edges until tOH after the next.
    period_ns = 1e3 / mhz
    edge_ns = (capture.phase + cas_latency - 1) * period_ns + CLOCK_OUTPUT_NS
    access_ns, hold_ns = dict(timing.access_ns)[cas_latency], timing.hold_ns
    assert edge_ns + access_ns + RETURN_NS <= capture.cycles * period_ns
    assert capture.cycles * period_ns <= edge_ns + period_ns + hold_ns + RETURN_NS


def test_the_clock_of_the_sdram_is_late_where_an_inverted_one_is_no_good() -> None:
    from celosia.boards.sdram import best_capture

    chip = SDRAM_CHIPS["IS42S16160G-7"]
    assert [best_capture(chip, mhz * 1_000_000).phase for mhz in (30, 50, 80)] == [0.5, 0.75, 0.5]


def test_a_late_clock_is_an_output_of_the_pll() -> None:
    board = replace(BOARDS["ulx3s"], clock_hz=50_000_000)
    design = plan_of(board)["top.il"]
    parameters = dict(re.findall(r"parameter \\(CLKOS\w+) (\S+)", design))
    divider = int(parameters["CLKOS2_DIV"])
    # The memory's clock, and the same a quarter of its period later.
    assert parameters["CLKOS3_DIV"] == parameters["CLKOS2_DIV"]
    eighths = 8 * int(parameters["CLKOS3_CPHASE"]) + int(parameters["CLKOS3_FPHASE"])
    undelayed = 8 * int(parameters["CLKOS2_CPHASE"]) + int(parameters["CLKOS2_FPHASE"])
    assert (eighths - undelayed) / (8 * divider) == 0.25
    assert int(parameters["CLKOS_DIV"]) / divider == (400e6 / 3) / 50e6


def test_a_memory_without_a_clock_of_its_own_has_the_designs() -> None:
    ulx3s = BOARDS["ulx3s"]

    def memory(board: Board, config: NpuConfig, clock_hz: int, memory_bytes: int) -> Any:
        from celosia.boards.sdram import BoardSdram

        return BoardSdram(config, chip=SDRAM_CHIPS["IS42S16160G-7"], clock_hz=clock_hz)

    for clock_hz, late in ((50_000_000, True), (80_000_000, False)):
        one = replace(ulx3s.memory, clock_hz=0, make=memory)
        design = files_of(replace(ulx3s, clock_hz=clock_hz, memory=one))["top.il"]
        parameters = dict(re.findall(r"parameter \\(CLKOS\w+) (\S+)", design))
        assert "CLKOS2_DIV" not in parameters
        assert ("CLKOS3_DIV" in parameters) == late
        if late:
            assert parameters["CLKOS3_DIV"] == parameters["CLKOS_DIV"]


@pytest.mark.parametrize("clock_mhz", [50, 66, 80, 100, 110])
def test_the_memorys_clock_is_never_faster_than_it_may_be(clock_mhz: int) -> None:
    board = BOARDS["ulx3s"]
    pll = board.plan_clocks(clock_mhz * 1_000_000)
    assert abs(pll.output_hz / (clock_mhz * 1_000_000) - 1) < 0.005
    assert 0.8 * board.memory.clock_hz < pll.memory_hz < board.memory.clock_hz + 1


def test_block_ram_gives_a_word_a_cycle() -> None:
    board = BOARDS["orangecrab"]
    assert board.interval_cycles(preset("base"), board.clock_hz) == 1
    assert board.latency_cycles(preset("base"), board.clock_hz) == 3


def test_capacity_is_the_device() -> None:
    device = next(device for device in DEVICES if device.name == "LFE5U-85F")
    assert BOARDS["ulx3s"].capacity["LUT4"] == device.lut4


def test_boards_are_found_in_any_case() -> None:
    assert find_board("ULX3S") is BOARDS["ulx3s"]
    with pytest.raises(CelosiaError, match="ulx4.*ulx3s"):
        find_board("ulx4")


def test_identity_tells_builds_apart() -> None:
    board = BOARDS["ulx3s"]

    def build(**changes: Any) -> int:
        arguments = {"clock_hz": 80_000_000, "memory_bytes": 1024, "config": preset("base")}
        arguments |= changes
        return identity_of(board, arguments.pop("config"), **arguments).build

    assert build() == build()
    numbers = {
        build(),
        build(clock_hz=50_000_000),
        build(memory_bytes=2048),
        build(config=preset("tiny")),
    }
    assert len(numbers) == 4
    assert (
        identity_of(replace(board, name="other"), preset("base"), clock_hz=1, memory_bytes=1).board
        == "other"
    )


def test_revision_is_empty_outside_of_a_checkout(tmp_path: Any) -> None:
    (tmp_path / "__init__.py").write_text("", encoding="utf-8")
    assert revision_of(tmp_path) == ("", False)


def test_a_simulated_board_has_the_clocks_of_its_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each configuration that it is good for, as `celosia build` makes it."""
    from celosia.sim.board import simulated

    seen: dict[str, Any] = {}

    def build(config: NpuConfig, identity: Identity, **given: Any) -> str:
        seen.update(identity=identity, **given)
        return "build"

    def port(built: str, **clocks: int) -> dict[str, int]:
        assert built == "build"
        return clocks

    monkeypatch.setattr(simulated, "build_board", build)
    monkeypatch.setattr(simulated, "UartRtl", port)
    board = find_board("ulx3s")
    for name in board.configs:
        config = resolve_config(name)
        clock_hz = board.clock_with(config)
        memory_hz = board.memory_hz(clock_hz)
        clocks = simulated.simulated_board(board, config)
        assert clocks == {"clock_hz": clock_hz, "memory_hz": memory_hz}
        assert seen["memory_hz"] == memory_hz
        assert seen["identity"].clock_hz == clock_hz
