"""``celosia mlperf-run`` with a runner that behaves as the public one does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import celosia
import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.uart import Identity
from celosia.sw.cli.mlperf import served_dut
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.mlperf.tasks import TASKS

from tests.kit.board_model import BoardModel, PtyBoard
from tests.kit.command_line import run_cli
from tests.kit.device_machine import DeviceMachine
from tests.kit.places import BENCHMARK, KWS_INPUT, ROOT, benchmark_input
from tests.kit.tools import needs_simulator

RUNNER = ROOT / "tests/kit/mlperf_runner"
TESTS = """kws01:
  script:
    - loop:
      - download
      - infer 1 0
ad01:
  script:
    - loop:
      - download
      - infer 1 0
"""

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals"),
]


def command(runner: Path, data: Path, task: str, *options: object) -> tuple[object, ...]:
    model = BENCHMARK / TASKS[task].file
    where = ("--runner", runner, "--datasets", data, "--file", model)
    return ("mlperf-run", *where, "--model", task, *options)


def write_data(folder: Path, profile: str, rows: list[tuple[bytes, int, str]]) -> None:
    target = folder / profile
    target.mkdir()
    lines = []
    for index, (content, label, more) in enumerate(rows):
        (target / f"{index}.bin").write_bytes(content)
        lines.append(f"{index}.bin,12,{label}{more}\n")
    (target / "y_labels.csv").write_text("".join(lines))


def test_accuracy_is_the_runners_and_ours(tmp_path: Path) -> None:
    program = celosia.compile(BENCHMARK / TASKS["kws"].file, config="base")
    values = np.random.default_rng(5).integers(-128, 128, (6, 490), np.int8)
    values[0] = np.load(KWS_INPUT).reshape(-1)
    with celosia.open("emu", "base") as emulator:
        shape = program.inputs[0].shape
        classes = [int(emulator.run(program, [v.reshape(shape)]).output.argmax()) for v in values]
    assert classes[0] == 5
    classes[-1] = (classes[-1] + 1) % 12
    write_data(
        tmp_path, "kws01", [(v.tobytes(), c, "") for v, c in zip(values, classes, strict=True)]
    )
    script = tmp_path / "tests.yaml"
    script.write_text(TESTS)
    logs = tmp_path / "logs"
    options = ("--device", "emu", "--script", script, "--output", logs, "--json", "-")
    result = run_cli(*command(RUNNER, tmp_path, "kws", *options))
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["name"], said["clock_hz"]) == ("celosia-base-emulated", None)
    assert said["runner"]["accuracy_percent"] == 83.3
    assert said["own"]["accuracy_percent"] == pytest.approx(500 / 6)
    assert said["own"]["auc"] == pytest.approx(said["runner"]["auc"], abs=6e-4)
    assert said["inferences"] == said["own"]["inputs"] == 6
    assert {path.name for path in logs.iterdir()} == {"devices.yaml"}


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_performance_is_that_of_the_cycles(tmp_path: Path) -> None:
    window = np.load(benchmark_input("ad_windows_float.npy")).astype("<f4").reshape(-1, 640)
    # Files of two windows; performance takes the first of each.
    content = window[:2].tobytes()
    write_data(tmp_path, "ad01", [(content, index % 2, ",2560,2560") for index in range(5)])
    options = ("--device", "sim", "--clock", 50, "--inferences", 4, "--json", tmp_path / "r.json")
    result = run_cli(*command(RUNNER, tmp_path, "ad", *options))
    assert result.exit_code == 0, result.output
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["inferences"] == 5 * 5
    assert 4000 < said["own"]["cycles"] < 1_000_000
    assert said["own"]["inferences_per_s"] == pytest.approx(50e6 / said["own"]["cycles"])
    # Laps are whole microseconds.
    assert said["runner"]["inferences_per_s"] == pytest.approx(
        said["own"]["inferences_per_s"], rel=2e-3
    )
    # On a busy machine the runner may have nothing to complain of.
    said_so = "loop exited before 10 seconds elapsed."
    assert said["runner"]["invalid"] == [said_so] * (said_so in result.output)
    assert "celosia-base-simulated" in result.stdout


def test_a_board_has_its_own_name_and_clock() -> None:
    identity = Identity(board="model", clock_hz=48_000_000, memory_bytes=1 << 20, build=1)
    emulator = EmuDevice(preset("tiny"), memory_bytes=identity.memory_bytes)
    file = BENCHMARK / TASKS["kws"].file
    with PtyBoard(BoardModel(identity, DeviceMachine(emulator))) as board:
        with served_dut(TASKS["kws"], file, None, f"uart:{board.path}", None) as dut:
            assert (dut.name, dut.clock_hz) == ("celosia-model-tiny", 48_000_000)
        with pytest.raises(celosia.CelosiaError, match="clock of its own"):
            with served_dut(TASKS["kws"], file, None, f"uart:{board.path}", 100.0):
                pass


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (None, (), "it has no main.py"),
        (
            "import yaml_gone\nimport beside\n",
            (),
            "pip install other_gone yaml_gone",
        ),
        ("def (", (), "main.py: invalid syntax"),
        ("", ("--mode", "energy"), "no such mode"),
        ("", ("--mode", "performance"), "no clock to time with"),
        ("", ("--inferences", 3), "performance mode"),
        ("", ("--clock", 3), "it has no clock"),
        ("", (), "it has printed no result of mode accuracy, without a word"),
        ("print('one')\nraise RuntimeError('no power board')", (), "RuntimeError: no power board"),
    ],
)
def test_what_goes_wrong_is_said(
    source: str | None, options: tuple[object, ...], words: str, tmp_path: Path
) -> None:
    write_data(tmp_path, "kws01", [(bytes(490), 0, "")])
    runner = tmp_path / "runner"
    runner.mkdir()
    if source is not None:
        (runner / "main.py").write_text(source)
    (runner / "beside.py").write_text("import other_gone\n")
    (runner / "tests.yaml").write_text(TESTS)
    result = run_cli(*command(runner, tmp_path, "kws", "--device", "emu", *options))
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())
    assert not (runner / "__pycache__").exists()


HANGS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pids.part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("pids.part", "pids")
time.sleep(600)
"""


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    write_data(tmp_path, "kws01", [(bytes(490), 0, "")])
    (tmp_path / "main.py").write_text(HANGS)
    (tmp_path / "tests.yaml").write_text(TESTS)
    script = Path(sys.executable).with_name("celosia")
    options = ("--device", "emu", "--output", tmp_path)
    arguments = [str(part) for part in command(tmp_path, tmp_path, "kws", *options)]
    with subprocess.Popen(
        [script, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as p:
        try:
            give_up = time.monotonic() + 120
            while not (tmp_path / "pids").exists() and time.monotonic() < give_up:
                assert p.poll() is None
                time.sleep(0.05)
            pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
            p.send_signal(signal.SIGINT)
            p.communicate(timeout=60)
            assert p.returncode != 0
        finally:
            p.kill()
    assert len(pids) == 2
    give_up = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False
