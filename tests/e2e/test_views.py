"""What is shown of an inference is what `celosia bench` measures of it, for every model.

Page, timeline, accuracy and, if asked for, energy of a model come from the commands that users
call, and are held against the JSON of `celosia bench`. More models than those of the examples::

    python -m tests.e2e.test_views --models FOLDER --energy
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.sw.accuracy.figures import Kind
from celosia.sw.compiler.build import compile_model
from celosia.sw.program.file import Program
from celosia.sw.reference.interpreter import ReferenceModel
from celosia.sw.report.bench.bench import find_models
from celosia.sw.report.samples import Sample, random_samples

from tests.kit.command_line import run_cli
from tests.kit.pages import embedded
from tests.kit.places import BENCHMARK, benchmark_model
from tests.kit.tools import needs_simulator

CONFIGS = ("base", "large")
SAMPLES = 3
"""Of accuracy; of a model with a state the first alone, which begins with none."""
SEED = 11
ENDS = "end"
"""Operator in bench's JSON of the cycles that no layer has."""


def figures_of(*arguments: object) -> dict[str, Any]:
    """Run a command; return the JSON that it writes to standard output."""
    result = run_cli(*arguments, "--json", "-")
    assert result.exit_code == 0, f"{arguments}: {result.output}"
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def check_page(
    bench: dict[str, Any], model: Path, config: str, folder: Path
) -> list[dict[str, Any]]:
    """Hold the page, its JSON and its commands against bench's figures; return its layers."""
    page, figures = folder / "report.html", folder / "report.json"
    options = ["--config", config, "--device", "sim", "--quick", "--json", figures]
    result = run_cli("report", model, "-o", page, *options)
    assert result.exit_code == 0, result.output
    shown = embedded(page.read_text(encoding="utf-8"))
    assert shown == json.loads(figures.read_text(encoding="utf-8"))
    assert shown["source"] == "rtl"
    for key in ("cycles", "utilisation", "predicted_cycles", "counters", "reasons"):
        assert shown[key] == bench[key], key
    for key in ("op", "name", "cycles", "reasons", "macs", "predicted_cycles"):
        on_npu = [layer[key] for layer in shown["layers"] if layer["runs_on"] == "npu"]
        assert on_npu == [layer[key] for layer in bench["layers"] if layer["op"] != ENDS], key
    commands, points = shown["commands"], shown["roofline"]["points"]
    assert max(commands["end"]) <= shown["cycles"]
    read = sum(layer["read_bytes"] for layer in shown["layers"])
    written = sum(layer["written_bytes"] for layer in shown["layers"])
    assert sum(commands["bytes"]) == read + written
    assert {point["layer"] for point in points} <= {layer["number"] for layer in shown["layers"]}
    act, *others = shown["memories"]
    assert 0 < act["peak_share"] <= 1
    assert all(0 <= memory["peak_share"] <= 1 for memory in others)
    layers: list[dict[str, Any]] = shown["layers"]
    return layers


def check_timeline(
    layers: list[dict[str, Any]], cycles: int, model: Path, config: str, folder: Path
) -> None:
    """Hold the slices of the layers' track against the page's layers."""
    file = folder / "timeline.json"
    result = run_cli("run", model, "--config", config, "--device", "sim", "--timeline", file)
    assert result.exit_code == 0, result.output
    events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    slices = [e for e in events if e["ph"] == "X" and tracks[e["tid"]] == "layers"]
    assert sum(e["dur"] for e in slices) == cycles
    found: Counter[int] = Counter()
    for event in slices:
        if event["name"] != ENDS:
            found[event["args"]["layer"]] += event["dur"]
    assert found == {layer["number"]: layer["cycles"] for layer in layers if layer["cycles"]}


def check_energy(bench: dict[str, Any], model: Path, config: str) -> None:
    """Hold the account's cycles against bench's, and its sums against its parts."""
    energy = figures_of("energy", model, "--config", config, "--random", 1)
    assert energy["cycles"] == bench["cycles"]
    assert energy["macs"] == bench["macs"]
    by_layer = [layer["cycles"] for layer in energy["layers"] if layer["op"] != ENDS]
    assert by_layer == [layer["cycles"] for layer in bench["layers"] if layer["op"] != ENDS]
    for end in ("low_uj", "high_uj"):
        parts = sum(part[end] for part in energy["parts"].values())
        assert parts == pytest.approx(energy["total"][end])
        layers = sum(layer["total"][end] for layer in energy["layers"])
        assert layers == pytest.approx(energy["total"][end])
    assert 0 < energy["chip"]["low_uj"] < energy["chip"]["high_uj"]


def reference_answers(model: Path, program: Program, samples: list[Sample]) -> list[int]:
    """Return the class of each sample by the reference interpreter alone."""
    (out,) = program.outputs
    found = []
    for sample in samples:
        with ReferenceModel(model, interpreter=True) as reference:
            found.append(int(np.argmax(reference.run(sample)[-1].tensors[out.name])))
    return found


def check_accuracy(model: Path, config: str, folder: Path) -> str:
    """Label samples with what the reference answers: all have to be right; return what was said."""
    program = compile_model(model, preset(config))
    samples = random_samples(program, 1 if program.state else SAMPLES, SEED)
    inputs, labels = folder / "inputs.npz", folder / "labels.npy"
    arrays = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    np.savez(inputs, **arrays)  # type: ignore[arg-type]
    several = len(program.outputs) > 1
    answers = [0] * len(samples) if several else reference_answers(model, program, samples)
    np.save(labels, answers)
    options = ["--config", config, "--device", "emu", "--input", inputs, "--labels", labels]
    if several:
        refused = run_cli("run", model, *options)
        assert refused.exit_code == 2
        assert f"the model has {len(program.outputs)} outputs" in refused.stderr
        return f"{len(program.outputs)} outputs"
    accuracy = figures_of("run", model, *options)["accuracy"]
    assert accuracy["samples"] == len(samples)
    if accuracy["kind"] == Kind.CLASSES:
        assert accuracy["right"] == len(samples)
        assert accuracy["top1"] == 1
    return str(accuracy["kind"])


def check_host_only(model: Path, config: str, folder: Path) -> str:
    """Check the page of a model of which the NPU runs nothing, and its accuracy."""
    page = folder / "report.html"
    result = run_cli("report", model, "-o", page, "--config", config, "--quick")
    assert result.exit_code == 0, result.output
    shown = embedded(page.read_text(encoding="utf-8"))
    assert shown["cycles"] == 0
    assert {layer["runs_on"] for layer in shown["layers"]} == {"host"}
    refused = run_cli("bench", "--model", model, "--config", config)
    assert refused.exit_code == 2
    assert "all of it runs on the host" in refused.stderr
    return f"all on the host, accuracy by {check_accuracy(model, config, folder)}"


def check_views(model: Path, config: str, folder: Path, *, energy: bool = False) -> str:
    """Check all that is shown of a model on a machine; return what it was, in words."""
    if not compile_model(model, preset(config)).npu_segments:
        return check_host_only(model, config, folder)
    (bench,) = figures_of("bench", "--model", model, "--config", config)["runs"]
    assert bench["equal"]
    layers = check_page(bench, model, config, folder)
    check_timeline(layers, bench["cycles"], model, config, folder)
    if energy:
        check_energy(bench, model, config)
    kind = check_accuracy(model, config, folder)
    return f"{bench['cycles']:,} cycles, accuracy by {kind}"


@needs_simulator
@pytest.mark.parametrize(
    "config",
    [pytest.param(c, marks=pytest.mark.xdist_group(f"rtl-{c}"), id=c) for c in CONFIGS],
)
@pytest.mark.parametrize("name", ["ad01", "kws", "resnet8", "sww", "vww_96"])
def test_what_is_shown_is_what_bench_measures(name: str, config: str, tmp_path: Path) -> None:
    check_views(benchmark_model(name), config, tmp_path)


def main() -> int:
    """Check every model of a folder at several machines; return the process's exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", type=Path, default=BENCHMARK, help="folder of .tflite files")
    parser.add_argument("--config", action="append", help="default: base and large")
    parser.add_argument("--energy", action="store_true", help="also the account of energy")
    options = parser.parse_args()
    failed = 0
    for config in options.config or CONFIGS:
        for model in find_models(options.models):
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found = check_views(model, config, Path(folder), energy=options.energy)
                except AssertionError as error:
                    failed += 1
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    found = f"NOT EQUAL: line {where.lineno}, {where.line} {str(error)[:2000]}"
            seconds = time.monotonic() - started
            print(f"{model.stem:40} {config:6} {found} ({seconds:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
