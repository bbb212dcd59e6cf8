"""An inference by layer and command: all its cycles, on the RTL as in the prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Engine, Load, Transfer
from celosia.sim.rtl.rtl import SAMPLE_DTYPE
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.cost.engines import TRANSFER_SETUP_CYCLES, transfer_cycles
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.profile.attribute import Reason
from celosia.sw.profile.profile import Profile, Source, predicted_cycles, predicted_profile
from celosia.sw.profile.spans import SAMPLE
from celosia.sw.program.segments import NpuSegment
from celosia.sw.report.bench.bench import Bench, Conditions

from tests.kit.divided import divided_model
from tests.kit.places import DIGITS, benchmark_model
from tests.kit.tools import needs_simulator

BASE = preset("base")


def test_a_sample_is_the_simulators() -> None:
    assert SAMPLE == SAMPLE_DTYPE


def check_sums(profile: Profile) -> None:
    """Every cycle is laid to a layer and a reason, and commands lie within their segments."""
    for segment in profile.segments:
        own = [layer for layer in profile.layers if layer.segment == segment.number]
        assert sum(layer.cycles for layer in own) + segment.end_cycles == segment.cycles
        for layer in own:
            assert sum(layer.reasons.values()) == layer.cycles
        for engine in Engine:
            busy = 0
            for span in (span for span in segment.commands if span.engine is engine):
                assert busy <= span.start < span.end <= segment.cycles
                busy = span.end
    assert sum(profile.reasons.values()) == profile.cycles
    part = profile.program.npu_segments
    moved = sum(
        command.n1 * command.n2 * command.row_bytes
        for segment in part
        for command in segment.decode()
        if isinstance(command, Transfer)
    )
    assert moved == sum(layer.read_bytes + layer.written_bytes for layer in profile.layers)


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_the_prediction_looks_like_the_rtl() -> None:
    run = Bench().measure(benchmark_model("kws"), BASE)
    measured = run.profile
    assert measured is not None
    predicted = predicted_profile(measured.program)
    assert (measured.source, predicted.source) == (Source.RTL, Source.PREDICTION)
    for profile in (measured, predicted):
        check_sums(profile)
    assert measured.cycles == run.cycles
    assert measured.reasons[Reason.ARRAY] == predicted.reasons[Reason.ARRAY]
    assert abs(predicted.cycles / measured.cycles - 1) < 0.06
    for seen, expected in zip(measured.layers, predicted.layers, strict=True):
        assert expected.cycles == expected.info.predicted_cycles
        assert abs(seen.cycles - expected.cycles) <= max(0.2 * seen.cycles, 60)
    bounds = [layer.bound for layer in measured.layers]
    assert bounds == [layer.bound for layer in predicted.layers]
    assert {"array", "weights", "vector"} <= set(bounds)


def test_firmware_that_runs_one_command_at_a_time_waits_for_none() -> None:
    """What a cycle goes on is what runs in it, as the trace port of such a machine shows it."""
    profile = predicted_profile(compile_model(DIGITS, preset("nano")))
    check_sums(profile)
    assert profile.reasons[Reason.WEIGHTS_BUS] == profile.reasons[Reason.ACTIVATIONS] == 0
    busy = {engine: sum(n.engine_cycles[engine] for n in profile.layers) for engine in Engine}
    assert profile.reasons[Reason.VECTOR] == busy[Engine.VECTOR]
    assert profile.reasons[Reason.DMA] == busy[Engine.LOAD] + busy[Engine.STORE]


def test_a_host_segment_takes_no_cycles(tmp_path: Path) -> None:
    path = tmp_path / "divided.tflite"
    path.write_bytes(divided_model())
    profile = predicted_profile(compile_model(path, BASE))
    check_sums(profile)
    first, host, last = profile.segments
    assert isinstance(profile.program.segments[2], NpuSegment)
    assert (host.cycles, host.commands) == (0, ())
    assert last.begin == first.cycles
    assert [layer.bound for layer in profile.layers] == ["array", "host", "array"]
    figures = profile.figures()
    assert figures["cycles"] == first.cycles + last.cycles
    assert [layer["runs_on"] for layer in figures["layers"]] == ["npu", "host", "npu"]


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_a_slow_memory_is_predicted_by_what_may_be_unanswered() -> None:
    """16 requests under way: beyond 16 cycles the latency, not the bus, sets the pace."""
    path = benchmark_model("ad01")
    for latency in (16, 64):
        run = Bench().measure(path, BASE, Conditions(latency_cycles=latency))
        assert run.profile is not None
        timing = MemoryTiming(latency_cycles=latency)
        predicted = predicted_cycles(run.profile.program, timing)
        assert abs(predicted / run.cycles - 1) < 0.03
    assert MemoryTiming(latency_cycles=63).word_cycles(16) == 4
    assert MemoryTiming(latency_cycles=8, interval_cycles=4).word_cycles(16) == 4


def test_places_of_a_single_transfer_engine_bound_its_pace() -> None:
    """A place is taken for longer than a request is unanswered: 14 cycles for each of 5 words."""
    load = Load(sram_addr=0, row_bytes=8000)
    memory = MemoryTiming(latency_cycles=8)
    two = BASE.with_(max_outstanding=4, compact=())
    one = two.with_(compact=("SINGLE_TRANSFERS",))
    extra = TRANSFER_SETUP_CYCLES + 8
    assert transfer_cycles(load, two, memory) == extra + 1000 * 9 // 4
    assert transfer_cycles(load, one, memory) == extra + 1000 * 14 // 5
