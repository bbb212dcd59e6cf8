"""What every tensor of a model must be: the golden model, and the reference interpreter.

The reference interpreter is somebody else's C++: it may refuse a file, or end its process by an
assertion.  So it has a process of its own (see :mod:`celosia.sw.reference.worker`), and what
happens to it there is a sentence here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.errors import UnsupportedError
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.reference.golden import GoldenModel, UnsupportedModelError

__all__ = ["Expected", "ReferenceModel", "interpreter_installed"]

Array = npt.NDArray[Any]

WORKER = Path(__file__).with_name("worker.py")
WRONG_IN_REFERENCE = frozenset({"SUM"})
"""Operators that the reference kernels have, with results that depend on nothing that is set."""
TIME_OUT_S = 300.0
"""Of the interpreter's start, and of each inference: it is slow, and machines are busy."""


def interpreter_installed() -> bool:
    """Whether ``ai-edge-litert`` is there (``pip install "celosia[check]"``)."""
    return importlib.util.find_spec("ai_edge_litert") is not None


@dataclass(frozen=True)
class Expected:
    """The tensors of one inference, as one source computes them.

    Attributes
    ----------
    source : str
        ``golden model`` or ``reference interpreter``.
    tensors : dict of str to ndarray
        By the compiler's name, in the order in which the model's operators write them.
    """

    source: str
    tensors: dict[str, Array]


class ReferenceModel(Closing):
    """One model in everything that can say what its tensors are; to be closed after use.

    Parameters
    ----------
    path : Path
        The ``.tflite`` file.
    interpreter : bool, optional
        Whether to ask the reference interpreter too; by default if it is installed.

    Attributes
    ----------
    operators : dict of str to int
        Every computed tensor that the outputs depend on, in the order in which they are computed,
        and the number of the operator that writes it.
    unconfirmed : str or None
        Why the reference interpreter says nothing, or nothing more, of this model; None while it
        does, and when nobody asked it.

    Raises
    ------
    ModelError
        If the model cannot be read.
    UnsupportedError
        If the golden model lacks one of its operators.
    """

    def __init__(self, path: Path, *, interpreter: bool | None = None) -> None:
        self._path = path
        graph = load(path)
        try:
            self._golden = GoldenModel(graph)
        except UnsupportedModelError as error:
            raise self._cannot(error) from None
        self._input_names = [info.name for info in self._golden.inputs]
        # By number: names of a file may repeat, or be no text.
        self._order: dict[str, int] = {}
        self.operators: dict[str, int] = {}
        for op in self._golden.operators:
            for index in op.outputs:
                name = self._golden.tensors[index].name
                self._order[name] = index
                self.operators[name] = op.position
        self.unconfirmed: str | None = None
        self._interpreter: _Interpreter | None = None
        if interpreter_installed() if interpreter is None else interpreter:
            self._start(path.read_bytes())

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of what the results are compared with."""
        return ("golden model", *(["reference interpreter"] if self._interpreter else []))

    def samples(self, shape: Sequence[int]) -> int:
        """Return how many samples a first input of this shape has."""
        return math.prod(shape) // max(1, math.prod(self._golden.inputs[0].shape))

    def run(self, inputs: Mapping[str, Array]) -> list[Expected]:
        """Run one inference; the next one begins with the variables that it leaves.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            By input name; several samples are one after the other, and each runs alone.

        Returns
        -------
        list of Expected
            One entry a source; tensors of several samples have these as a new first axis.

        Raises
        ------
        UnsupportedError
            If the golden model cannot compute one of the operators as it is here.
        """
        ordered = [inputs[name] for name in self._input_names]
        samples = self.samples(ordered[0].shape)
        if samples <= 1:
            return self._run_one(ordered)
        shapes = [info.shape for info in self._golden.inputs]
        split = [a.reshape(samples, *shape) for a, shape in zip(ordered, shapes, strict=True)]
        runs = [self._run_one([array[number] for array in split]) for number in range(samples)]
        # A source that gave up on the way says nothing of the samples before either.
        return [
            Expected(each[0].source, _stacked([expected.tensors for expected in each]))
            for each in zip(*runs, strict=False)
        ]

    def _run_one(self, ordered: list[Array]) -> list[Expected]:
        try:
            values = self._golden.run_by_index(ordered)
        except ValueError as error:
            raise self._cannot(error) from None
        golden = {name: values[index] for name, index in self._order.items()}
        results = [Expected("golden model", golden)]
        if self._interpreter is not None:
            try:
                found = self._interpreter.run(ordered)
            except _ReferenceError as failure:
                self._give_up(failure)
            else:
                tensors = {name: found[index] for name, index in self._order.items()}
                results.append(Expected("reference interpreter", tensors))
        return results

    def restore(self, values: Sequence[Array]) -> None:
        """Let the variables hold these values, in the model's order; before the first inference.

        The interpreter's variables cannot be set from outside: from here on it says nothing.
        """
        self._golden.restore(values)
        if self._interpreter is not None:
            self._give_up(_ReferenceError("cannot begin with a given state"))

    def close(self) -> None:
        """End the interpreter's process."""
        if self._interpreter is not None:
            self._interpreter.close()

    def _start(self, content: bytes) -> None:
        wrong = {op.name for op in self._golden.operators} & WRONG_IN_REFERENCE
        if wrong:
            self.unconfirmed = f"the reference kernels compute {sorted(wrong)[0]} wrongly"
            return
        inputs = [info.index for info in self._golden.inputs]
        try:
            self._interpreter = _Interpreter(content, inputs, list(self._order.values()))
        except _ReferenceError as failure:
            self._give_up(failure)

    def _give_up(self, failure: _ReferenceError) -> None:
        self.unconfirmed = f"the reference interpreter {failure}"
        if self._interpreter is not None:
            self._interpreter.close()
            self._interpreter = None

    def _cannot(self, error: ValueError) -> UnsupportedError:
        return UnsupportedError(
            f"cannot check {self._path}",
            str(error),
            "run it without --check",
            file=str(self._path),
        )


def _stacked(samples: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.stack([tensors[name] for tensors in samples]) for name in samples[0]}


class _ReferenceError(Exception):
    """What the reference interpreter did instead of answering; follows its name."""


class _Interpreter(Closing):
    """The reference interpreter in a process of its own.

    Arrays and the model go through files of a temporary folder, and a line each way says that they
    are there; so neither side can wait for the other to read.
    """

    def __init__(self, content: bytes, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="celosia-reference-")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            folder = Path(self._folder.name)
            (folder / "model.tflite").write_bytes(content)
            tensors = {"inputs": list(inputs), "outputs": list(outputs)}
            (folder / "tensors.json").write_text(json.dumps(tensors), encoding="utf-8")
            self._messages = (folder / "messages").open("w+b")
            # A group of its own, so that Ctrl-C of a terminal reaches one process only, which then
            # ends the other.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                start_new_session=True,
            )
            self._answer("start")
        except OSError as error:
            self.close()
            raise _ReferenceError(f"cannot be started: {error}") from None
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Sequence[Array]) -> dict[int, Array]:
        """Run one inference; return the tensors by index."""
        assert self._process is not None
        assert self._process.stdin is not None
        folder = Path(self._folder.name)
        np.savez(folder / "inputs.npz", *inputs)
        # A process that has ended is found when its answer is missing.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"run\n")
            self._process.stdin.flush()
        self._answer("answer")
        with np.load(folder / "outputs.npz") as found:
            return {int(name): found[name] for name in found.files}

    def close(self) -> None:
        """End the process with all that it started, and remove its folder."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                if self._process.poll() is None:
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._messages.close()
            self._process = None
        self._folder.cleanup()

    def _answer(self, task: str) -> None:
        """Wait for the line that says that the task is done."""
        assert self._process is not None
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        end = time.monotonic() + TIME_OUT_S
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise _ReferenceError(f"did not {task} within {TIME_OUT_S:g} s")
            part = os.read(handle, 1 << 16)
            if not part:
                raise _ReferenceError(self._end())
            line += part
        answer = json.loads(line)
        if answer["error"] is not None:
            raise _ReferenceError(f"refused the model: {answer['error']}")

    def _end(self) -> str:
        """Say how the process ended."""
        assert self._process is not None
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
