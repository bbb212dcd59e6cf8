"""The serial protocol of MLPerf Tiny, from the device's end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from celosia.errors import CelosiaError
from celosia.sw.driver.device import Device
from celosia.sw.mlperf.tasks import Task
from celosia.sw.program.file import Program

__all__ = ["Session"]

END_OF_COMMAND = b"%"
MAX_COMMAND_BYTES = 4096
MAX_LOAD_BYTES = 1 << 20
FIRMWARE = "ULPMark for tinyML Firmware V0.0.1"
"""What the runner expects to read before it goes on."""
WARM_UP = 10
"""Inferences to warm up with where a command does not say: versions of the runner leave out 0."""
ALIVE_S = 2.0
"""At most so long nothing is said during an inference loop; the runner waits 5 s for a line."""


class Session:
    """Answers commands; one command after the other, each with lines that end in ``m-ready``.

    Time is the device's: clock cycles of the inferences so far, over its clock. Cycles of
    transfers to the device are not in it. Of a device without a clock it is what its inferences
    took on this machine, which says nothing of hardware.

    Parameters
    ----------
    task : Task
    program : Program
        The task's model.
    device : Device
    clock_hz : int, optional
        Of the device; None if it has none, as the emulator.
    name : str
        What ``name`` answers; says so if the device is simulated.
    send : callable
        Takes bytes for the host.

    Attributes
    ----------
    cycles, inferences : int
        All of them so far, those to warm up included.
    scores : list of list of float
        What each loop of inferences gave, the result of its last one.
    problems : list of str
        What has been answered with an error.
    """

    def __init__(
        self,
        task: Task,
        program: Program,
        device: Device,
        *,
        clock_hz: int | None,
        name: str,
        send: Callable[[bytes], None],
    ) -> None:
        self._task, self._program, self._device = task, program, device
        self._clock_hz, self._name, self._send = clock_hz, name, send
        self._source, self._out = program.inputs[0], program.outputs[0]
        self._buffer = b""
        self._expected = 0
        self._loaded = bytearray()
        self._results: str | None = None
        self._spoke = time.monotonic()
        self._lock = threading.Lock()
        self._host_s = 0.0
        self.cycles = 0
        self.inferences = 0
        self.scores: list[list[float]] = []
        self.problems: list[str] = []

    def feed(self, data: bytes) -> None:
        """Take what has come from the host, and answer each command that is complete."""
        self._buffer += data
        while END_OF_COMMAND in self._buffer:
            command, _, self._buffer = self._buffer.partition(END_OF_COMMAND)
            self.execute(command.decode("ascii", errors="replace").strip())
        if len(self._buffer) > MAX_COMMAND_BYTES:
            self._buffer = b""
            self._line("e-[command too long]")
            self._line("m-ready")

    def execute(self, command: str) -> None:
        """Answer one command, without its ``%``."""
        words = command.split()
        try:
            match words:
                case ["name"]:
                    self._line(f"m-name-dut-[{self._name}]")
                case ["profile"]:
                    self._line(f"m-profile-[{FIRMWARE}]")
                    self._line(f"m-model-[{self._task.profile}]")
                case ["timestamp"]:
                    self._lap()
                case ["db", "load", count]:
                    self._start_load(count)
                case ["db", digits]:
                    self._load(digits)
                case ["infer", count]:
                    self._infer(_number(count, "count"), WARM_UP)
                case ["infer", count, warm_up]:
                    self._infer(_number(count, "count"), _number(warm_up, "warm-up"))
                case ["results"]:
                    self._line(f"m-results-[{self._results or ''}]")
                case _:
                    raise ValueError(f"unknown command: {command[:40]}")
        except (ValueError, CelosiaError) as error:
            # A reply is lines: a message must not make one of its own.
            problem = " ".join(str(error).split())
            self.problems.append(problem)
            self._line(f"e-[{problem}]")
        self._line("m-ready")

    def _start_load(self, count: str) -> None:
        size = _number(count, "size")
        if size > MAX_LOAD_BYTES:
            raise ValueError(f"at most {MAX_LOAD_BYTES} bytes can be loaded, not {size}")
        self._expected = size
        self._loaded.clear()
        self._line(f"m-[Expecting {size} bytes]")

    def _load(self, digits: str) -> None:
        data = bytes.fromhex(digits)
        if len(self._loaded) + len(data) > self._expected:
            raise ValueError(f"more than the {self._expected} bytes that were announced")
        self._loaded += data
        if len(self._loaded) == self._expected:
            self._line("m-load-done")

    def _infer(self, count: int, warm_up: int) -> None:
        content = bytes(self._loaded)
        values = self._task.input_array(content, self._source)

        def run(times: int) -> None:
            for index in range(times):
                started = time.monotonic()
                with self._alive(f"m-info-[{index} of {times}]"):
                    result = self._device.run(self._program, [values])
                if self._clock_hz is None:
                    self._host_s += time.monotonic() - started
                elif result.cycles is None:
                    raise CelosiaError("device", "it has no clock", "use 'sim' or a board")
                else:
                    self.cycles += result.cycles
                self.inferences += 1
                self._results = self._task.results(
                    content, self._source, result.outputs[self._out.name], self._out
                )

        self._line(f"m-warmup-start-{warm_up}")
        run(warm_up)
        self._line("m-warmup-done")
        self._line(f"m-infer-start-{count}")
        self._lap()
        run(count)
        self._lap()
        if self._results is not None:
            self.scores.append([float(text) for text in self._results.split(",")])
        self._line("m-infer-done")
        self._line(f"m-results-[{self._results or ''}]")

    def _lap(self) -> None:
        seconds = self._host_s if self._clock_hz is None else self.cycles / self._clock_hz
        self._line(f"m-lap-us-{round(seconds * 1_000_000)}")

    @contextlib.contextmanager
    def _alive(self, text: str) -> Iterator[None]:
        """Say `text` now and then while a slow device, a simulated board, is at one inference."""
        ended = threading.Event()

        def speak() -> None:
            while not ended.wait(max(0.0, self._spoke + ALIVE_S - time.monotonic())):
                self._line(text)

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _line(self, text: str) -> None:
        with self._lock:
            self._spoke = time.monotonic()
            self._send(text.encode("ascii", errors="replace") + b"\n")


def _number(text: str, what: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{what} is not a number: {text[:20]}")
    return int(text)
