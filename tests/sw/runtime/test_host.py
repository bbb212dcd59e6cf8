"""Segments of the host: run in their own process, whose every end is a sentence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import pytest
from celosia import toolchain
from celosia.errors import DeviceError, ProgramError
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.cli.app import app
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.device import Device
from celosia.sw.program.file import Program
from celosia.sw.program.segments import HostSegment
from celosia.sw.program.verify import check_program
from celosia.sw.reference.check import check_model
from celosia.sw.report import host as report_module
from celosia.sw.report.samples import random_samples
from celosia.sw.runtime import host as host_module
from celosia.sw.runtime import interpreter as process_module
from celosia.sw.runtime.interpreter import interpreter_installed
from celosia.sw.runtime.session import Session
from typer.testing import CliRunner

from tests.kit.device_machine import emulated_board
from tests.kit.divided import divided_model

MISSING = toolchain.missing_tools()
NANO = preset("nano")
KERAS = Path(__file__).resolve().parents[4] / "shared" / "models" / "keras"
needs_interpreter = pytest.mark.skipif(
    not interpreter_installed(), reason="needs TFLite's interpreter: ai-edge-litert"
)


@pytest.fixture
def emu() -> Iterator[Device]:
    with celosia.open("emu", NANO) as opened:
        yield opened


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "divided.tflite"
    path.write_bytes(divided_model())
    return path


def worker(folder: Path, body: str) -> Path:
    path = folder / "worker.py"
    path.write_text(f"import json, os, sys, time\n{body}\n", encoding="utf-8")
    return path


@needs_interpreter
@pytest.mark.parametrize("kind", ["emu", "sim"])
def test_every_tensor_is_right_across_segments(kind: str, model: Path) -> None:
    if kind == "sim" and MISSING:
        pytest.skip(MISSING)
    with celosia.open(kind, NANO) as device:
        program = compile_model(model, NANO)
        assert [isinstance(part, HostSegment) for part in program.segments] == [False, True, False]
        report = check_model(model, NANO, device, random_samples(program, 2, 1), program=program)
    assert report.equal
    assert "reference interpreter" in report.sources
    assert report.tensors == 3
    first, host, second = report.results[0].segments
    assert host.cycles is None
    assert (host.milliseconds or 0) > 0
    if kind == "sim":
        assert report.results[0].cycles == (first.cycles or 0) + (second.cycles or 0)


@needs_interpreter
@pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals")
def test_a_divided_model_runs_on_a_board(model: Path) -> None:
    program = compile_model(model, NANO)
    (sample,) = random_samples(program, 1, 1)
    with emulated_board(NANO) as device:
        report = check_model(model, NANO, device, [sample], program=program)
    assert report.equal
    assert [part.cycles is None for part in report.results[0].segments] == [False, True, False]


@needs_interpreter
def test_segments_take_turns_where_they_do_not_fit_side_by_side(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compile_model(model, NANO)
    (sample,) = random_samples(program, 1, 4)
    uploads: list[int] = []
    real = Device._upload

    def counted(self: Device, contents: Any) -> None:
        uploads.append(len(contents))
        real(self, contents)

    monkeypatch.setattr(Device, "_upload", counted)
    outputs, times = [], []
    for memory_bytes in (1 << 20, 4096):
        with celosia.open("emu", NANO, memory_bytes=memory_bytes) as device:
            with Session(program, device) as session:
                outputs += [session.run(sample).output for _ in range(3)]
        times.append(len(uploads))
    assert times == [2, 2 + 6]
    for output in outputs:
        np.testing.assert_array_equal(output, outputs[0])


@needs_interpreter
def test_a_wrong_tensor_of_the_host_is_named(
    model: Path, emu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = host_module.HostRunner.run

    def wrong(self: Any, segment: HostSegment, inputs: Any) -> Any:
        result = real(self, segment, inputs)
        return replace(result, outputs={n: v - 1 for n, v in result.outputs.items()})

    monkeypatch.setattr(host_module.HostRunner, "run", wrong)
    program = compile_model(model, NANO)
    report = check_model(model, NANO, emu, random_samples(program, 1, 0), program=program)
    assert report.difference is not None
    assert "layer #1 LOG_SOFTMAX on the host" in str(report.difference)


@needs_interpreter
def test_a_shape_that_the_file_computes_is_given(emu: Device) -> None:
    b = ModelBuilder()
    x = b.input((1, 4, 6), scale=0.1)
    y = b.operator("LOG_SOFTMAX", [x], x.shape, scale=16 / 256, zero_point=127)
    size = b.operator("SHAPE", [x], (3,), dtype=np.int32)
    y = b.operator("RESHAPE", [y, size], (1, 24), scale=16 / 256, zero_point=127)
    program = compile_model(b.finish([y]), NANO)
    assert [layer.op for layer in program.layers] == ["LOG_SOFTMAX", "RESHAPE"]
    assert emu.run(program, np.zeros((1, 4, 6), np.int8)).output.shape == (1, 24)


@needs_interpreter
def test_state_on_the_host_outlasts_runs_until_it_is_reset(emu: Device) -> None:
    path = KERAS / "LSTM_int8.tflite"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    program = compile_model(path, NANO)
    (sample,) = random_samples(program, 1, 0)
    with Session(program, emu) as session:
        first, second = (session.run(sample).output for _ in range(2))
        session.reset()
        again = session.run(sample).output
        with Session(program, emu) as other:
            np.testing.assert_array_equal(other.run(sample).output, first)
    assert (first != second).any()
    np.testing.assert_array_equal(again, first)
    # Runs of a device are one session.
    np.testing.assert_array_equal(emu.run(program, sample).output, first)
    np.testing.assert_array_equal(emu.run(program, sample).output, second)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("sys.stderr.write('a bad sum\\n'); sys.stderr.flush(); os.abort()",
         "ended with SIGABRT: a bad sum"),
        ("print(json.dumps({'error': 'bad node', 'model': 0}), flush=True)",
         "refused the model: bad node"),
        ("print(json.dumps({'error': None}), flush=True); sys.stdin.readline(); os.kill(0, 9)",
         "ended with SIGKILL"),
        ("print(json.dumps({'error': None}), flush=True); time.sleep(60)",
         "did not answer within 2 s"),
    ],
)  # fmt: skip
def test_every_end_of_the_process_is_a_sentence(
    body: str,
    sentence: str,
    model: Path,
    emu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = tmp_path / "number"
    note = f"open({str(numbers)!r}, 'w').write(str(os.getpid()))"
    monkeypatch.setattr(process_module, "WORKER", worker(tmp_path, f"{note}\n{body}"))
    monkeypatch.setattr(host_module, "interpreter_installed", lambda: True)
    if "sleep" in body:
        monkeypatch.setattr(process_module, "TIME_OUT_S", 2.0)
    program = compile_model(model, NANO)
    with Session(program, emu) as session, pytest.raises(DeviceError) as caught:
        session.run(random_samples(program, 1, 0)[0])
    assert sentence in str(caught.value)
    assert "LOG_SOFTMAX" in caught.value.what
    with pytest.raises(ProcessLookupError):
        os.kill(int(numbers.read_text(encoding="utf-8")), 0)


@needs_interpreter
def test_no_process_is_left(model: Path, emu: Device) -> None:
    program = compile_model(model, NANO)
    (sample,) = random_samples(program, 1, 0)
    emu.run(program, sample)
    session = emu._session
    assert session is not None
    process = session._host._process
    assert process is not None
    number, folder = process._process.pid, process._folder
    emu.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    assert not folder.exists()


def test_without_the_extra_it_compiles_and_says_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (host_module, process_module, report_module):
        monkeypatch.setattr(module, "interpreter_installed", lambda: False)
    target, figures = tmp_path / "m.celosia", tmp_path / "m.json"
    arguments = ["compile", str(model), "-o", str(target), "--json", str(figures)]
    assert CliRunner().invoke(app, [*arguments, "--config", "nano"]).exit_code == 0
    (host,) = json.loads(figures.read_text())["host"]
    assert host["milliseconds"] is None
    assert host["unmeasured"] == "ai-edge-litert is not installed"
    result = CliRunner().invoke(app, ["run", str(target), "--device", "emu"])
    assert result.exit_code == 2
    assert "1 of its operators run on the host" in result.stderr
    assert "[host]" in result.stderr


@needs_interpreter
def test_the_commands_say_what_the_host_runs(model: Path, tmp_path: Path) -> None:
    figures = tmp_path / "r.json"
    base = [str(model), "--config", "nano", "--json", str(figures)]
    result = CliRunner().invoke(app, ["run", *base, "--device", "emu", "--check"])
    assert result.exit_code == 0, result.output
    assert "on the host: 1 of 3 operators" in result.output
    said = json.loads(figures.read_text())
    assert said["host_operators"] == 1
    (host,) = said["host"]
    assert (host["operator"], host["index"]) == ("LOG_SOFTMAX", 1)
    assert host["unmeasured"] is None
    assert host["milliseconds"] > 0
    assert "does not have this operator" in host["reason"]
    assert said["npu_share"] == {"macs": 1.0, "operators": 2 / 3}
    assert said["equal"] is True
    assert [part["milliseconds"] is None for part in said["segments"]] == [True, False, True]
    result = CliRunner().invoke(app, ["run", *base, "--device", "emu", "--host", "refuse"])
    assert result.exit_code == 2
    assert re.search(r"LOG_SOFTMAX #1 \('.*'\): the NPU does not have this operator", result.stderr)


@needs_interpreter
def test_times_of_several_models_on_a_board_have_the_hosts_in_them(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("amaranth_boards")
    figures = tmp_path / "f.json"
    arguments = ["fit", str(model), str(model), "--board", "ulx3s", "--json", str(figures)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if "1 operators on the host" in line]
    fits = json.loads(figures.read_text())["fits"]
    for row, fit in zip(rows, fits, strict=True):
        assert fit["total_milliseconds"] > fit["milliseconds"] + fit["link_milliseconds"]
        assert f" {fit['total_milliseconds']:.3g} " in row


@needs_interpreter
def test_an_operator_that_nobody_has_is_refused_when_it_runs(emu: Device) -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1)
    y = b.operator("CUSTOM:Nobody", [x], (1, 4), scale=0.1)
    program = compile_model(b.finish([y]), NANO)
    with pytest.raises(DeviceError, match=r"CUSTOM\(Nobody\).*refused the model.*Nobody"):
        emu.run(program, np.zeros((1, 4), np.int8))


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_model_of_the_host_is_refused_in_words(
    seed: int, model: Path, emu: Device
) -> None:
    program = compile_model(model, NANO)
    before, host, after = program.segments
    assert isinstance(host, HostSegment)
    data, rng = bytearray(host.model), np.random.default_rng(seed)
    for place in rng.integers(8, len(data), 6):
        data[place] = rng.integers(256)
    said = ""
    try:
        damaged = replace(program, segments=(before, replace(host, model=bytes(data)), after))
        loaded = Program.from_bytes(damaged.to_bytes())
        check_program(loaded)
        if interpreter_installed():
            with Session(loaded, emu) as session:
                session.run(random_samples(loaded, 1, 0)[0])
    except (ProgramError, DeviceError) as error:
        said = str(error)
    assert not said or "host" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": b"nothing"}, "its model is no TensorFlow Lite model"),
        ({"model": b"\x10\0\0\0TFL3"}, "its model is damaged"),
        ({"kernels": "mine"}, "its kernels are 'mine'"),
        ({"outputs": ()}, "its model's outputs are"),
    ],
)
def test_a_host_segment_that_contradicts_itself(
    changes: dict[str, Any], message: str, model: Path
) -> None:
    _, host, _ = compile_model(model, NANO).segments

    def change() -> None:
        changed = replace(host, **changes)
        infos = (*changed.taken, *changed.given)
        check_program(Program(config=NANO, inputs=infos, segments=(changed,)))

    with pytest.raises(ProgramError, match=message):
        change()
