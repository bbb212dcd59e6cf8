"""What was measured on a board's RTL is what is foreseen for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celosia.boards.registry import find_board
from celosia.hw.contract.named import resolve_config
from celosia.sw.compiler.build import compile_model
from celosia.sw.docgen.sources import BENCHMARK
from celosia.sw.profile.profile import predicted_cycles
from celosia.sw.report import board_cycles
from celosia.sw.report.fit import board_memory

from tests.kit.places import ROOT

MOST_ERROR = 0.05
RECORD = ROOT / "docs/figures/board_cycles.json"


def recorded() -> dict[tuple[str, bool], dict[str, Any]]:
    entries = json.loads(RECORD.read_text(encoding="utf-8"))
    return {(entry["model"], entry["resident"]): entry for entry in entries}


def test_every_model_was_measured() -> None:
    assert recorded().keys() == {(model, way) for model in BENCHMARK for way in (True, False)}


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("model", BENCHMARK)
def test_a_prediction_for_a_board_is_near_its_rtl(model: str, resident: bool) -> None:
    """Then, and for the program as it is compiled now; the board itself: tests/e2e."""
    entry = recorded()[model, resident]
    assert abs(entry["predicted"] / entry["cycles"] - 1) < MOST_ERROR
    board = find_board(entry["board"])
    config = resolve_config(board.config)
    memory = board_memory(board, config, board.clock_hz)
    path = ROOT / "examples/mlperf_tiny" / f"{model}.tflite"
    program = compile_model(path, config, resident=resident, memory=memory)
    assert abs(predicted_cycles(program, memory) / entry["cycles"] - 1) < MOST_ERROR


def test_weights_that_stay_bring_the_board_near_the_bench() -> None:
    """Within 1.15 of 8 bytes a cycle, for networks whose weights fit; ad01's fit but for 2 KiB."""
    bench = {
        "ad01_int8": 35_983,
        "kws_int8": 46_777,
        "resnet8_int8": 202_249,
        "sww_int8": 15_312,
        "vww_96_int8": 141_743,
    }
    for model, cycles in bench.items():
        assert recorded()[model, True]["cycles"] < 1.15 * cycles


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["none.tflite"], "none.tflite"), (["none.tflite", "--board", "none"], "board none")],
)
def test_what_cannot_be_measured_is_said_at_once(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        board_cycles.main(arguments)
    assert ended.value.code == 1
    assert said in capsys.readouterr().err
