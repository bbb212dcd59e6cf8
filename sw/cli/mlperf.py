"""``celosia mlperf-dut``: a device for the runner of MLPerf Tiny."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from celosia.errors import CelosiaError, InputError
from celosia.examples import MLPERF_TINY
from celosia.hw.contract.named import resolve_config
from celosia.hw.contract.uart import Identity
from celosia.quantities import MHZ
from celosia.sw.cli.common import help_text, result_console
from celosia.sw.cli.completing import complete_config, complete_device
from celosia.sw.cli.opening import find_device, open_device_for
from celosia.sw.driver.opening import UART
from celosia.sw.mlperf.tasks import TASKS, Task

if TYPE_CHECKING:
    from celosia.sim.board.pty_line import PtyLine
    from celosia.sw.mlperf.session import Session
    from celosia.sw.program.file import Program

__all__ = [
    "ClockOption",
    "DutConfigOption",
    "DutDeviceOption",
    "ModelFileOption",
    "ServedDut",
    "TaskOption",
    "find_task",
    "register",
    "served_dut",
]

HELP = """
Be the device under test of the MLPerf Tiny benchmark.

Opens a pseudo-terminal, prints its path, and answers there in the benchmark's serial protocol
until interrupted (Ctrl-C). 'celosia mlperf-run' starts the benchmark's runner as well.

Lap times are the device's: clock cycles of the inferences over the clock. On 'sim' the cycles are
those of the gateware, the clock is the one given with --clock, and the device's name says that it
is simulated. A board has its own name and clock. 'emu' has no clock: its laps are this machine's
time, for the accuracy mode, which needs none.

Examples:

  celosia mlperf-dut --model kws

  celosia mlperf-dut --model ad --config large --clock 50

  celosia mlperf-dut --model ic --device uart:auto
"""
WAIT_S = 0.2
CLOCK_MHZ = 80.0
"""Of a simulated device, unless the command says otherwise."""

TaskOption = Annotated[
    str, typer.Option("--model", metavar="|".join(TASKS), help="The test to take.")
]
ModelFileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="M.tflite", help="Its model. Default: in examples/mlperf_tiny."),
]
DutConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME|FILE.json",
        autocompletion=complete_config,
        help="Hardware configuration. Default: what a board has, else base.",
    ),
]
DutDeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="sim|emu|uart:PORT|uart:auto",
        autocompletion=complete_device,
        help="Where it runs.",
    ),
]
ClockOption = Annotated[
    float | None,
    typer.Option(
        "--clock",
        metavar="MHZ",
        min=0.001,
        help=f"Clock of a simulated device. Default: {CLOCK_MHZ:g}.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("mlperf-dut", help=help_text(HELP))(mlperf_command)


def mlperf_command(
    model: TaskOption,
    file: ModelFileOption = None,
    config: DutConfigOption = None,
    device: DutDeviceOption = "sim",
    clock: ClockOption = None,
) -> None:
    """Serve the benchmark's protocol on a pseudo-terminal."""
    out = result_console()
    with served_dut(find_task(model), file, config, device, clock) as dut:
        out.print(dut.about)
        out.print(f"device under test: {dut.line.path}")
        out.print("end with Ctrl-C")
        try:
            while True:
                dut.serve(WAIT_S)
        except KeyboardInterrupt:
            out.print("ended")


@dataclass(frozen=True)
class ServedDut:
    """A device under test at its terminal.

    Attributes
    ----------
    name : str
        As it says it to the runner.
    device : str
        As the command line names it.
    clock_hz : int, optional
        None: it has no clock.
    program : Program
    session : Session
    line : PtyLine
    about : str
        Test, device, configuration and clock, in words.
    """

    name: str
    device: str
    clock_hz: int | None
    program: Program
    session: Session
    line: PtyLine
    about: str

    def serve(self, wait_s: float) -> bool:
        """Answer what comes within some seconds; return whether anything has come."""
        data = self.line.read(wait_s)
        self.session.feed(data)
        return bool(data)


def find_task(model: str) -> Task:
    """Return a test of the benchmark.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if model not in TASKS:
        raise InputError(
            f"test {model!r}", "there is no such test", f"use one of {', '.join(TASKS)}"
        )
    return TASKS[model]


@contextlib.contextmanager
def served_dut(
    task: Task, file: Path | None, config: str | None, device: str, clock_mhz: float | None
) -> Iterator[ServedDut]:
    """Compile a test's model, open a device, and let it answer at a terminal of its own.

    Raises
    ------
    CelosiaError
        If the model is not there or does not run on the NPU alone, there is no such device, or it
        has a clock of its own beside the one that is asked for.
    """
    from celosia.sim.board.pty_line import PtyLine
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.mlperf.session import Session

    path = _model_path(task, file)
    if clock_mhz is not None and (device == "emu" or device.startswith(UART)):
        what = "it has no clock" if device == "emu" else "the board has a clock of its own"
        raise CelosiaError(f"--clock with device {device!r}", what, "leave --clock out")
    device, chosen = find_device(device, None if config is None else resolve_config(config))
    # The time that the protocol reports is the NPU's.
    program = compile_model(path, chosen, host="refuse")
    with open_device_for(program, device) as opened, PtyLine() as line:
        board = getattr(opened, "board", None)
        clock_hz: int | None = round((clock_mhz or CLOCK_MHZ) * MHZ)
        name, kind = f"celosia-{chosen.name}", "simulated"
        if isinstance(board, Identity):
            name, clock_hz = f"celosia-{board.board}-{chosen.name}", board.clock_hz
            kind = "simulated" if board.simulated else ""
        elif device == "emu":
            clock_hz, kind = None, "emulated"
        name += f"-{kind}" if kind else ""
        speed = "no clock" if clock_hz is None else f"{clock_hz / MHZ:g} MHz"
        session = Session(task, program, opened, clock_hz=clock_hz, name=name, send=line.write_all)
        about = f"{task.profile} on {device}, {chosen.name}, {speed}" + (
            f" ({kind})" if kind else ""
        )
        yield ServedDut(name, device, clock_hz, program, session, line, about)


def _model_path(task: Task, file: Path | None) -> Path:
    path = file or MLPERF_TINY / task.file
    if not path.is_file():
        raise InputError(
            f"model of {task.profile}",
            f"there is no file {path}",
            f"give {task.file} of the benchmark with --file",
        )
    return path
