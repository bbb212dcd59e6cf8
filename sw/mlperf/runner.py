"""The public runner of MLPerf Tiny: what it needs, starting it, and what it has said.

The runner (``benchmark/runner`` of github.com/mlcommons/tiny) is used as its own documents say:
``main.py`` with a list of devices, a test script, a folder of data sets and a mode, in a process of
its own. None of its files is changed, and nothing is written into its folder.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import queue
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from celosia.errors import CelosiaError, InputError
from celosia.sw.mlperf import launcher
from celosia.sw.mlperf.tasks import Task

__all__ = ["MODES", "RunnerResult", "check_runner", "find_script", "run_runner", "write_script"]

MODES = {"performance": "p", "accuracy": "a"}
"""Names of the modes, and what the runner calls them."""
VENDOR, PRODUCT = "1209", "0001"
"""Of USB, by which the runner recognises its port: pid.codes' numbers for tests."""
BAUD = 115_200
LOOPS = 5
"""That the benchmark wants in performance mode."""
PACKAGES = {"yaml": "PyYAML", "sklearn": "scikit-learn", "serial": "pyserial"}
"""What pip calls modules that have another name."""
ANSWERED = frozenset({"usb", "joulescope"})
"""Modules that the launcher answers for, where they are missing."""
SILENCE_S = 180.0
"""A runner that neither prints nor sends anything for so long has come to a stand."""
END_S = 5.0
LAST_LINES = 12
POLL_S = 0.02
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_THROUGHPUT = re.compile(rf"Throughput\s*:\s*{_NUMBER} inf")
_MEDIAN = re.compile(rf"Median throughput is\s*{_NUMBER} inf")
_ACCURACY = re.compile(rf"(?:Top 1%|Overall accuracy|File-based accuracy) = {_NUMBER}")
_AUC = re.compile(rf"AUC = {_NUMBER}")
_INVALID = re.compile(r"ERROR:? ?[0-9]* - (.*)|ERROR: (.*)")


@dataclass(frozen=True, kw_only=True)
class RunnerResult:
    """What the runner has said at its end.

    Attributes
    ----------
    inferences_per_s : float, optional
        In performance mode: the median of its loops, as it says it; where it refuses to, the median
        of what it has printed for each.
    accuracy_percent : float, optional
        In accuracy mode. Of one score (anomaly detection) the runner's own measure.
    auc : float, optional
        In accuracy mode: area below the ROC curve.
    invalid : tuple of str
        Why it is no result to be submitted, in its own words.
    """

    inferences_per_s: float | None = None
    accuracy_percent: float | None = None
    auc: float | None = None
    invalid: tuple[str, ...] = ()


def check_runner(folder: Path) -> Path:
    """Return the runner's ``main.py``.

    Raises
    ------
    InputError
        If it is not there.
    CelosiaError
        If Python packages that it imports are not installed, naming all of them.
    """
    script = folder / "main.py"
    if not script.is_file():
        raise InputError(
            f"runner {folder}",
            "it has no main.py" if folder.is_dir() else "there is no such folder",
            "give the folder benchmark/runner of a checkout of github.com/mlcommons/tiny",
        )
    missing = sorted(_missing(script))
    if missing:
        raise CelosiaError(
            f"runner {folder}",
            f"it needs Python packages that are not installed: {', '.join(missing)}",
            f"run: pip install {' '.join(missing)}",
        )
    return script


def _missing(script: Path) -> set[str]:
    """Return pip's names of what ``main.py``, and the files beside it that it imports, lack."""
    missing, seen, ahead = set(), set(), [script]
    while ahead:
        path = ahead.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _imports(path):
            inside = script.parent.joinpath(*name.split("."))
            # A package comes with its __init__, and with its module that is named.
            files = [inside.with_suffix(".py"), inside / "__init__.py", path.parent / f"{name}.py"]
            found = [file for file in files if file.is_file()]
            ahead += found
            top = name.partition(".")[0]
            if found or (script.parent / top).is_dir() or top in ANSWERED:
                continue
            if importlib.util.find_spec(top) is None:
                missing.add(PACKAGES.get(top, top))
    return missing


def _imports(path: Path) -> list[str]:
    """Return the modules that a file imports as soon as it is imported itself."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"runner {path.parent}", f"{path.name}: {error}", "get it again") from None
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


def find_script(folder: Path, mode: str) -> Path:
    """Return the runner's own test script of a mode.

    Raises
    ------
    InputError
        If it has none.
    """
    for name in (f"tests_{mode}.yaml", "tests.yaml"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"runner {folder}", f"it has no test script tests_{mode}.yaml", "name one with --script"
    )


def write_script(path: Path, task: Task, inferences: int) -> None:
    """Write a test script with as many inferences in each of the loops of performance mode."""
    path.write_text(
        f"{task.profile}:\n  name: {task.name}\n  model: {task.profile}\n"
        "  truth_file: y_labels.csv\n  script:\n"
        f"    - loop {LOOPS}:\n      - download\n      - infer {inferences} 1\n",
        encoding="ascii",
    )


def run_runner(
    script: Path,
    *,
    port: str,
    tests: Path,
    datasets: Path,
    mode: str,
    folder: Path,
    serve: Callable[[float], bool],
    show: Callable[[str], None],
) -> RunnerResult:
    """Run the runner to its end, while a device is served; it does not outlive the call.

    Parameters
    ----------
    script : Path
        Its ``main.py``.
    port : str
        Where the device answers.
    tests, datasets : Path
        Test script, and the folder with a folder for each test.
    mode : str
        One of `MODES`.
    folder : Path
        Where it is started, and where it writes its logs.
    serve : callable
        Answers what comes within some seconds; returns whether anything has come.
    show : callable
        Takes each line that the runner prints.

    Raises
    ------
    CelosiaError
        If it fails, comes to a stand or gives no result, with the last lines that it has printed.
    """
    devices = folder / "devices.yaml"
    devices.write_text(_device_list(script.parent), encoding="ascii")
    command = [sys.executable, launcher.__file__, port, VENDOR, PRODUCT, str(script.resolve())]
    command += ["--device_list", str(devices.resolve()), "--test_script", str(tests.resolve())]
    command += ["--dataset_path", str(datasets.resolve()), "--mode", MODES[mode]]
    environment = os.environ | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # The runner prints each part of a traceback as a line: no lines of '^' alone.
        "PYTHONNODEBUGRANGES": "1",
        "MPLBACKEND": "Agg",
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A group of its own: Ctrl-C is for this process, which ends all of that one's.
        start_new_session=True,
    )
    try:
        lines = _follow(process, serve, show)
    finally:
        _end(process)
    if process.returncode != 0:
        raise _failure(f"it has ended with exit code {process.returncode}", lines)
    result = _read(lines)
    if (result.inferences_per_s if mode == "performance" else result.auc) is None:
        raise _failure(f"it has printed no result of mode {mode}", lines)
    return result


def _device_list(folder: Path) -> str:
    """Return the list of the one device, with its rate as the runner's own lists have theirs.

    Versions of the runner have one rate of a device under test, or one a mode.
    """
    rate = f" {BAUD}"
    for path in folder.glob("devices*.yaml"):
        with contextlib.suppress(OSError):
            if re.search(r"^\s+performance:", path.read_text("utf-8", errors="replace"), re.M):
                rate = "".join(f"\n    {mode}: {BAUD}" for mode in ("energy", *MODES))
    return f"- name: celosia\n  type: dut\n  baud:{rate}\n  usb:\n    0x{VENDOR}: 0x{PRODUCT}\n"


def _follow(
    process: subprocess.Popen[bytes],
    serve: Callable[[float], bool],
    show: Callable[[str], None],
) -> list[str]:
    """Serve the device until the runner has ended; return what it has printed."""
    assert process.stdout is not None
    stream = process.stdout
    printed: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in stream:
                printed.put(line.decode("utf-8", errors="replace").rstrip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    lines: list[str] = []

    def take() -> bool:
        before = len(lines)
        with contextlib.suppress(queue.Empty):
            while True:
                lines.append(printed.get_nowait())
                show(lines[-1])
        return len(lines) > before

    heard = time.monotonic()
    while process.poll() is None:
        came = serve(POLL_S)
        if take() or came:
            heard = time.monotonic()
        elif time.monotonic() - heard > SILENCE_S:
            raise _failure(f"nothing has been heard of it for {SILENCE_S:g} s", lines)
    reader.join(END_S)
    take()
    return lines


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the runner and what it has started, whatever it is doing."""

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    if process.poll() is None:
        send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
    send(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _failure(cause: str, lines: list[str]) -> CelosiaError:
    said = [line for line in lines if line][-LAST_LINES:]
    last = "".join(f"\n  | {line}" for line in said)
    return CelosiaError(
        "the runner of MLPerf Tiny",
        f"{cause}; its last lines:{last}\n" if said else f"{cause}, without a word",
        "its own documents say what it expects of data sets and test scripts",
    )


def _read(lines: list[str]) -> RunnerResult:
    text = "\n".join(lines)
    windows = [float(found) for found in _THROUGHPUT.findall(text)]
    median = _last(_MEDIAN, text)
    return RunnerResult(
        inferences_per_s=statistics.median(windows) if median is None and windows else median,
        accuracy_percent=_last(_ACCURACY, text),
        auc=_last(_AUC, text),
        invalid=tuple(dict.fromkeys(a or b for a, b in _INVALID.findall(text))),
    )


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.findall(text)
    return float(found[-1]) if found else None
