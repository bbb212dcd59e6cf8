"""The benchmark's serial protocol, from the runner's side."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import celosia
import numpy as np
import pytest
from celosia.sw.driver.device import Device
from celosia.sw.mlperf.session import Session
from celosia.sw.mlperf.tasks import TASKS
from celosia.sw.program.file import Program

from tests.kit.places import BENCHMARK, KWS_INPUT, benchmark_input
from tests.kit.tools import needs_simulator

CLOCK_HZ = 50_000_000
LINE_S = 120.0

pytestmark = [
    needs_simulator,
    pytest.mark.xdist_group("rtl-base"),
]


class Runner:
    """Sends commands as the benchmark's runner does, and collects the lines of the reply."""

    def __init__(self, task: str, device: Device) -> None:
        self.program: Program = celosia.compile(BENCHMARK / TASKS[task].file, config="base")
        self.sent = b""
        self.session = Session(
            TASKS[task],
            self.program,
            device,
            clock_hz=CLOCK_HZ,
            name="test",
            send=self._take,
        )

    def _take(self, data: bytes) -> None:
        self.sent += data

    def ask(self, command: str) -> list[str]:
        """Return the lines before ``m-ready``."""
        self.sent = b""
        self.session.feed(command.encode() + b"%")
        lines = self.sent.decode().split("\n")
        assert lines[-2:] == ["m-ready", ""]
        assert "m-ready" not in lines[:-2]
        return lines[:-2]

    def load(self, content: bytes) -> None:
        assert self.ask(f"db load {len(content)}") == [f"m-[Expecting {len(content)} bytes]"]
        for start in range(0, len(content), 31):
            lines = self.ask(f"db {content[start : start + 31].hex()}")
            assert lines == (["m-load-done"] if start + 31 >= len(content) else [])


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    with celosia.open("sim", "base") as opened:
        yield opened


def scores(lines: list[str]) -> list[float]:
    (line,) = [line for line in lines if line.startswith("m-results-")]
    return [float(value) for value in line[len("m-results-[") : -1].split(",")]


def laps(lines: list[str]) -> list[int]:
    return [int(line.rpartition("-")[2]) for line in lines if line.startswith("m-lap-us-")]


def test_identification(device: Device) -> None:
    runner = Runner("kws", device)
    assert runner.ask("name") == ["m-name-dut-[test]"]
    assert runner.ask("profile") == [
        "m-profile-[ULPMark for tinyML Firmware V0.0.1]",
        "m-model-[kws01]",
    ]
    assert runner.ask("timestamp") == ["m-lap-us-0"]


def test_kws_result_and_time(device: Device) -> None:
    runner = Runner("kws", device)
    values = np.load(KWS_INPUT).reshape(-1)
    assert values.size == 490
    runner.load(values.astype(np.int8).tobytes())
    lines = runner.ask("infer 3 1")
    assert [line for line in lines if line.startswith(("m-warm", "m-infer"))] == [
        "m-warmup-start-1",
        "m-warmup-done",
        "m-infer-start-3",
        "m-infer-done",
    ]
    assert int(np.argmax(scores(lines))) == 5
    assert scores(runner.ask("results")) == scores(lines)
    # Lap times are cycles: an inference takes the same number each time.
    first, second = laps(lines)
    cycles = device.run(runner.program, [values.reshape(runner.program.inputs[0].shape)]).cycles
    assert cycles is not None
    assert first == round(cycles * 1e6 / CLOCK_HZ)
    assert second == round(4 * cycles * 1e6 / CLOCK_HZ)


def test_pixels_become_signed(device: Device) -> None:
    runner = Runner("ic", device)
    pixels = np.random.default_rng(3).integers(0, 256, 3072, np.uint8)
    runner.load(pixels.tobytes())
    got = scores(runner.ask("infer 1 0"))
    source, out = runner.program.inputs[0], runner.program.outputs[0]
    values = (pixels.astype(int) - 128).astype(np.int8).reshape(source.shape)
    with celosia.open("emu", "base") as emulator:
        want = emulator.run(runner.program, [values]).output.astype(float).ravel()
    np.testing.assert_allclose(got, (want - out.zero_point) * out.scale, atol=1e-6)


def test_anomaly_score_is_the_reconstruction_error(device: Device) -> None:
    runner = Runner("ad", device)
    window = np.load(benchmark_input("ad_windows_float.npy")).astype("<f4").reshape(-1, 640)[0]
    runner.load(window.tobytes())
    (got,) = scores(runner.ask("infer 1 0"))
    out = runner.program.outputs[0]
    with celosia.open("emu", "base") as emulator:
        result = emulator.run(runner.program, [window.reshape(1, 640)], quantize=True)
    rebuilt = (result.output.astype(float).ravel() - out.zero_point) * out.scale
    assert got == pytest.approx(float(np.mean((window - rebuilt) ** 2)), abs=1e-5)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("reboot", "unknown command: reboot"),
        ("", "unknown command"),
        ("db load many", "size is not a number"),
        ("db load 99999999", "at most"),
        ("db 00", "more than the 0 bytes"),
        ("db xyz", "hexadecimal"),
        ("infer 1 0", "0 bytes have arrived, the model takes 490"),
        ("infer x 0", "count is not a number"),
    ],
)
def test_errors_are_lines(device: Device, command: str, reason: str) -> None:
    (line,) = Runner("kws", device).ask(command)
    assert line.startswith("e-[")
    assert reason in line


def test_garbage_without_an_end_is_dropped(device: Device) -> None:
    runner = Runner("kws", device)
    runner.session.feed(b"\xff" * 5000)
    assert runner.sent == b"e-[command too long]\nm-ready\n"
    assert runner.ask("name") == ["m-name-dut-[test]"]


def test_command_on_a_terminal() -> None:
    """The runner opens the terminal, closes it and opens it again."""
    script = Path(sys.executable).with_name("celosia")
    command = [script, "mlperf-dut", "--model", "kws"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            path = ""
            give_up = time.monotonic() + 300
            while not path and time.monotonic() < give_up:
                found = re.match(r"device under test: (\S+)", process.stdout.readline())
                path = found[1] if found else ""
            assert path
            for _ in range(2):
                assert on_terminal(path, b"name%") == [
                    "m-name-dut-[celosia-base-simulated]",
                    "m-ready",
                ]
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()


def on_terminal(path: str, command: bytes) -> list[str]:
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(terminal)
        os.write(terminal, command)
        reply = b""
        while not reply.endswith(b"m-ready\n"):
            assert select.select([terminal], [], [], LINE_S)[0], reply
            reply += os.read(terminal, 4096)
        return reply.decode().splitlines()
    finally:
        os.close(terminal)


def test_bad_options_end_with_an_error() -> None:
    from celosia.sw.cli.app import app
    from typer.testing import CliRunner

    options = ["--device", "emu", "--clock", "50"]
    result = CliRunner().invoke(app, ["mlperf-dut", "--model", "kws", *options])
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["mlperf-dut", "--model", "mnist"])
    assert result.exit_code == 2
