"""``celosia report``: an inference as a page."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.hw.contract.named import resolve_config
from celosia.sw.cli.common import (
    BatchOption,
    FoldOption,
    HostChoice,
    HostOption,
    JsonOption,
    error_console,
    help_text,
    output_console,
)
from celosia.sw.cli.opening import memory_options
from celosia.sw.cli.options import (
    LATENCY_CYCLES,
    ArrayOption,
    LatencyOption,
    ProgramArgument,
    ProgramConfigOption,
    QuantizeOption,
    StallsOption,
)
from celosia.sw.cli.profiling import advice_of, measure, predict
from celosia.sw.cli.programs import program_of
from celosia.sw.cli.samples import check_input_options
from celosia.sw.program.file import Program
from celosia.sw.report.files import require_writable, write_bytes, write_json
from celosia.sw.report.samples import Sample, load_samples, random_samples

if TYPE_CHECKING:
    from celosia.sw.profile.advice import Advice

__all__ = ["register"]

HELP = """
Write a page that shows where every cycle and byte of an inference goes.

One HTML file without any other: headline figures, a timeline of layers, engines and bus, the
contents of the on-chip memories over time, a roofline, a table of layers with what each waits for,
what runs on the host and why, and the conditions. Any browser shows it, without a network.

By default the inference is run on the gateware itself, simulated cycle by cycle, and the compiler's
prediction stands beside it. --device none, and a machine without the tools for the simulator, give
the prediction alone, and the page says so. Without --input the input is random. Of several samples
the first is run.

Examples:

  celosia report kws_int8.tflite -o report.html

  celosia report kws_int8.tflite -o report.html --config large --json report.json

  celosia report kws_int8.tflite -o report.html --input kws_int8.npy --latency 32

  celosia report kws_int8.tflite -o report.html --energy

  celosia report kws.celosia -o report.html --device none
"""


class Times(StrEnum):
    """Values of ``--device``."""

    SIM = "sim"
    NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("report", help=help_text(HELP))(report_command)


def report_command(
    model: ProgramArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="R.html", dir_okay=False, help="Where to write the page."
        ),
    ],
    config: ProgramConfigOption = None,
    device: Annotated[
        Times | None,
        typer.Option(
            "--device",
            help="Where the times are from: the simulated gateware, or the prediction alone."
            " Default: sim, if its tools are there.",
        ),
    ] = None,
    input_: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="X.npy|X.npz", help="The input."),
    ] = None,
    array: ArrayOption = None,
    quantize: QuantizeOption = False,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", min=0, help="Of the random input and the stalls.")
    ] = 0,
    fold: FoldOption = False,
    batch: BatchOption = 1,
    host: HostOption = HostChoice.ALLOW,
    latency: LatencyOption = None,
    stalls: StallsOption = None,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy",
            help="Also microjoules, as a range: the run once more, in a simulator that counts what"
            " changes (built the first time).",
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Advice without trying changes of the model."),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Write the page."""
    from celosia.sw.energy.measure import measure_energy, require_measurable
    from celosia.sw.report.host import measure_host
    from celosia.sw.report.html.figures import report_figures
    from celosia.sw.report.html.page import report_page

    require_writable(output, json)
    times = _times(device)
    if times is Times.NONE and (stalls is not None or input_ is not None or energy):
        option = "--stalls" if stalls is not None else "--energy" if energy else "--input"
        raise CelosiaError(
            f"{option} without a run", "a prediction knows nothing of it", "use --device sim"
        )
    memory = memory_options("sim", latency, stalls, seed)
    chosen = None if config is None else resolve_config(config)
    program = program_of(model, chosen, fold=fold, batch=batch, host=host)
    conditions: dict[str, Any] = {
        "model_file": model.name,
        "fold": fold,
        "batch": program.batch,
        "one_by_one": program.one_by_one,
        "stall_probability": stalls or 0.0,
    }
    expected = predict(program, latency)
    runs = times is Times.SIM and bool(program.npu_segments)
    if energy:
        require_measurable(program.config, "dram")
    about = "random" if input_ is None else input_.name
    sample = _sample(program, input_, array, seed, quantize=quantize)
    profile = expected
    if runs:
        conditions |= {"input": about, "seed": seed}
        with error_console().status("running on the RTL"):
            profile = measure(program, sample, memory, latency)
    with error_console().status("looking for what to change") as status:
        advice, _ = advice_of(expected, model, fold=fold, quick=quick, progress=status.update)
    joules = None
    if energy:
        cycles = latency or LATENCY_CYCLES
        errors = error_console()
        accounted = measure_energy(program, [sample], about, latency_cycles=cycles, console=errors)
        joules = accounted.figures()
    figures = report_figures(
        profile,
        measure_host(program),
        conditions=conditions,
        advice=[_entry(advised) for advised in advice],
        energy=joules,
    )
    page = report_page(figures).encode()
    write_bytes(output, page)
    if json is not None:
        write_json(json, figures)
    how = "measured on the RTL" if runs else "predicted, nothing was run"
    output_console().print(
        f"{output}: {len(page):,} bytes; {profile.cycles:,} cycles on {program.config.name}, {how}",
        soft_wrap=True,
    )


def _entry(advice: Advice) -> dict[str, Any]:
    """Return an advice as the page takes it."""
    return {
        "title": advice.rule.replace("-", " "),
        "text": advice.text,
        "layer": advice.layers[0] if advice.layers else None,
        "cycles": advice.saved_cycles,
    }


def _times(asked: Times | None) -> Times:
    """Return where times are from; without the simulator's tools, and unless asked, nowhere."""
    if asked is not None:
        return asked
    from celosia.toolchain import missing_tools

    missing = missing_tools()
    if missing:
        error_console().print(f"no simulator, so the times are predicted: {missing}")
    return Times.NONE if missing else Times.SIM


def _sample(
    program: Program, path: Path | None, array: str | None, seed: int, *, quantize: bool
) -> Sample:
    if path is not None:
        found = load_samples(
            program.inputs, path, array=array, quantize=quantize, batch=program.batch
        )
        return found[0]
    check_input_options(path, array=array, quantize=quantize)
    return random_samples(program, 1, seed)[0]
