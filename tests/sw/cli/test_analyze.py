"""``celosia analyze`` and ``fit`` without a board: what a new user reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from celosia.boards.registry import BOARDS
from celosia.hw.contract.config import PRESETS, preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.profile.profile import predicted_cycles
from celosia.sw.program.file import Program
from celosia.sw.report import programs
from celosia.sw.report.columns import Column, bar, table_lines
from celosia.sw.report.example import load_digits
from celosia.sw.report.fit import fit_model
from celosia.sw.report.host import HostTime
from celosia.sw.report.places import fits_everywhere

from tests.kit.command_line import run_cli
from tests.kit.divided import divided_model
from tests.kit.places import benchmark_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.tflite"
    path.write_bytes(load_digits().model)
    return path


def table_of(output: str, title: str) -> list[str]:
    """Return the lines of a part of the output, without its title."""
    lines = output.splitlines()
    first = lines.index(title) + 1
    return lines[first : lines.index("", first) if "" in lines[first:] else None]


def test_all_of_it_is_there_in_80_columns(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    target = tmp_path / "digits.json"
    result = run_cli("analyze", digits, "--json", target)
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    figures = json.loads(target.read_text())
    program = compile_model(digits, preset("base"))
    assert figures["run_cycles"] == figures["cycles"] == predicted_cycles(program)
    assert f"{figures['cycles']:,} cycles" in result.stdout
    rows = table_of(result.stdout, "Operators")[1:]
    assert len(rows) == len(figures["layers"])
    for row, layer in zip(rows, figures["layers"], strict=True):
        words = row.split()
        assert f"{layer['cycles']:,}" in words
        if layer["cycles"]:
            assert f"{layer['share']:.1%}" in words
            assert layer["bound"] in words
        if layer["utilisation"]:
            assert f"{layer['utilisation']:.0%}" in words
    presets = table_of(result.stdout, "Presets")[1:]
    for row, entry, name in zip(presets, figures["presets"], PRESETS, strict=True):
        assert row.split()[:2] == [name, f"{entry['cycles']:,}"]
    boards = table_of(result.stdout, "Boards")
    for entry in figures["boards"]:
        (row,) = [row for row in boards if row.startswith(f"{entry['name']} ")]
        assert row.split()[2] == ("yes" if entry["fits"] else "no")
        assert entry["fits"] == (not entry["lacking"])
    assert [entry["name"] for entry in figures["boards"]] == list(BOARDS)
    expected = fit_model(digits, "ulx3s")
    assert figures["boards"][0]["cycles"] == expected.cycles
    assert figures["boards"][0]["needed_bytes"] == expected.needed_bytes


def test_a_wider_terminal_shows_more(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = run_cli("analyze", digits, "--quick")
    header, first, *_ = table_of(result.stdout, "Operators")
    assert header.split()[-5:] == ["SRAM", "bytes", "bus", "bytes", "how"]
    layer = compile_model(digits, preset("base")).layers[0]
    assert first.endswith(layer.reason)
    assert "Presets" not in result.stdout
    monkeypatch.setenv("COLUMNS", "40")
    narrow = table_of(run_cli("analyze", digits, "--quick").stdout, "Operators")
    assert max(len(line) for line in narrow) <= 50
    assert f"{layer.predicted_cycles:,}" in narrow[1].split()


def test_a_slower_memory_takes_longer(digits: Path, tmp_path: Path) -> None:
    cycles = []
    for latency in (8, 40):
        target = tmp_path / f"{latency}.json"
        run_cli("analyze", digits, "--quick", "--latency", latency, "--json", target)
        cycles.append(json.loads(target.read_text())["cycles"])
    assert cycles[0] < cycles[1]


def test_the_host_has_its_part(tmp_path: Path) -> None:
    model, target = tmp_path / "divided.tflite", tmp_path / "divided.json"
    model.write_bytes(divided_model())
    result = run_cli("analyze", model, "--quick", "--json", target)
    assert result.exit_code == 0, result.output
    figures = json.loads(target.read_text())
    assert [layer["runs_on"] for layer in figures["layers"]] == ["npu", "host", "npu"]
    assert "1 of 3 layers on the host, 2 changes between the two" in result.stdout
    assert "#1 LOG_SOFTMAX runs on the host: " in result.stdout
    refused = run_cli("analyze", model, "--quick", "--host", "refuse")
    assert refused.exit_code == 2


def test_what_is_folded_away_is_of_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the multiplications beside it, also where samples run one after the other."""
    monkeypatch.setenv("COLUMNS", "200")
    model = benchmark_model("vww_96")
    program = compile_model(model, preset("base"), fold=True, batch=3)
    assert program.runs == 3
    assert program.folded_macs
    result = run_cli("analyze", model, "--fold", "--batch", 3, "--quick")
    macs = sum(layer.macs for layer in program.layers)
    work = f"{3 * macs:,} MACs; {3 * program.folded_macs:,} of them folded away"
    assert work in result.stdout


def test_nothing_on_the_npu_is_no_error(tmp_path: Path) -> None:
    b = ModelBuilder()
    x = b.input((1, 16), scale=0.1, zero_point=-3)
    model = tmp_path / "host.tflite"
    model.write_bytes(
        b.finish([b.operator("LOG_SOFTMAX", [x], x.shape, scale=0.0625, zero_point=127)])
    )
    result = run_cli("analyze", model)
    assert result.exit_code == 0, result.output
    assert "all of them on the host" in result.stdout
    assert "the NPU has nothing to do" in result.stdout


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    model, target = tmp_path / "bad.tflite", tmp_path / "bad.json"
    model.write_bytes(b"no model")
    result = run_cli("analyze", model, "--json", target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not target.exists()


def test_fit_without_a_board_is_of_all_boards(digits: Path, tmp_path: Path) -> None:
    target = tmp_path / "fit.json"
    result = run_cli("fit", digits, "--json", target)
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()
    assert header.split()[:3] == ["board", "config", "fits"]
    assert [row.split()[0] for row in rows[: len(BOARDS)]] == list(BOARDS)
    assert [entry["name"] for entry in json.loads(target.read_text())["boards"]] == list(BOARDS)
    assert run_cli("fit", digits, "--clock", 10).exit_code == 2


def test_what_the_host_runs_for_every_board_is_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[Program] = []

    def measure(program: Program) -> list[HostTime]:
        measured.append(program)
        return [HostTime(program.host_segments[0].layers[0], milliseconds=2.5)]

    monkeypatch.setattr(programs, "measure_host", measure)
    model = divided_model()
    _, places = fits_everywhere(lambda config: compile_model(model, config), presets=False)
    assert len({place.fit.config for place in places if place.fit}) > 1
    assert [place.fit.host_milliseconds for place in places if place.fit] == [2.5] * len(BOARDS)
    assert len(measured) == 1


def test_columns_go_by_importance() -> None:
    columns = [
        Column(title="name", cells=["a name", "b"]),
        Column(title="cycles", cells=["1,234,567", "8"], right=True),
        Column(title="bytes", cells=["123,456", "9"], right=True, importance=2),
        Column(
            title="why", cells=["because it is so and not otherwise", ""], wraps=True, importance=1
        ),
    ]
    wide = table_lines(columns, 80)
    assert wide[1] == "a name  1,234,567  123,456  because it is so and not otherwise"
    middle = table_lines(columns, 40)
    assert "bytes" not in middle[0]
    assert middle[1:3] == ["a name  1,234,567  because it is so and", f"{'':19}not otherwise"]
    assert table_lines(columns, 10)[1] == "a name  1,234,567"


@pytest.mark.parametrize(
    ("share", "blocks", "expected"),
    [
        (1.0, True, "████"),
        (0.5, True, "██"),
        (0.28, True, "█▏"),
        (0.0, True, ""),
        (0.5, False, "##"),
    ],
)
def test_bars(share: float, blocks: bool, expected: str) -> None:
    assert bar(share, 4, blocks=blocks) == expected
