"""``celosia mlperf-run``: the public runner of MLPerf Tiny, on a device of this project."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from celosia.errors import CelosiaError, InputError
from celosia.quantities import MHZ
from celosia.sw.cli.common import JsonOption, help_text, output_console, result_console
from celosia.sw.cli.mlperf import (
    ClockOption,
    DutConfigOption,
    DutDeviceOption,
    ModelFileOption,
    ServedDut,
    TaskOption,
    find_task,
    served_dut,
)
from celosia.sw.report.files import require_writable, write_json

__all__ = ["register"]

HELP = """
Run the public runner of MLPerf Tiny, unmodified, against the NPU.

DIR is the folder benchmark/runner of a checkout of github.com/mlcommons/tiny. The runner is started
in a process of its own; a launcher answers its search for a serial port with the device's
pseudo-terminal. What it finds at its end is printed beside what Celosia itself says of the same
inferences, and written by --json.

--mode performance asks for inferences a second, on a device with a clock: 'sim', at the clock of
--clock, or a board, with its own name and clock. --mode accuracy runs all inputs of the data set:
'emu' gives the same results as the hardware in less time.

Data sets are the benchmark's: a folder for each test (kws01, ic01, vww01, ad01), with y_labels.csv
in it. They are looked for in DIR/datasets.

Examples:

  celosia mlperf-run --runner tiny/benchmark/runner --model kws

  celosia mlperf-run --runner tiny/benchmark/runner --model kws --mode accuracy --device emu

  celosia mlperf-run --runner tiny/benchmark/runner --model ic --device uart:auto --output logs
"""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("mlperf-run", help=help_text(HELP))(mlperf_run_command)


def mlperf_run_command(
    runner: Annotated[
        Path, typer.Option("--runner", metavar="DIR", help="The runner's folder, with main.py.")
    ],
    model: TaskOption,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            metavar="performance|accuracy",
            help="What to find out. Default: performance; on 'emu' accuracy.",
        ),
    ] = None,
    datasets: Annotated[
        Path | None,
        typer.Option("--datasets", metavar="DIR", help="Data sets. Default: datasets in DIR."),
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(
            "--script", metavar="FILE.yaml", help="Test script. Default: the runner's of the mode."
        ),
    ] = None,
    inferences: Annotated[
        int | None,
        typer.Option(
            "--inferences",
            metavar="N",
            min=1,
            help="In each of the five loops of performance mode, instead of the runner's own test"
            " script. The runner calls a run of less than ten seconds invalid.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="DIR", file_okay=False, help="Keep what the runner writes here."
        ),
    ] = None,
    file: ModelFileOption = None,
    config: DutConfigOption = None,
    device: DutDeviceOption = "sim",
    clock: ClockOption = None,
    json: JsonOption = None,
) -> None:
    """Run the benchmark's runner."""
    from celosia.sw.mlperf import runner as public

    require_writable(json)
    task = find_task(model)
    mode = mode or ("accuracy" if device == "emu" else "performance")
    if mode not in public.MODES:
        raise InputError(f"mode {mode!r}", "no such mode", f"use {' or '.join(public.MODES)}")
    if mode == "performance" and device == "emu":
        raise CelosiaError(
            "device 'emu'", "it has no clock to time with", "use 'sim', or --mode accuracy"
        )
    if inferences is not None and (script is not None or mode != "performance"):
        raise InputError(
            "--inferences", "it is about the loops of performance mode", "leave it or --script out"
        )
    main = public.check_runner(runner)
    data = datasets or runner / "datasets"
    truth = data / task.profile / "y_labels.csv"
    if not truth.is_file():
        raise InputError(
            f"data set of {task.profile}",
            f"there is no file {truth}",
            "name the folder that has it with --datasets",
        )
    tests = script or (None if inferences else public.find_script(runner, mode))
    if script is not None and not script.is_file():
        raise InputError(f"test script {script}", "there is no such file", "check the path")
    report = output_console()
    with _folder(output) as folder, served_dut(task, file, config, device, clock) as dut:
        report.print(dut.about)
        if tests is None:
            tests = folder / "tests.yaml"
            public.write_script(tests, task, inferences or 1)
        try:
            found = public.run_runner(
                main,
                port=dut.line.path,
                tests=tests,
                datasets=data,
                mode=mode,
                folder=folder,
                serve=dut.serve,
                show=lambda line: report.print(f"  | {line}", soft_wrap=True),
            )
        except CelosiaError as error:
            if dut.session.problems:
                said = f"{error.cause}\nThe device answered: {dut.session.problems[-1]}"
                raise CelosiaError(error.what, said, error.remedy) from None
            raise
    figures = _figures(dut, mode, found, data / task.profile)
    _print(figures)
    if json is not None:
        write_json(json, {"model": task.profile, **figures})


@contextlib.contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """Give the folder that the runner is started in."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="celosia-mlperf-") as name:
            yield Path(name)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CelosiaError(
            f"folder {output}", error.strerror or str(error), "name another with --output"
        ) from None
    yield output


def _figures(dut: ServedDut, mode: str, found: Any, data: Path) -> dict[str, Any]:
    """Return what the runner says, and what is known here of the same inferences."""
    from celosia.sw.mlperf.truth import own_accuracy

    session = dut.session
    own: dict[str, Any] = {}
    if mode == "performance" and dut.clock_hz is not None and session.cycles:
        cycles = session.cycles / session.inferences
        own = {
            "cycles": cycles,
            "inferences_per_s": dut.clock_hz / cycles,
            "predicted_inferences_per_s": dut.clock_hz / dut.program.predicted_cycles,
        }
    elif accuracy := own_accuracy(data, session.scores):
        own = {
            "inputs": accuracy.inputs,
            "accuracy_percent": accuracy.top1_percent,
            "auc": accuracy.auc,
        }
    runner = {
        "inferences_per_s": found.inferences_per_s if mode == "performance" else None,
        "accuracy_percent": found.accuracy_percent,
        "auc": found.auc,
        "invalid": list(found.invalid),
    }
    return {
        "mode": mode,
        "name": dut.name,
        "device": dut.device,
        "config": dut.program.config.name,
        "clock_hz": dut.clock_hz,
        "inferences": session.inferences,
        "runner": runner,
        "own": own,
    }


def _print(figures: dict[str, Any]) -> None:
    out, runner, own = result_console(), figures["runner"], figures["own"]
    out.print(f"{figures['name']}, {figures['inferences']:,} inferences:")
    if figures["mode"] == "performance":
        clock = f"{figures['clock_hz'] / MHZ:g} MHz"
        out.print(f"  runner:  {runner['inferences_per_s']:,.1f} inferences/s at {clock}")
        if own:
            out.print(
                f"  celosia: {own['inferences_per_s']:,.1f} inferences/s,"
                f" {own['cycles']:,.0f} cycles each;"
                f" predicted {own['predicted_inferences_per_s']:,.1f}"
            )
    else:
        out.print(f"  runner:  {_accuracy(runner)}")
        if own:
            out.print(f"  celosia: {_accuracy(own)}, of {own['inputs']:,} inputs")
    for reason in runner["invalid"]:
        out.print(f"  not to be submitted, says the runner: {reason}", soft_wrap=True)


def _accuracy(figures: dict[str, Any]) -> str:
    parts = [] if figures["auc"] is None else [f"AUC {figures['auc']:.3f}"]
    if figures["accuracy_percent"] is not None:
        parts.insert(0, f"accuracy {figures['accuracy_percent']:.1f} %")
    return ", ".join(parts)
