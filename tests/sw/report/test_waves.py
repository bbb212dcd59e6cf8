"""Which waveform is asked for: what is refused before anything is simulated."""

from __future__ import annotations

from pathlib import Path

import pytest
from celosia.errors import CelosiaError
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.program.file import Program
from celosia.sw.report import waves

from tests.kit.command_line import run_cli

MODEL = Path(__file__).resolve().parents[3] / "examples/digits/digits_int8.tflite"


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_model(MODEL, preset("tiny"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trace", "x.vcd", "--device", "emu"), ("'emu'", "no waveform", "'sim'")),
        (("--trace", "x.vcd", "--device", "uart:/dev/none"), ("no waveform", "'sim'")),
        (("--trace", "x.vcd", "--device", "netlist"), ("no waveform", "'sim'")),
        (("--from", "3"), ("--from", "--trace")),
        (("--to", "3"), ("--to", "--trace")),
        (("--trace", "x.lxt"), ("x.lxt", ".fst and .vcd", "x.fst")),
        (("--trace", "none/x.fst"), ("none/x.fst", "there is no folder none")),
        (
            ("--trace", "x.vcd", "--from", "7", "--to", "2"),
            ("#7 CONV_2D comes after layer #2 CONV_2D",),
        ),
        (("--trace", "x.vcd", "--from", "11"), ("--from 11", "'#10 SOFTMAX'", "'#9 FULLY")),
        (("--trace", "x.vcd", "--to", "softmx"), ("--to softmx", "'#10 SOFTMAX'")),
        (("--trace", "x.vcd", "--to", "CONV_2D"), ("there are", "#0 CONV_2D", "#7 CONV_2D")),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: tuple[str, ...],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_cli("run", MODEL, "--config", "tiny", *options)
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert all(word in text for word in words), text
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_layers_are_found_by_number_name_and_result(program: Program) -> None:
    layers = program.npu_segments[0].layers
    pool = [place for place, layer in enumerate(layers) if layer.op == "AVERAGE_POOL_2D"]
    for name in ("8", "#8", "#8 AVERAGE_POOL_2D", "AVERAGE_POOL_2D", "digits_1/pool_1/AvgPool"):
        assert waves.find_layer(layers, name) == pool


def test_a_file_that_would_be_too_large_is_refused(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.vcd"
    size = waves.plan_waveform(program, path).expected_bytes
    part = waves.plan_waveform(program, path, "3", "3").expected_bytes
    assert 0 < part < size / 2
    monkeypatch.setattr(waves, "MOST_BYTES", size - 1)
    with pytest.raises(CelosiaError, match=r"GB, the limit is .* --from and --to, or write x\.fst"):
        waves.plan_waveform(program, path)
    waves.plan_waveform(program, path.with_suffix(".fst"))
