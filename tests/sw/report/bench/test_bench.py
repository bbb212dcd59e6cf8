"""Measurements: every cycle has its layer and reason, and a wrong result is never passed over."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Command, Conv, End, Engine, Load, Space, Vector, VectorOp
from celosia.hw.contract.regs import COUNTERS
from celosia.hw.contract.trace import TRACE_STATES
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sim.rtl.rtl import SAMPLE_DTYPE
from celosia.sw.cli.app import app
from celosia.sw.compiler import build
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite import convert
from celosia.sw.docgen.text import table_text
from celosia.sw.profile.attribute import (
    LayerProfile,
    Reason,
    attribute_cycles,
    command_layers,
)
from celosia.sw.program.file import Program
from celosia.sw.program.segments import LayerInfo, NpuSegment
from celosia.sw.reference.interpreter import ReferenceModel
from celosia.sw.report.bench import bench as bench_module
from celosia.sw.report.bench import vela
from celosia.sw.report.bench.baselines import Baseline, baseline_of, sources
from celosia.sw.report.bench.bench import Bench, Conditions, Measurement
from celosia.sw.report.bench.record import CycleRecord, preset_name, read_record, write_record
from celosia.sw.report.bench.roofline import roofline_cycles
from celosia.sw.report.bench.tables import (
    fit_columns,
    layer_table,
    main_table,
    operator_table,
    reason_table,
    sweep_table,
)
from celosia.sw.report.example import load_digits
from celosia.sw.report.samples import random_samples
from rich.console import Console
from typer.testing import CliRunner

from tests.kit.places import ROOT, SHARED, benchmark_model
from tests.kit.tools import needs_simulator, skip_without_simulator

MLPERF_TINY = ("ad01", "kws", "resnet8", "sww", "vww_96")
on_rtl = pytest.mark.xdist_group("rtl-base")
BASE = preset("base")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.tflite"
    path.write_bytes(load_digits().model)
    return path


# Layers of commands ---------------------------------------------------------------------------


def assert_layers_are_the_compilers(
    path: Path, config: NpuConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[Sequence[int]] = []
    original = build.emit_program

    def spy(
        graph: Any, plan: Any, schedule: Any, commands: Any, layers: Any, *rest: Any, **named: Any
    ) -> Program:
        emitted.append(layers)
        return original(graph, plan, schedule, commands, layers, *rest, **named)

    monkeypatch.setattr(build, "emit_program", spy)
    program = compile_model(path, config)
    assert command_layers(program.npu).tolist() == list(emitted[-1])


@pytest.mark.parametrize("config", ["nano", "base", "large"])
def test_layers_of_commands_are_those_of_the_compiler(
    model: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_layers_are_the_compilers(model, preset(config), monkeypatch)


@pytest.mark.parametrize("name", MLPERF_TINY)
def test_layers_of_commands_in_mlperf_tiny(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fused additions, poolings between the parts of a convolution, and stripes."""
    for config in ("nano", "base"):
        assert_layers_are_the_compilers(benchmark_model(name), preset(config), monkeypatch)


# Attribution ----------------------------------------------------------------------------------


def two_layers() -> Program:
    """Return a program of two layers; the second one's array command waits for two engines."""

    def tokens(*engines: Engine) -> int:
        return sum(1 << engine for engine in engines)

    commands: list[Command] = [
        Load(space=int(Space.WGT), row_bytes=64, signal=tokens(Engine.ARRAY), tag=0),
        Conv(wait=tokens(Engine.LOAD), tag=1),
        Vector(op=int(VectorOp.REQUANT), signal=tokens(Engine.ARRAY), tag=2),
        Load(space=int(Space.WGT), row_bytes=64, signal=tokens(Engine.ARRAY), tag=3),
        Conv(wait=tokens(Engine.LOAD, Engine.VECTOR), tag=4),
        Vector(op=int(VectorOp.REQUANT), tag=5),
        End(tag=6),
    ]
    segment = NpuSegment(
        commands=b"".join(command.encode() for command in commands),
        layers=(
            LayerInfo(name="a", op="CONV_2D", first_tag=0, last_tag=2, macs=10),
            LayerInfo(name="b", op="CONV_2D", first_tag=3, last_tag=5, macs=10),
        ),
        command_layers=(0, 0, 0, 1, 1, 1, -1),
    )
    return Program.of(segment, BASE)


def sampled(*runs: tuple[int, dict[Engine, int], set[str]]) -> Any:
    """Return samples; a run is its cycles, the tags of the active engines, and states."""
    samples = np.zeros(len(runs), SAMPLE_DTYPE)
    for sample, (cycles, tags, states) in zip(samples, runs, strict=True):
        names = states | {f"{engine.name.lower()}_active" for engine in tags}
        sample["cycles"] = cycles
        sample["state"] = sum(1 << TRACE_STATES.index(name) for name in names)
        for engine, tag in tags.items():
            sample["tags"][engine] = tag
    return samples


def test_every_cycle_goes_to_the_right_layer_and_reason() -> None:
    load, array, vector = Engine.LOAD, Engine.ARRAY, Engine.VECTOR
    samples = sampled(
        (3, {}, set()),  # idle
        (5, {load: 0}, {"load_busy"}),  # dma
        (7, {load: 0, array: 1}, {"load_busy"}),  # the array waits for that load: weights_bus
        (2, {array: 1, vector: 2}, {"array_busy", "vector_busy"}),  # start
        (11, {array: 1}, {"array_busy", "array_wait_weights"}),  # weights
        (30, {array: 1, vector: 2}, {"array_busy", "array_stream", "vector_busy"}),  # array
        (4, {array: 1, load: 3}, {"array_busy", "array_wait_acc", "load_busy"}),  # accumulators
        (6, {array: 4, vector: 2, load: 3}, {"vector_busy", "load_busy"}),
        (9, {array: 4, vector: 2}, {"vector_busy"}),  # the vector engine's token comes last:
        # so all 15 of these are activations, of layer a: it is not complete yet
        (1, {array: 4}, set()),  # tokens taken: still what it waited for, but of layer b
        (20, {array: 4}, {"array_busy", "array_stream"}),
        (8, {vector: 5}, {"vector_busy"}),  # vector
        (2, {}, set()),  # the program's end, and one cycle until the interrupt
    )
    total = int(samples["cycles"].sum()) - 1 + 2  # two cycles before the first sample
    first, second, end = attribute_cycles(two_layers().npu, samples, total)
    assert {why: count for why, count in first.reasons.items() if count} == {
        Reason.IDLE: 3 + 2,
        Reason.DMA: 5,
        Reason.WEIGHTS_BUS: 7,
        Reason.START: 2,
        Reason.WEIGHTS: 11,
        Reason.ARRAY: 30,
        Reason.ACCUMULATORS: 4,
        Reason.ACTIVATIONS: 6 + 9,
    }
    assert {why: count for why, count in second.reasons.items() if count} == {
        Reason.ACTIVATIONS: 1,
        Reason.ARRAY: 20,
        Reason.VECTOR: 8,
    }
    assert end.layer is None
    assert end.reasons[Reason.IDLE] == end.cycles == 1
    assert first.cycles + second.cycles + end.cycles == total


def test_the_last_token_is_the_one_that_is_waited_for() -> None:
    """As above, but it is the load that comes last."""
    samples = sampled(
        (5, {Engine.LOAD: 0}, {"load_busy"}),
        (9, {Engine.ARRAY: 1, Engine.VECTOR: 2}, {"array_busy", "array_stream", "vector_busy"}),
        (3, {Engine.ARRAY: 4, Engine.VECTOR: 2, Engine.LOAD: 3}, {"vector_busy", "load_busy"}),
        (4, {Engine.ARRAY: 4, Engine.LOAD: 3}, {"load_busy"}),
        (6, {Engine.ARRAY: 4, Engine.VECTOR: 5}, {"array_busy", "array_stream", "vector_busy"}),
        (2, {}, set()),
    )
    first, second, _ = attribute_cycles(two_layers().npu, samples, int(samples["cycles"].sum()))
    assert first.reasons[Reason.WEIGHTS_BUS] == 3
    assert second.reasons[Reason.WEIGHTS_BUS] == 4
    assert first.reasons[Reason.ACTIVATIONS] == second.reasons[Reason.ACTIVATIONS] == 0


# On the RTL -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(seed=3)


@pytest.fixture(scope="module")
def measured(bench: Bench, model: Path) -> Measurement:
    skip_without_simulator()
    return bench.measure(model, BASE)


@on_rtl
def test_layers_add_up_and_agree_with_the_counters(measured: Measurement) -> None:
    assert measured.equal
    assert measured.cycles == measured.counters["total"] > 0
    assert sum(layer.cycles for layer in measured.layers) == measured.cycles
    assert all(sum(entry.reasons.values()) == entry.cycles for entry in measured.layers)
    assert all(count >= 0 for entry in measured.layers for count in entry.reasons.values())
    # Counted by the hardware on its own, one counter each.
    assert measured.reasons[Reason.ARRAY] == measured.counters["array_busy"]
    assert measured.reasons[Reason.WEIGHTS] == measured.counters["array_wait_weights"]
    assert measured.reasons[Reason.ACCUMULATORS] == measured.counters["array_wait_acc"]
    # No layer can take less than its multiplications.
    for entry in measured.layers:
        if entry.layer is not None:
            assert entry.cycles * BASE.macs_per_cycle >= entry.layer.macs


@on_rtl
def test_profiling_changes_nothing(bench: Bench, model: Path, measured: Measurement) -> None:
    from celosia.sw.driver.sim import SimDevice

    program = bench.program(model, BASE)
    with SimDevice(BASE, memory_bytes=1 << 20) as device:
        result = device.run(program, random_samples(program, 1, 3)[0])
    assert device.samples is None
    assert result.cycles == measured.cycles
    assert {name: result.counters[name] for name, _ in COUNTERS} == dict(measured.counters)


@on_rtl
def test_slow_memories_cost_cycles_and_change_no_result(
    bench: Bench, model: Path, measured: Measurement
) -> None:
    slow = bench.measure(model, BASE, Conditions(latency_cycles=100))
    stalled = bench.measure(model, BASE, Conditions(stall_probability=0.4))
    for run in (slow, stalled):
        assert run.equal
        assert run.cycles > measured.cycles
        assert (run.words_read, run.words_written) == (measured.words_read, measured.words_written)
        assert sum(layer.cycles for layer in run.layers) == run.cycles


@on_rtl
def test_resident_weights_are_not_read_again(bench: Bench, measured: Measurement) -> None:
    small = benchmark_model("kws")
    cold, resident = bench.measure(small, BASE), bench.measure(small, BASE, resident=True)
    assert resident.equal
    # The array, not the bus, is what this model takes time on; commands come a little earlier, and
    # take their turns with other loads.
    assert resident.cycles < 1.005 * cold.cycles
    saved = (cold.words_read - resident.words_read) * BASE.bus_bytes
    weights = 22_016  # bytes, from the model's tensors
    assert saved > weights
    assert sum(layer.cycles for layer in resident.layers) == resident.cycles


@on_rtl
def test_removed_channels_are_not_counted(bench: Bench) -> None:
    path = benchmark_model("vww_96")
    plain, folded = bench.measure(path, BASE), bench.measure(path, BASE, fold=True)
    assert folded.equal
    assert folded.macs < plain.macs
    assert folded.cycles < plain.cycles
    assert folded.utilisation < 1


@on_rtl
def test_figures_are_json(measured: Measurement) -> None:
    figures = json.loads(json.dumps(measured.figures()))
    assert figures["cycles"] == sum(layer["cycles"] for layer in figures["layers"])
    assert figures["bus_bytes_read"] == 8 * figures["bus_words_read"] > 0
    assert figures["utilisation"] == pytest.approx(
        figures["macs"] / (figures["cycles"] * figures["config_fields"]["rows"] ** 2)
    )
    assert [layer["op"] for layer in figures["layers"]][-1] == "end"


@on_rtl
def test_tables_hold_the_figures(measured: Measurement) -> None:
    text = "\n".join(
        table_text(table)
        for table in (
            main_table([measured]),
            reason_table([measured]),
            operator_table([measured]),
            layer_table(measured),
            sweep_table(
                "t", ["x", "y"], [("digits", "base", {"x": measured, "y": "not possible"})]
            ),
        )
    )
    assert text.count(f"{measured.cycles:,}") == 4
    for entry in measured.layers:
        assert f"{entry.cycles:,}" in text
    assert "not possible" in text
    assert "NO" not in text
    assert "NO" in table_text(main_table([replace(measured, equal=False)]))


class WrongReference(ReferenceModel):
    """A golden model with one wrong element in each tensor."""

    def run(self, inputs: Any) -> Any:
        results = super().run(inputs)
        for tensor in results[0].tensors.values():
            tensor.reshape(-1)[0] ^= 1
        return results


@needs_simulator
@on_rtl
def test_the_command_succeeds_only_if_results_are_equal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, kept = tmp_path / "bench.json", tmp_path / "cycles.json"
    arguments = ["bench", "--model", str(model), "--config", "base", "--latency", "8,20"]
    arguments += ["--resident", "--fold", "--layers", "--stalls", "0.3"]
    arguments += ["--bus", "128", "--record", str(kept), "--json", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["equal"] is True
    plain = {"latency_cycles": 8, "stall_probability": 0.0, "resident": False, "fold": False}
    assert [run["conditions"] for run in content["runs"]] == [
        plain,
        plain | {"resident": True},
        plain | {"fold": True},
        plain | {"latency_cycles": 20},
        plain | {"stall_probability": 0.3},
    ]
    assert content["impossible"][0]["bus_bits"] == 128
    cycles = f"{content['runs'][0]['cycles']:,}"
    assert cycles in result.output
    record = read_record(kept)
    assert len(record.entries) == 5 + 1
    assert f"{record.cycles(model.stem, 'base'):,}" == cycles
    changed = record.find(model.stem, "base", latency_cycles=20)
    assert isinstance(changed, Measurement)
    assert changed.cycles == content["runs"][3]["cycles"]
    assert record.find(model.stem, "base", bus_bits=128) == content["impossible"][0]["reason"]
    plain_run = record.find(model.stem, "base")
    assert isinstance(plain_run, Measurement)
    assert table_text(layer_table(plain_run)).split() == [
        word for part in result.output.split("\n\n") if "by layer" in part for word in part.split()
    ]
    before = kept.read_bytes()

    monkeypatch.setattr(bench_module, "ReferenceModel", WrongReference)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "NOT EQUAL" in result.output
    assert json.loads(output.read_text(encoding="utf-8"))["equal"] is False
    assert kept.read_bytes() == before


# Baselines, documents, options ----------------------------------------------------------------


def test_baselines_are_those_of_the_files_they_were_copied_from() -> None:
    folder = SHARED / "baselines"
    if not folder.is_dir():
        pytest.skip("needs ../shared/baselines")
    with (folder / "ethos_u55_vela_cycles.csv").open(encoding="utf-8", newline="") as file:
        u55 = {(row["model"], row["macs_per_cycle"]): row for row in csv.DictReader(file)}
    with (folder / "limits.csv").open(encoding="utf-8", newline="") as file:
        limits = {(row["model"], row["array_macs"]): row for row in csv.DictReader(file)}
    for name in MLPERF_TINY:
        content = benchmark_model(name).read_bytes()
        for config in (BASE, preset("large")):
            key = (f"{name}_int8", str(config.macs_per_cycle))
            row = limits[key]
            found = baseline_of(content, int(row["macs"]), config)
            assert found.ideal_cycles == int(row["ideal_cycles"])
            column = f"roofline_{config.bus_bytes}B_ports_cycles"
            assert found.roofline_cycles == int(row[column])
            assert found.ethos_u55_cycles == int(u55[key]["total_cycles"])


def test_another_model_gets_no_ones_baseline(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "_tool", lambda: None)
    found = baseline_of(model.read_bytes(), 1000, BASE)
    assert found.ideal_cycles == 16
    assert found.ethos_u55_cycles is None
    assert "Vela 5.2.0" in sources()["ethos_u55_cycles"]


def test_the_roofline_of_any_model_is_the_longest_of_each_operator() -> None:
    rng = np.random.default_rng(1)
    b = ModelBuilder()
    x = b.input((1, 8, 8, 16), scale=0.1)
    w = rng.integers(-127, 128, (32, 1, 1, 16), dtype=np.int8)
    y = b.conv2d(x, w, np.zeros(32, np.int32), w_scales=0.01, scale=0.1)
    z = b.reshape(b.relu(y), (1, 2048))
    w = rng.integers(-127, 128, (3, 2048), dtype=np.int8)
    graph = convert.load(b.finish([b.fully_connected(z, w, w_scales=0.01, scale=0.1)]))
    conv = max(8 * 8 * 16 * 32 // 64, (16 * 32 + 4 * 32) // 8, 8 * 8 * 32 // 8)
    relu, dense = 8 * 8 * 32 // 8, 3 * 2048 // 8
    assert roofline_cycles(graph, 64, 8) == conv + relu + dense
    assert roofline_cycles(graph, 64, 8, without=[1]) == conv + dense


FAKE_VELA = """#!/bin/sh
case "$*" in *ethos-u85-256*) exit 1;; esac
while [ "$1" != "--output-dir" ]; do shift; done
printf 'network,cycles_total\\nmodel,1234.0\\n' > "$2/model_summary_X.csv"
"""


def test_vela_is_asked_where_it_is_installed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "vela"
    tool.write_text(FAKE_VELA, encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setattr(vela, "_tool", lambda: tool)
    found = baseline_of(model.read_bytes(), 1000, preset("large"))
    assert (found.ethos_u55_cycles, found.ethos_u65_cycles) == (1234, 1234)
    assert found.ethos_u85_cycles is None, "it has refused the model"
    (base, large) = (baseline_of(model.read_bytes(), 1000, c) for c in (BASE, preset("large")))
    assert base.ethos_u65_cycles is None, "there is none of 64 multipliers"
    # What is known is not asked for, and a part of a model is none that Vela compiles.
    known = baseline_of(benchmark_model("kws").read_bytes(), 1000, BASE)
    assert known.ethos_u55_cycles == 137_709
    part = baseline_of(model.read_bytes(), 1000, BASE, without=[0])
    assert part.ethos_u55_cycles is None
    assert large == found


def test_a_record_keeps_what_was_not_measured(tmp_path: Path) -> None:
    kept = tmp_path / "cycles.json"
    run = _measurement(cycles=1000)
    record = CycleRecord()
    record.add([run, replace(run, fold=True, cycles=900), replace(run, model="other")])
    write_record(kept, record)
    record = read_record(kept)
    record.add([replace(run, cycles=1100)])
    write_record(kept, record)
    record = read_record(kept)
    assert record.cycles("m", "base") == 1100
    assert record.cycles("m", "base", fold=True) == 900
    assert record.cycles("other", "base") == 1000
    assert record.find("m", "large") is None
    with pytest.raises(CelosiaError, match="does not have them"):
        record.cycles("m", "large")
    text = kept.read_text(encoding="utf-8")
    write_record(kept, record)
    assert kept.read_text(encoding="utf-8") == text
    kept.write_text("{}", encoding="utf-8")
    with pytest.raises(CelosiaError, match="cycles.json"):
        read_record(kept)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "no list of runs"),
        ('{"runs": 3}', "no list of runs"),
        ('{"runs": [3]}', "no list of runs"),
        ("[]", "not a JSON object"),
        ("nonsense", "Expecting value"),
    ],
)
def test_a_damaged_record_is_refused_before_anything_is_measured(
    model: Path, tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "cycles.json"
    path.write_text(content, encoding="utf-8")
    arguments = ["bench", "--model", str(model), "--config", "base", "--record", str(path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert words in said
    assert "cycles.json" in said
    assert "measure anew" in said.lower()
    assert path.read_text(encoding="utf-8") == content


def test_a_record_is_of_presets_only(tmp_path: Path) -> None:
    config = BASE.with_(act_bytes=BASE.act_bytes // 2, name="mine")
    with pytest.raises(CelosiaError, match="presets only"):
        CycleRecord().add([_measurement(cycles=1, config=config)])
    wide = preset("large").with_(bus_bits=32, name="large-bus32")
    assert preset_name(wide) == "large"
    file, record = tmp_path / "mine.json", tmp_path / "cycles.json"
    file.write_text('{"act_bytes": 32768}', encoding="utf-8")
    result = CliRunner().invoke(app, ["bench", "--config", str(file), "--record", str(record)])
    assert result.exit_code == 2
    assert "presets only" in " ".join(result.output.split())
    assert not record.exists()


def test_a_narrow_terminal_gets_fewer_columns_and_whole_numbers() -> None:
    record = read_record(ROOT / "docs/figures/cycles.json")
    runs = [record.find(f"{name}_int8", "large") for name in MLPERF_TINY]
    measured = [run for run in runs if isinstance(run, Measurement)]
    assert len(measured) == len(MLPERF_TINY)
    rows = [(run.model, run.config.name, dict.fromkeys("abcd", run)) for run in measured]
    for width in (80, 100, 200):
        console = Console(width=width, file=io.StringIO())
        for table in (
            main_table(measured),
            reason_table(measured),
            operator_table(measured),
            layer_table(measured[0]),
            sweep_table("a sweep", list("abcd"), rows),
        ):
            headings = [str(column.header) for column in table.columns]
            left_out = fit_columns(table, console)
            with console.capture() as capture:
                console.print(table)
            lines = capture.get().splitlines()
            assert max(map(len, lines)) <= width
            assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines)
            shown = [str(column.header) for column in table.columns]
            assert len(shown) + len(left_out) == len(headings)
            assert shown[0] == headings[0]
            assert ("equal" in shown) == ("equal" in headings)
            assert width < 200 or not left_out


def _measurement(*, cycles: int, config: NpuConfig = BASE) -> Measurement:
    return Measurement(
        model="m",
        config=config,
        conditions=Conditions(),
        equal=True,
        cycles=cycles,
        macs=640,
        predicted_cycles=990,
        words_read=10,
        words_written=1,
        layers=[LayerProfile(layer=None, cycles=2, reasons=dict.fromkeys(Reason, 0))],
        baseline=Baseline(ideal_cycles=-(-640 // config.macs_per_cycle)),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency", "1,x"], "not a list of whole numbers"),
        (["--latency", "0"], "from 1"),
        (["--model", "none.tflite"], "no such file"),
        (["--models", "none"], "no such folder"),
        (["--record", "none/cycles.json"], "no folder none"),
    ],
)
def test_bad_options_are_explained(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
