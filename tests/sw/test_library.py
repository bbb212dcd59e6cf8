"""What can be done without the command line: the functions of `celosia` itself."""

from __future__ import annotations

import json
from pathlib import Path

import celosia
import pytest
from celosia.sw.report.example import load_digits

from tests.kit.tools import needs_simulator

SMALL = {"act_bytes": 32768, "acc_depth": 128}


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "digits.tflite"
    path.write_bytes(load_digits().model)
    return path


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SMALL), encoding="utf-8")
    return path


def test_a_configuration_from_json(digits: Path, config_file: Path) -> None:
    program = celosia.compile(digits, config_file)
    assert program.config == celosia.NpuConfig(name="mine", **SMALL)
    assert celosia.compile(digits, str(config_file)).config == program.config
    with celosia.open("emu", config_file) as device:
        assert device.run(program, load_digits().inputs[:1]).outputs
    config_file.write_text('{"rows": "many"}', encoding="utf-8")
    with pytest.raises(celosia.ConfigError, match="rows must be a whole number"):
        celosia.compile(digits, config_file)
    with pytest.raises(celosia.ConfigError, match="no such preset.*large, ulx3s, or"):
        celosia.compile(digits, "nosuch")


def test_check(digits: Path) -> None:
    report = celosia.check(digits, "tiny", count=2, seed=3)
    assert report.equal
    assert len(report.results) == 2
    assert report.tensors > 1


def test_fit(digits: Path) -> None:
    pytest.importorskip("amaranth_boards")
    fit = celosia.fit(digits, "ulx3s")
    assert fit.fits
    assert celosia.fit(digits, "ulx3s", clock_mhz=40).milliseconds > fit.milliseconds
    assert celosia.fit(digits, "ulx3s", "large").config == "large"
    with pytest.raises(celosia.CelosiaError, match="no such board"):
        celosia.fit(digits, "nosuch")


def test_build_refuses_what_there_is_not(tmp_path: Path) -> None:
    pytest.importorskip("amaranth_boards")
    with pytest.raises(celosia.CelosiaError, match="no such board"):
        celosia.build("nosuch", folder=tmp_path)
    with pytest.raises(celosia.CelosiaError, match="has one size"):
        celosia.build("ulx3s", memory_kib=64, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
def test_bench(digits: Path) -> None:
    measured = celosia.bench(digits, "tiny")
    assert measured.equal
    assert measured.cycles == sum(layer.cycles for layer in measured.layers)
    assert celosia.bench(digits, "tiny", latency_cycles=40).cycles > measured.cycles
