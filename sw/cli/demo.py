"""``celosia demo``: the example model, from the file to the checked result."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from celosia.errors import InputError
from celosia.hw.contract.named import resolve_config
from celosia.sw.cli.common import (
    CHECK_FAILED,
    ConfigOption,
    JsonOption,
    error_console,
    help_text,
    output_console,
    result_console,
)
from celosia.sw.cli.completing import complete_device
from celosia.sw.cli.opening import open_device_for
from celosia.sw.report.example import load_digits
from celosia.sw.report.files import require_writable, write_json
from celosia.sw.report.lines import check_line, timing_lines
from celosia.sw.report.picture import draw
from celosia.sw.report.tables import layer_table

__all__ = ["register"]

HELP = """
Recognise a handwritten digit on the NPU: compile, run, check, all in one.

The model, an int8 classifier of 19 KB, comes with Celosia (examples/digits). By default it runs
on the gateware itself, simulated cycle by cycle; the first time the simulator is built, which takes
about a minute.

Examples:

  celosia demo

  celosia demo --sample 7 --config large

  celosia demo --device emu

  celosia demo --device netlist --config nano
"""
SAMPLES = 20


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("demo", help=help_text(HELP))(demo_command)


def demo_command(
    config: ConfigOption = "base",
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="sim|emu|netlist",
            autocompletion=complete_device,
            help="See celosia run.",
        ),
    ] = "sim",
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=0, help=f"Image, 0 to {SAMPLES - 1}.")
    ] = 4,
    json: JsonOption = None,
) -> None:
    """Compile, run and check the example."""
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.reference.check import check_model
    from celosia.sw.report.figures import check_figures, run_figures

    require_writable(json)
    chosen = resolve_config(config)
    digits = load_digits()
    if sample >= len(digits.labels):
        raise InputError(
            f"sample {sample}", f"there are {len(digits.labels)}", "choose a smaller number"
        )
    console = output_console()
    with tempfile.TemporaryDirectory(prefix="celosia-") as folder:
        # As a file, so that everything takes the path that a user's model takes.
        path = Path(folder) / "digits_int8.tflite"
        path.write_bytes(digits.model)
        program = compile_model(path, chosen)
        inputs = {program.inputs[0].name: digits.inputs[sample][None]}
        with open_device_for(program, device) as opened:
            started = time.monotonic()
            with error_console().status("running and checking"):
                report = check_model(path, chosen, opened, [inputs], program=program)
            seconds = time.monotonic() - started
    figures = run_figures(program, device, report.results, seconds) | check_figures(report)
    result = report.results[0]
    prediction = int(result.output.reshape(-1).argmax())
    label = int(digits.labels[sample])
    console.print(draw(digits.images[sample]), markup=False)
    console.print()
    result_console().print(f"prediction: {prediction}   label: {label}")
    for line in timing_lines(program, result, figures):
        console.print(line, soft_wrap=True)
    console.print()
    console.print(layer_table(program))
    console.print()
    console = output_console() if report.equal else result_console()
    console.print(check_line(figures), soft_wrap=True, markup=False)
    if json is not None:
        write_json(json, figures | {"sample": sample, "prediction": prediction, "label": label})
    if not report.equal:
        raise typer.Exit(CHECK_FAILED)
