"""``celosia analyze``: does it fit, how fast, why not faster, what to change; nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from celosia.sw.cli.common import (
    BatchOption,
    ConfigOption,
    ExactOption,
    FoldOption,
    HostChoice,
    HostOption,
    JsonOption,
    error_console,
    help_text,
    result_console,
)
from celosia.sw.report.files import require_writable, write_json

if TYPE_CHECKING:
    from celosia.hw.contract.config import NpuConfig
    from celosia.sw.program.file import Program
    from celosia.sw.report.places import Place, PresetPlace

__all__ = ["register"]

HELP = """
Say of a model, before it runs: does it fit, how fast is it, why not faster, what to change.

The table says of each operator where it runs, its cycles and their share of the whole, what it
mostly waits for (array: nothing, it multiplies; weights: they are shifted into the array; vector:
requantisation and element-wise work; bus: loads and stores; start: filling and emptying), and what
share of the multipliers it uses. The advice below it is compiled and predicted before it is given,
or says "about". All presets and boards follow. Everything is predicted, no simulator is needed;
'celosia bench --layers' measures.

Examples:

  celosia analyze kws_int8.tflite

  celosia analyze kws_int8.tflite --config large --json kws.json

  celosia analyze vww_96_int8.tflite --fold --quick
"""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("analyze", help=help_text(HELP))(analyze_command)


def analyze_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Any .tflite or .onnx model.")],
    config: ConfigOption = "base",
    fold: FoldOption = False,
    batch: BatchOption = 1,
    host: HostOption = HostChoice.ALLOW,
    exact: ExactOption = False,
    latency: Annotated[
        int | None,
        typer.Option(
            "--latency",
            metavar="CYCLES",
            min=1,
            help="Of the memory, in the table and the advice; boards have their own. Default: 8.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Show every layer of a large model.")] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Compile once: without other presets, boards, and advice to be compiled.",
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Analyse a model."""
    from celosia.hw.contract.named import resolve_config
    from celosia.sw.cli.profiling import advice_of
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.compiler.cost.times import MemoryTiming
    from celosia.sw.profile.profile import predicted_profile
    from celosia.sw.report import analysis, places
    from celosia.sw.report.fit import usual_memory

    require_writable(json)
    chosen = resolve_config(config)
    memory = MemoryTiming() if latency is None else MemoryTiming(latency_cycles=latency)
    console = result_console()
    width = console.width
    blocks = console.encoding.lower().startswith("utf")

    with error_console().status(f"compiling for {chosen.name}") as status:

        def show(title: str, lines: list[str]) -> None:
            status.stop()  # the terminal may be one for both
            for line in [*(["", title] if title else []), *lines]:
                console.print(line, soft_wrap=True)
            status.start()

        def compile_for(machine: NpuConfig) -> Program:
            return compile_model(
                model,
                machine,
                fold=fold,
                batch=batch,
                host=host.value,
                memory=usual_memory(machine),
                exact=exact,
            )

        program = compile_for(chosen)
        profile = predicted_profile(program, memory)
        clock_hz, whose = places.clock_of(chosen)
        fit = places.fit_alone(program, clock_hz, memory)
        show("", analysis.headline(profile, fit, whose, width))
        most = None if all_ else analysis.MOST_LAYERS
        show("Operators", analysis.operator_lines(profile, width, most=most, blocks=blocks))
        advice, untried = advice_of(profile, model, fold=fold, quick=quick, progress=status.update)
        lines = analysis.advice_lines(advice, profile, width, untried)
        show("What to change, and the cycles it saves", lines)
        alone: list[PresetPlace] = []
        boards: list[Place] = []
        if not quick:
            alone, boards = places.fits_everywhere(compile_for, [program], progress=status.update)
            show("Presets", places.preset_lines(alone, width))
            show("Boards", places.board_lines(boards, width))
    if json is not None:
        figures = places.place_figures(alone, boards)
        write_json(json, analysis.analysis_figures(profile, fit, whose, advice, figures))
