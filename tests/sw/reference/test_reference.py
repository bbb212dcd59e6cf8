"""Whatever compiles is checked, and what the reference interpreter does is a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.errors import UnsupportedError
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.cli.app import app
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.reference import interpreter as reference_module
from celosia.sw.reference.check import CheckReport, check_model
from celosia.sw.reference.interpreter import ReferenceModel, interpreter_installed
from celosia.sw.runtime import interpreter as process_module
from typer.testing import CliRunner

BASE = preset("base")
needs_interpreter = pytest.mark.skipif(
    not interpreter_installed(), reason="needs the reference interpreter: ai-edge-litert"
)


def check(content: bytes, folder: Path, *inputs: Any, **options: Any) -> CheckReport:
    path = folder / "model.tflite"
    path.write_bytes(content)
    device = EmuDevice(BASE, memory_bytes=1 << 20)
    samples = [dict(zip(names(path), [array], strict=True)) for array in inputs]
    return check_model(path, BASE, device, samples, **options)


def names(path: Path) -> list[str]:
    with ReferenceModel(path, interpreter=False) as model:
        return list(model._input_names)


def dense(activation: str = "NONE") -> bytes:
    builder = ModelBuilder()
    x = builder.input((1, 4), scale=0.1)
    weights = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    y = builder.fully_connected(x, weights, w_scales=0.1, scale=0.2, activation=activation)
    return builder.finish([y])


X = np.array([[1, -20, 30, 127]], np.int8)


def worker(folder: Path, body: str) -> Path:
    """Write something to be started in the place of the reference's process."""
    path = folder / "worker.py"
    path.write_text(f"import json, os, sys, time\n{body}\n", encoding="utf-8")
    return path


@needs_interpreter
def test_a_sound_model_is_confirmed(tmp_path: Path) -> None:
    report = check(dense(), tmp_path, X, -X)
    assert report.equal
    assert report.unconfirmed is None
    assert report.sources == ("golden model", "reference interpreter")


@needs_interpreter
def test_an_operator_that_nobody_reads_may_be_anything(tmp_path: Path) -> None:
    builder = ModelBuilder()
    x = builder.input((1, 4), scale=0.1)
    y = builder.relu(x, scale=0.1)
    builder.operator("NEG", [x], (1, 4), scale=0.1)
    report = check(builder.finish([y]), tmp_path, X)
    assert report.equal
    assert report.tensors == 1
    assert not report.absent
    assert report.unconfirmed is None


@needs_interpreter
@pytest.mark.parametrize("code", ["SQUEEZE", "EXPAND_DIMS"])
def test_dimensions_of_one_come_and_go(code: str, tmp_path: Path) -> None:
    builder = ModelBuilder()
    x = builder.input((1, 1, 4), scale=0.1)
    operands = [x]
    shape: tuple[int, ...] = (1, 4)
    if code == "EXPAND_DIMS":
        operands.append(builder.constant(np.array(1, np.int32)))
        shape = (1, 1, 1, 4)
    y = builder.operator(code, operands, shape, scale=0.1)
    y = builder.leaky_relu(y, alpha=0.5, scale=0.1)
    report = check(builder.finish([y]), tmp_path, X[None])
    assert report.equal
    assert report.unconfirmed is None


@needs_interpreter
def test_names_may_repeat_and_be_no_text(tmp_path: Path) -> None:
    builder = ModelBuilder()
    x = builder.input((1, 4), scale=0.1, name="aaaa")
    y = builder.leaky_relu(x, alpha=0.5, scale=0.1)
    z = builder.softmax(y)
    content = builder.finish([z])
    for name in (b"aaaa", y.name.encode(), z.name.encode()):
        assert content.count(name) == 1
        content = content.replace(name, b"\xff\xfe\xc3\x28".ljust(len(name), b"\xff"))
    report = check(content, tmp_path, X)
    assert report.equal
    assert report.tensors == 2
    assert report.sources == ("golden model", "reference interpreter")


@needs_interpreter
def test_a_model_that_the_reference_refuses(tmp_path: Path) -> None:
    report = check(without_bias(), tmp_path, X.reshape(1, 1, 1, 4))
    assert report.equal
    assert report.sources == ("golden model",)
    assert report.unconfirmed is not None
    assert report.unconfirmed.startswith("the reference interpreter refused the model: ")
    assert "has_bias" in report.unconfirmed


def without_bias() -> bytes:
    builder = ModelBuilder()
    x = builder.input((1, 1, 1, 4), scale=0.1)
    weights = builder.constant(np.eye(4, dtype=np.int8).reshape(4, 1, 1, 4), scales=0.1)
    fields = dict.fromkeys(("StrideH", "StrideW", "DilationHFactor", "DilationWFactor"), 1)
    options = ("Conv2DOptions", {"Padding": 1, **fields})
    y = builder.operator("CONV_2D", [x, weights], (1, 1, 1, 4), scale=0.1, options=options)
    return builder.finish([y])


@needs_interpreter
def test_a_process_that_the_reference_aborts(tmp_path: Path) -> None:
    """1024 equal inputs: the sum of the exponentials has more bits than the reference allows."""
    builder = ModelBuilder()
    x = builder.input((1, 1024), scale=0.01)
    content = builder.finish([builder.softmax(x)])
    report = check(content, tmp_path, np.zeros((1, 1024), np.int8))
    assert report.equal
    assert report.sources == ("golden model",)
    assert report.unconfirmed is not None
    assert "ended with SIG" in report.unconfirmed


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("sys.stderr.write('first\\nthe sum is wrong\\n'); sys.stderr.flush(); os.abort()",
         "the reference interpreter ended with SIGABRT: the sum is wrong"),
        ("os.kill(os.getpid(), 11)", "the reference interpreter ended with SIGSEGV"),
        ("raise ImportError('no such thing')",
         "the reference interpreter ended with exit code 1: ImportError: no such thing"),
        ("print(json.dumps({'error': None}), flush=True); sys.stdin.readline(); os.abort()",
         "the reference interpreter ended with SIGABRT"),
        ("print(json.dumps({'error': 'bad node'}), flush=True)",
         "the reference interpreter refused the model: bad node"),
        ("time.sleep(60)", "the reference interpreter did not start within 2 s"),
    ],
)  # fmt: skip
def test_every_end_is_a_sentence(
    body: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "WORKER", worker(tmp_path, body))
    if "sleep" in body:
        monkeypatch.setattr(process_module, "TIME_OUT_S", 2.0)
    report = check(dense(), tmp_path, X, X, interpreter=True)
    assert report.equal
    assert len(report.results) == 2
    assert report.unconfirmed == sentence


def test_the_command_says_that_the_golden_model_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "sys.stderr.write('[/red] 3 > 2\\n'); sys.stderr.flush(); os.abort()"
    monkeypatch.setattr(process_module, "WORKER", worker(tmp_path, body))
    monkeypatch.setattr(reference_module, "interpreter_installed", lambda: True)
    path = tmp_path / "model.tflite"
    path.write_bytes(dense())
    arguments = ["run", str(path), "--device", "emu", "--check"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "all 1 tensors equal (golden model)" in result.output
    assert "ended with SIGABRT: [/red] 3 > 2; the golden model's" in result.output


def test_what_the_golden_model_cannot_compute_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("a scale is too small")

    monkeypatch.setattr("celosia.sw.reference.golden.GoldenModel.run_by_index", refuse)
    with pytest.raises(UnsupportedError, match="a scale is too small"):
        check(dense(), tmp_path, X)


# ---------------------------------------------------------------------- no process stays behind


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the process and one that it starts write their numbers into a file, then sleep."""
    numbers = tmp_path / "numbers"
    body = f"""
import subprocess
child = subprocess.Popen(["sleep", "60"])
with open({str(numbers)!r} + ".new", "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename({str(numbers)!r} + ".new", {str(numbers)!r})
time.sleep(60)
"""
    monkeypatch.setattr(process_module, "WORKER", worker(tmp_path, body))
    yield numbers
    for number in numbers.read_text(encoding="utf-8").split():
        assert gone(int(number))


def gone(number: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        except (OSError, IndexError):
            return True
        if state.split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_nothing_is_left_after_a_time_out(
    marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "TIME_OUT_S", 2.0)
    assert check(dense(), tmp_path, X, interpreter=True).unconfirmed is not None


def test_nothing_is_left_after_an_interrupt(
    marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = process_module.select.select

    def interrupted(*arguments: Any) -> Any:
        while not marked.exists():
            real([], [], [], 0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(process_module.select, "select", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check(dense(), tmp_path, X, interpreter=True)


@needs_interpreter
def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(dense())
    code = (
        "import sys, time; from pathlib import Path;"
        "from celosia.sw.reference.interpreter import ReferenceModel;"
        "model = ReferenceModel(Path(sys.argv[1]), interpreter=True);"
        "print(model._interpreter._process.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert gone(number)
