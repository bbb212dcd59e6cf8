"""The trace-event file: every cycle once in the layers' track, commands one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.profile.profile import Profile, predicted_profile
from celosia.sw.report.bench.bench import Bench
from celosia.sw.report.example import load_digits
from celosia.sw.report.timeline import trace_events

from tests.kit.command_line import run_cli
from tests.kit.divided import divided_model
from tests.kit.tools import needs_simulator

BASE = preset("base")


def check_trace(trace: dict[str, Any], profile: Profile) -> None:
    """Hold a trace against the format, and its slices and counters against the profile."""
    events = trace["traceEvents"]
    assert {event["ph"] for event in events} <= {"M", "X", "C", "i"}
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert list(names.values()) == ["layers", "load", "store", "array", "vector"]
    tracks: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for event in events:
        if event["ph"] == "X":
            assert isinstance(event["ts"], int)
            assert event["dur"] > 0
            tracks[names[event["tid"]]].append(event)
    for slices in tracks.values():
        ordered = sorted(slices, key=lambda event: event["ts"])
        for before, after in zip(ordered, ordered[1:], strict=False):
            assert before["ts"] + before["dur"] <= after["ts"]
    layers = tracks.pop("layers")
    assert sum(event["dur"] for event in layers) == profile.cycles
    assert layers[-1]["ts"] + layers[-1]["dur"] == profile.cycles
    by_layer = {e["args"]["layer"]: e["dur"] for e in layers if "layer" in e["args"]}
    assert by_layer == {view.number: view.cycles for view in profile.layers if view.cycles}
    for name, slices in tracks.items():
        for view in profile.layers:
            busy = sum(e["dur"] for e in slices if e["args"]["layer"] == view.number)
            engines = {engine.name.lower(): n for engine, n in view.engine_cycles.items()}
            assert busy == engines.get(name, 0)
    moved = sum(e["args"]["bytes"] for slices in tracks.values() for e in slices)
    assert moved == sum(view.read_bytes + view.written_bytes for view in profile.layers)
    counters: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "C":
            counters.setdefault(event["name"], []).append(event)
    bus, *shares = counters
    assert sum(e["args"]["value"] for e in counters[bus]) == pytest.approx(moved, abs=1)
    for share in shares:
        assert all(0 <= event["args"]["value"] <= 100.1 for event in counters[share])
    last = counters["utilisation, %"]
    mean = sum(
        event["args"]["value"] * (following["ts"] - event["ts"])
        for event, following in zip(last, last[1:], strict=False)
    )
    assert mean / profile.cycles == pytest.approx(100 * profile.utilisation, abs=0.1)


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_a_run_gives_what_was_measured(tmp_path: Path) -> None:
    model, file = tmp_path / "digits.tflite", tmp_path / "t.json"
    model.write_bytes(load_digits().model)
    result = run_cli("run", model, "--timeline", file)
    assert result.exit_code == 0, result.output
    trace = json.loads(file.read_text(encoding="utf-8"))
    measured = Bench().measure(model, BASE).profile
    assert measured is not None
    assert f"measured, {measured.cycles:,} cycles" in result.output
    check_trace(trace, measured)
    assert trace["otherData"]["source"] == "rtl"
    assert trace["otherData"]["clock"] == "1 us = 1 cycle"


def test_the_emulator_gives_the_prediction(tmp_path: Path) -> None:
    model, file = tmp_path / "digits.tflite", tmp_path / "t.json"
    model.write_bytes(load_digits().model)
    result = run_cli("run", model, "--timeline", file, "--device", "emu")
    assert result.exit_code == 0, result.output
    assert "predicted: 'emu' has no clock" in result.output
    trace = json.loads(file.read_text(encoding="utf-8"))
    check_trace(trace, predicted_profile(compile_model(model, BASE)))
    assert "predicted" in trace["traceEvents"][0]["args"]["name"]
    refused = run_cli("run", model, "--timeline", file, "--device", "uart:/dev/none")
    assert refused.exit_code == 2
    assert "Use --device sim" in refused.stderr


def test_what_the_host_runs_is_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "divided.tflite"
    path.write_bytes(divided_model())
    profile = predicted_profile(compile_model(path, BASE))
    trace = trace_events(profile)
    check_trace(trace, profile)
    marks = [event for event in trace["traceEvents"] if event["ph"] == "i"]
    assert [mark["ts"] for mark in marks] == [profile.segments[0].cycles]
    assert "LOG_SOFTMAX on the host" in marks[0]["name"]
