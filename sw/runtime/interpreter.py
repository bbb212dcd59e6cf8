"""TFLite's interpreter, or onnxruntime, in a process of its own.

The interpreter is somebody else's C++: it may refuse a file, or end its process by an assertion. So
it has a process of its own (see :mod:`celosia.sw.runtime.worker`), and what happens to it there is
a sentence here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.sw.program.segments import REFERENCE_KERNELS

__all__ = [
    "InterpreterError",
    "InterpreterProcess",
    "Opened",
    "interpreter_installed",
    "onnxruntime_installed",
]

Array = npt.NDArray[Any]

WORKER = Path(__file__).with_name("worker.py")
TIME_OUT_S = 300.0
"""Of the interpreter's start, and of each inference: it is slow, and machines are busy."""


def interpreter_installed() -> bool:
    """Whether ``ai-edge-litert`` is there (``pip install "celosia[host]"``)."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def onnxruntime_installed() -> bool:
    """Whether ``onnxruntime`` is there (``pip install "celosia[onnx]"``)."""
    return importlib.util.find_spec("onnxruntime") is not None


class InterpreterError(Exception):
    """What the interpreter did instead of answering; follows its name.

    Attributes
    ----------
    model : int or None
        Number of the model where it happened, if it is known.
    """

    def __init__(self, text: str, model: int | None = None) -> None:
        super().__init__(text)
        self.model = model


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model that the process opens.

    Attributes
    ----------
    model : bytes
        A ``.tflite`` or ``.onnx`` file, as its kernels want it.
    kernels : str
        One of `celosia.sw.program.segments.KERNELS`.
    keeps_int8 : bool
        Of onnxruntime: whether its integer kernels compute int8 as well as uint8, on every
        processor; by default that depends on the processor.
    inputs, outputs : sequence of int, or None
        Numbers of the tensors to set and to return; None: those of the model.
    """

    model: bytes
    kernels: str = REFERENCE_KERNELS
    inputs: Sequence[int] | None = None
    outputs: Sequence[int] | None = None
    keeps_int8: bool = False


class InterpreterProcess(Closing):
    """A process with some models opened; it ends with this object, or with its own process.

    Arrays and models go through files of a temporary folder, and a line each way says that they
    are there; so neither side can wait for the other to read.

    Parameters
    ----------
    models : sequence of Opened
        At least one.

    Raises
    ------
    InterpreterError
        If it does not start, or refuses a model.
    """

    def __init__(self, models: Sequence[Opened]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="celosia-interpreter-"))
        self._ending: weakref.finalize[Any, InterpreterProcess] = weakref.finalize(
            self, _remove, self._folder
        )
        try:
            self._write(models)
            self._messages = (self._folder / "messages").open("w+b")
            # A group of its own, so that Ctrl-C of a terminal reaches one process only, which then
            # ends the other.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                start_new_session=True,
            )
        except OSError as error:
            self._ending()
            raise InterpreterError(f"cannot be started: {error}") from None
        self._ending.detach()
        ending = weakref.finalize(self, _end, self._process, self._messages, self._folder)
        self._ending = ending
        try:
            self._answer("start")
        except BaseException:
            self.close()
            raise

    def run(self, number: int, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference of a model; return its tensors in order."""
        np.savez(self._folder / "inputs.npz", *inputs)
        self._ask({"run": number})
        with np.load(self._folder / "outputs.npz") as found:
            return [found[name] for name in found.files]

    def time(self, number: int) -> float:
        """Return how many milliseconds an inference of a model takes, on zeros."""
        return float(self._ask({"time": number})["milliseconds"])

    def reset(self) -> None:
        """Let the models forget what they kept from run to run."""
        self._ask({"reset": None})

    def close(self) -> None:
        """End the process with all that it started, and remove its folder."""
        self._ending()

    def _write(self, models: Sequence[Opened]) -> None:
        entries = []
        for number, opened in enumerate(models):
            (self._folder / f"model{number}").write_bytes(opened.model)
            entries.append({key: value for key, value in vars(opened).items() if key != "model"})
        (self._folder / "models.json").write_text(json.dumps(entries), encoding="utf-8")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        # A process that has ended is found when its answer is missing.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer("answer")

    def _answer(self, task: str) -> dict[str, Any]:
        """Wait for the line that says that the task is done."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        end = time.monotonic() + TIME_OUT_S
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise InterpreterError(f"did not {task} within {TIME_OUT_S:g} s")
            part = os.read(handle, 1 << 16)
            if not part:
                raise InterpreterError(self._how_it_ended())
            line += part
        answer: dict[str, Any] = json.loads(line)
        if answer["error"] is not None:
            raise InterpreterError(f"refused the model: {answer['error']}", answer.get("model"))
        return answer

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            return "closed its output"
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        self._messages.seek(0)
        text = self._messages.read().decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"ended with {how}" + (f": {lines[-1]}" if lines else "")


def _end(process: subprocess.Popen[bytes], messages: IO[bytes], folder: Path) -> None:
    """End a process with all that it started, and remove its folder."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, messages):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
