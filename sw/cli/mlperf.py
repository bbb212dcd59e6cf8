"""``celosia mlperf-dut``: a device for the runner of MLPerf Tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from celosia.errors import CelosiaError, InputError
from celosia.hw.contract.named import resolve_config
from celosia.quantities import MHZ
from celosia.sw.cli.common import help_text, result_console
from celosia.sw.cli.opening import open_device_for
from celosia.sw.mlperf.tasks import TASKS, Task

__all__ = ["register"]

HELP = """
Be the device under test of the MLPerf Tiny benchmark.

Opens a pseudo-terminal, prints its path, and answers there in the benchmark's serial protocol
until interrupted (Ctrl-C). Give the path to the runner, for example through pyserial; a
pseudo-terminal has no USB numbers by which it could find it.

Lap times are the device's: clock cycles of the inferences over the clock. On 'sim' the cycles are
those of the gateware, the clock is the one given with --clock, and the device's name says that it
is simulated.

Examples:

  celosia mlperf-dut --model kws

  celosia mlperf-dut --model ad --config large --clock 50
"""
MODELS = Path("../shared/mlperf_tiny")
WAIT_S = 0.2


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("mlperf-dut", help=help_text(HELP))(mlperf_command)


def mlperf_command(
    model: Annotated[
        str, typer.Option("--model", metavar="|".join(TASKS), help="The test to take.")
    ],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", metavar="M.tflite", help=f"Its model. Default: the one in {MODELS}."
        ),
    ] = None,
    config: Annotated[
        str, typer.Option("--config", metavar="NAME|FILE.json", help="Hardware configuration.")
    ] = "base",
    device: Annotated[str, typer.Option("--device", metavar="sim", help="Where it runs.")] = "sim",
    clock: Annotated[
        float,
        typer.Option("--clock", metavar="MHZ", min=0.001, help="Clock of a simulated device."),
    ] = 80.0,
) -> None:
    """Serve the benchmark's protocol on a pseudo-terminal."""
    task = TASKS.get(model)
    if task is None:
        raise InputError(
            f"test {model!r}", "there is no such test", f"use one of {', '.join(TASKS)}"
        )
    if device == "emu":
        raise CelosiaError("device 'emu'", "it has no clock to time with", "use --device sim")
    _serve(task, _model_path(task, file), resolve_config(config), device, round(clock * MHZ))


def _model_path(task: Task, file: Path | None) -> Path:
    path = file or MODELS / task.file
    if not path.is_file():
        raise InputError(
            f"model of {task.profile}",
            f"there is no file {path}",
            f"give {task.file} of the benchmark with --file",
        )
    return path


def _serve(task: Task, path: Path, config: Any, kind: str, clock_hz: int) -> None:
    from celosia.sim.board.pty_line import PtyLine
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.mlperf.session import Session

    # The time that the protocol reports is the NPU's.
    program = compile_model(path, config, host="refuse")
    out = result_console()
    with open_device_for(program, kind) as opened, PtyLine() as line:
        session = Session(
            task,
            program,
            opened,
            clock_hz=clock_hz,
            name=f"celosia-{config.name}-simulated",
            send=line.write_all,
        )
        out.print(f"{task.profile} on {kind}, {config.name}, {clock_hz / MHZ:g} MHz (simulated)")
        out.print(f"device under test: {line.path}")
        out.print("end with Ctrl-C")
        try:
            while True:
                session.feed(line.read(WAIT_S))
        except KeyboardInterrupt:
            out.print("ended")
