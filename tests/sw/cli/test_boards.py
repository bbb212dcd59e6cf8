"""``celosia boards``, ``fit``, ``build`` and ``program``: figures, refusals and exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.boards import build, program
from celosia.boards.build import TimingError, TooBigError
from celosia.boards.fpga.report import BuildReport, ClockResult
from celosia.boards.registry import BOARDS
from celosia.hw.contract.config import preset
from celosia.hw.contract.named import NAMED_CONFIGS
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.cost.engines import MemoryTiming, predict
from celosia.sw.driver.device import FIRST_ADDRESS
from celosia.sw.driver.layout import Layout
from celosia.sw.report import fit as fit_module
from celosia.sw.report.build import record_report, recorded_reports, report_lines
from celosia.sw.report.fit import board_memory, fit_program, usual_memory
from celosia.sw.report.fpga_results import published_results

from tests.kit.command_line import run_cli
from tests.kit.places import ROOT, benchmark_model
from tests.kit.stateful_models import window_model

REPORT = BuildReport(
    board="ulx3s",
    title="ULX3S-85F",
    device="LFE5U-85F",
    config="base",
    macs=64,
    clock_mhz=80.0,
    memory="SDRAM",
    memory_bytes=32 << 20,
    stage="place and route",
    used={"LUT4": 30_000, "FF": 20_000},
    capacity={"LUT4": 83_640, "FF": 83_640},
    clocks=(ClockResult("clk", 91.5, 80.0),),
    seed=1,
    seconds={"synthesis": 100.0},
    bitstream="ulx3s.bit",
    bitstream_bytes=1234,
)


def words_of(text: str) -> str:
    return " ".join(text.split())


def dense_model(path: Path, *, units: int, depth: int) -> Path:
    """Write a model that is one matrix."""
    rng = np.random.default_rng(3)
    builder = ModelBuilder()
    x = builder.input((1, depth), scale=0.05, zero_point=-3)
    weights = rng.integers(-127, 128, (units, depth)).astype(np.int8)
    builder.fully_connected(x, weights, w_scales=0.01, scale=0.2)
    path.write_bytes(builder.finish())
    return path


@pytest.mark.parametrize("command", ["boards", "fit", "build", "program"])
def test_help_has_examples(command: str) -> None:
    result = run_cli(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"celosia {command}" in result.output


def test_boards_are_listed(tmp_path: Path) -> None:
    target = tmp_path / "boards.json"
    result = run_cli("boards", "--json", str(target))
    assert result.exit_code == 0
    listed = json.loads(target.read_text(encoding="utf-8"))["boards"]
    assert [board["name"] for board in listed] == list(BOARDS)
    for name in BOARDS:
        assert name in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "ulx4"], ["ulx4", "no such board", "ulx3s"]),
        (["build", "ulx3s", "--config", "huge"], ["huge", "nano"]),
        (["build", "ulx3s", "--memory", "64"], ["SDRAM", "32768 KiB"]),
        (["build", "ulx3s", "--clock", "900"], ["900 MHz", "25 MHz"]),
        (["build", "ulx3s", "--json", "no/r.json"], ["no/r.json", "no folder no"]),
        (["build", "ulx3s", "--record", "no/r.json"], ["no/r.json", "no folder no"]),
        (["program", "ulx3s"], ["ulx3s.bit", "celosia build ulx3s"]),
        (["fit", "none.tflite", "--board", "ulx3s"], ["none.tflite"]),
        (["fit", "none.tflite", "--board", "ulx4"], ["ulx4", "no such board"]),
    ],
)
def test_bad_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    pytest.importorskip("amaranth_boards")
    monkeypatch.chdir(tmp_path)
    result = run_cli(*arguments)
    assert result.exit_code == 2
    message = words_of(result.stderr)
    for word in words:
        assert word in message
    assert not list(tmp_path.iterdir())


def test_a_model_that_fits(tmp_path: Path) -> None:
    model = dense_model(tmp_path / "small.tflite", units=40, depth=64)
    target = tmp_path / "fit.json"
    result = run_cli("fit", str(model), "--board", "ULX3S", "--json", str(target))
    assert result.exit_code == 0, result.output
    assert "fits" in result.output
    assert "What helps" not in result.output
    figures = json.loads(target.read_text(encoding="utf-8"))
    # 64 bits through a port of 16 at 133.3 MHz: a word every 2.4 cycles but for refreshes and new
    # rows, the first one after 6 and five for the way from one clock to the other and back.
    timing = MemoryTiming(latency_cycles=11, interval_cycles=pytest.approx(2.4 / 0.97))
    assert board_memory(BOARDS["ulx3s"], NAMED_CONFIGS["ulx3s"], 80_000_000) == timing
    memory = usual_memory(NAMED_CONFIGS["ulx3s"])
    program = compile_model(model, NAMED_CONFIGS["ulx3s"], memory=memory)
    layout = Layout.of(program.npu, first=FIRST_ADDRESS, memory_bytes=1 << 30)
    assert figures["needed_bytes"] == layout.end
    assert figures["region_bytes"]["const"] == len(program.npu.constants)
    cycles = predict(program.npu.decode()[:-1], program.config, memory=memory).cycles
    assert figures["cycles"] == cycles
    assert figures["milliseconds"] == pytest.approx(cycles / 80e3)
    assert f"{cycles:,} cycles" in result.output
    assert figures["staying_bytes"] == program.npu.staying_bytes > 0
    assert f"{program.npu.staying_bytes:,} bytes stay on chip" in result.output
    slower = tmp_path / "slower.json"
    assert run_cli("fit", str(model), "--board", "ulx3s", "--clock", "40", "--json", str(slower))
    found = json.loads(slower.read_text(encoding="utf-8"))
    # Half the clock, and a memory that is as fast as before: fewer cycles.
    assert found["memory"]["interval_cycles"] == pytest.approx(1.2 / 0.97)
    assert found["milliseconds"] < 2 * figures["milliseconds"]


def test_weights_stay_unless_that_is_not_wanted(tmp_path: Path) -> None:
    model = dense_model(tmp_path / "m.tflite", units=200, depth=256)
    files = [tmp_path / name for name in ("stays.json", "asked.json", "not.json")]
    for target, option in zip(files, ([], ["--resident"], ["--no-resident"]), strict=True):
        arguments = ["fit", str(model), "--board", "ulx3s", *option, "--json", str(target)]
        assert run_cli(*arguments).exit_code == 0
    stays, asked, loaded = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    assert stays == asked
    assert stays["staying_bytes"] == 200 * 256
    assert loaded["staying_bytes"] == 0
    assert stays["cycles"] < 0.7 * loaded["cycles"]
    compiled = tmp_path / "m.celosia"
    result = run_cli("compile", str(model), "--config", "ulx3s", "-o", str(compiled))
    assert f"{200 * 256:,} bytes of weights stay on chip" in result.output
    listing = run_cli("disasm", str(compiled)).output.splitlines()
    assert [line.split()[2] for line in listing if line.startswith("once:")] == ["LOAD", "DISPATCH"]
    other = tmp_path / "other.json"
    assert run_cli("fit", str(model), "--board", "arty-a7-100t", "--json", str(other))
    assert json.loads(other.read_text(encoding="utf-8"))["staying_bytes"] == 0


def test_memory_is_what_a_device_would_take(tmp_path: Path) -> None:
    """The emulator takes a program with so much memory, and refuses it with a word less."""
    from celosia.errors import DeviceError
    from celosia.sw.driver.opening import open_device

    program = compile_model(dense_model(tmp_path / "m.tflite", units=24, depth=32), preset("tiny"))
    fit = fit_program(program, memory_bytes=0, clock_hz=1, memory=MemoryTiming())
    with open_device("emu", program.config, memory_bytes=fit.needed_bytes) as device:
        device.load(program.npu)
    with (
        open_device("emu", program.config, memory_bytes=fit.needed_bytes - 4) as device,
        pytest.raises(DeviceError, match=str(fit.needed_bytes)),
    ):
        device.load(program.npu)


def test_the_line_carries_an_inference_without_what_stays_on_the_board(tmp_path: Path) -> None:
    def link_bytes(model: Path | bytes, batch: int = 1) -> int:
        program = compile_model(model, preset("tiny"), batch=batch)
        return fit_program(
            program, memory_bytes=1 << 20, clock_hz=1, memory=MemoryTiming()
        ).link_bytes

    dense = dense_model(tmp_path / "m.tflite", units=24, depth=32)
    assert [link_bytes(dense, batch) for batch in (1, 4, 8)] == [56, 56, 56]
    program = compile_model(window_model(), preset("tiny"))
    assert program.persistent
    ends = sum(info.size_bytes for info in (*program.inputs, *program.outputs))
    assert link_bytes(window_model()) == ends


def test_the_host_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many other boards the model is held against."""
    pytest.importorskip("amaranth_boards")
    measured = []
    monkeypatch.setattr(fit_module, "measure_host", lambda program: measured.append(program) or [])
    model = dense_model(tmp_path / "large.tflite", units=2048, depth=2048)
    result = run_cli("fit", str(model), "--board", "orangecrab", "--memory", "16")
    assert "another board: ulx3s" in words_of(result.output)
    assert len(measured) == 1


def test_a_model_that_does_not_fit(tmp_path: Path) -> None:
    model = dense_model(tmp_path / "large.tflite", units=900, depth=400)
    target = tmp_path / "fit.json"
    result = run_cli("fit", str(model), "--board", "orangecrab", "--json", str(target))
    assert result.exit_code == 1
    text = words_of(result.output)
    figures = json.loads(target.read_text(encoding="utf-8"))
    assert figures["boards_that_fit"] == ["ulx3s"]
    needed_kib = -(-figures["needed_bytes"] // 1024)
    for words in (
        "does not fit",
        "another board: ulx3s has 32,768 KiB of SDRAM",
        f"--memory {needed_kib}",
        "most of it is in const",
        "FULLY_CONNECTED",
    ):
        assert words in text
    again = run_cli("fit", str(model), "--board", "orangecrab", "--memory", str(needed_kib))
    assert again.exit_code == 0


def test_an_npu_that_does_not_fit(tmp_path: Path) -> None:
    model = dense_model(tmp_path / "small.tflite", units=8, depth=16)
    result = run_cli("fit", str(model), "--board", "icebreaker", "--config", "tiny")
    assert result.exit_code == 1
    text = words_of(result.output)
    # 64 of the array, 4 for each of two lanes; softmax uses the first one's.
    assert "multipliers: 72 of 8" in text
    assert "a smaller configuration: tiny takes 72 multipliers, iCE40UP5K has 8" in text
    assert "another board: ulx3s" in text
    assert "a smaller model" not in text


@pytest.mark.parametrize("name", ["ad01", "kws", "resnet8", "sww", "vww_96"])
def test_every_benchmark_fits_the_ulx3s(name: str) -> None:
    result = run_cli("fit", benchmark_model(name), "--board", "ulx3s")
    assert result.exit_code == 0
    assert "fits" in result.output


def _build(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    def built(request: Any, **options: Any) -> BuildReport:
        if isinstance(outcome, Exception):
            raise outcome
        report: BuildReport = outcome
        return report

    monkeypatch.setattr(build, "build_board", built)


def test_build_prints_figures_and_records_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _build(monkeypatch, REPORT)
    record, target = tmp_path / "boards.json", tmp_path / "ulx3s.json"
    record_report(record, replace(REPORT, board="icebreaker"))
    result = run_cli("build", "ulx3s", "--record", str(record), "--json", str(target))
    assert result.exit_code == 0, result.output
    for words in ("30,000", "83,640", "36%", "91.5 MHz possible", "ulx3s.bit: 1,234 bytes"):
        assert words in words_of(result.output)
    recorded = recorded_reports(record)
    assert recorded == {"ulx3s": REPORT, "icebreaker": replace(REPORT, board="icebreaker")}
    assert "91.5 MHz possible, 80 MHz asked for, met" in "\n".join(report_lines(recorded["ulx3s"]))
    assert json.loads(target.read_text(encoding="utf-8"))["fmax_mhz"] == 91.5


@pytest.mark.parametrize(
    ("kind", "report", "words"),
    [
        (
            TooBigError,
            replace(REPORT, stage="synthesis", used={"LUT4": 90_000, "FF": 1}, clocks=()),
            ["at least 90,000", "does not fit: LUT4"],
        ),
        (
            TimingError,
            replace(REPORT, clocks=(ClockResult("clk", 50.25, 80.0),)),
            ["50.2 MHz possible", "MISSED"],
        ),
    ],
)
def test_build_that_fails_still_shows_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, report: BuildReport, words: Any
) -> None:
    _build(monkeypatch, kind("base on ULX3S", "the cause", "the remedy", report=report))
    record = tmp_path / "boards.json"
    result = run_cli("build", "ulx3s", "--record", str(record))
    assert result.exit_code == 2
    assert "the cause" in result.stderr
    assert "The remedy" in result.stderr
    for word in words:
        assert word in words_of(result.stdout)
    assert recorded_reports(record)["ulx3s"] == report


def test_a_build_with_another_preset_is_recorded_beside_the_boards_own(tmp_path: Path) -> None:
    record = tmp_path / "boards.json"
    wide = replace(REPORT, config="wide", macs=256)
    for report in (REPORT, wide, replace(REPORT, config="mine", seed=7)):
        record_report(record, report)
    # A configuration that the board is not known for takes the place of its own.
    assert recorded_reports(record) == {
        "ulx3s": replace(REPORT, config="mine", seed=7),
        "ulx3s wide": wide,
    }


def test_program_shows_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def programmed(board: Any, bitstream: Path, *, flash: bool) -> str:
        asked.extend([board.name, bitstream, flash])
        return "Loading: 100%"

    monkeypatch.setattr(program, "program_board", programmed)
    result = run_cli("program", "ulx3s", "--flash", "--output", str(tmp_path))
    assert result.exit_code == 0
    assert "Loading: 100%" in result.output
    assert asked == ["ulx3s", tmp_path / "ulx3s" / "ulx3s.bit", True]


def test_document_has_a_place_for_every_board() -> None:
    from celosia.sw.docgen.marks import marks_of

    names = marks_of((ROOT / "docs/boards.md").read_text(encoding="utf-8"))
    assert {f"board {name}" for name in BOARDS} <= set(names)


def test_several_models_make_a_table(tmp_path: Path) -> None:
    """Models of the benchmark come with what others have measured of the same task."""
    small = dense_model(tmp_path / "kws_int8.tflite", units=40, depth=64)
    other = dense_model(tmp_path / "other.tflite", units=24, depth=32)
    target = tmp_path / "fits.json"
    result = run_cli(
        *("fit", str(small), str(other), "--board", "ulx3s", "--clock", "40"),
        *("--json", str(target)),
    )
    assert result.exit_code == 0, result.output
    fits = json.loads(target.read_text(encoding="utf-8"))["fits"]
    assert [fit["model"] for fit in fits] == ["kws_int8", "other"]
    rows = [f"{line} " for line in result.output.splitlines()]
    for fit in fits:
        (row,) = (row for row in rows if f" {fit['model']} " in row)
        assert "predicted at 40 MHz" in row
        assert f"{fit['milliseconds']:.3g} " in row
    # Of the task of kws_int8 six results are known; of the other model none.
    first = next(index for index, row in enumerate(rows) if " kws_int8 " in row)
    last = next(index for index, row in enumerate(rows) if " other " in row)
    assert last - first == 1 + 6
    # 1 / 30151.77 Hz, and 9.8 M cycles at 100 MHz.
    assert any("Arty A7-100T" in row and " 0.0332 " in row for row in rows)
    assert any("CFU Playground" in row and " 98 " in row for row in rows)
    assert last + 1 == len(rows)


def test_a_table_says_what_does_not_fit(tmp_path: Path) -> None:
    small = dense_model(tmp_path / "small.tflite", units=40, depth=64)
    large = dense_model(tmp_path / "large.tflite", units=900, depth=400)
    result = run_cli("fit", str(small), str(large), "--board", "orangecrab")
    assert result.exit_code == 1
    (row,) = (row for row in result.output.splitlines() if "DOES NOT FIT" in row)
    assert "large" in row


def test_published_results_name_their_source() -> None:
    results = published_results()
    known = resources.files("celosia.sw.report.bench") / "baselines.json"
    models = json.loads(known.read_text(encoding="utf-8"))["models"]
    assert {result.model for result in results} <= set(models)
    for result in results:
        assert result.url.startswith("https://")
        assert result.source
        assert 0.001 < result.milliseconds < 1000
        assert result.same_model or result.quality
