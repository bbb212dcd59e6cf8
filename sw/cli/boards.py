"""``celosia boards``, ``fit``, ``build`` and ``program``: from a model to a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.quantities import KIB, MHZ
from celosia.sw.cli.common import (
    CHECK_FAILED,
    BatchOption,
    FoldOption,
    HostChoice,
    HostOption,
    JsonOption,
    RecordOption,
    ResidentOption,
    error_console,
    help_text,
    output_console,
    result_console,
)
from celosia.sw.cli.completing import complete_board, complete_config
from celosia.sw.report.files import require_writable, write_json
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from celosia.boards.board import Board
    from celosia.boards.fpga.report import BuildReport
    from celosia.sw.report.fit import Fit
    from celosia.sw.report.places import Compile

__all__ = ["register"]

BOARDS_HELP = """
List the boards: FPGA, configuration, clock and memory.

Example:

  celosia boards
"""
FIT_HELP = """
Say before any synthesis whether a model fits a board, and how long an inference takes.

The model is compiled for the board's configuration; memory is counted as the driver lays it out,
cycles are predicted for the board's memory and clock. If it does not fit, the exit code is 1 and
the message says what to change. Without --board all boards make a table. Several models make a
table, with what others have published of the tasks of MLPerf Tiny on FPGAs.

Examples:

  celosia fit kws_int8.tflite

  celosia fit kws_int8.tflite --board ulx3s

  celosia fit kws_int8.tflite --board orangecrab --clock 60 --json fit.json

  celosia fit examples/mlperf_tiny/*.tflite --board ulx3s
"""
BUILD_HELP = """
Build a board's bitstream, and say what it takes of the FPGA and how fast it can be clocked.

Yosys, nextpnr and the packers come from PyPI: pip install "celosia\\[boards]". For the larger
boards it takes many minutes. Nothing is left half-written: what build/boards/NAME holds is replaced
when all is done. If the clock is missed, there is no bitstream unless --allow-slow is given.

Examples:

  celosia build ulx3s

  celosia build ulx3s --clock 50 --seed 3

  celosia build ulx3s --record docs/figures/boards.json

  celosia build arty-a7-100t --project arty.zip
"""
PROGRAM_HELP = """
Load a board's bitstream into its FPGA, with openFPGALoader.

Examples:

  celosia program ulx3s

  celosia program ulx3s --flash
"""

BoardArgument = Annotated[
    str,
    typer.Argument(
        metavar="BOARD",
        autocompletion=complete_board,
        help="Name of a board; 'celosia boards' lists them.",
    ),
]
BoardConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME|FILE.json",
        autocompletion=complete_config,
        help="Hardware configuration; by default the board's.",
    ),
]
ClockOption = Annotated[
    float | None,
    typer.Option("--clock", metavar="MHZ", min=1.0, help="Clock; by default the board's."),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory", metavar="KIB", min=1, help="System memory, where it is on the chip itself."
    ),
]
FolderOption = Annotated[
    Path,
    typer.Option(
        "--output",
        metavar="DIR",
        file_okay=False,
        help="Folder of the boards' builds; each has one of its own in it.",
    ),
]
DEFAULT_FOLDER = Path("build/boards")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("boards", help=help_text(BOARDS_HELP))(boards_command)
    app.command("fit", help=help_text(FIT_HELP))(fit_command)
    app.command("build", help=help_text(BUILD_HELP))(build_command)
    app.command("program", help=help_text(PROGRAM_HELP))(program_command)


def boards_command(json: JsonOption = None) -> None:
    """List the boards."""
    require_writable(json)
    from celosia.boards import registry

    boards: list[Board] = list(registry.BOARDS.values())
    table = Table(header_style="bold", box=None)
    for column in ("board", "FPGA", "config", "MHz", "memory", "KiB", "remark"):
        right = column in ("MHz", "KiB")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "remark")
    for board in boards:
        table.add_row(
            board.name,
            board.device,
            board.config,
            f"{board.clock_hz / MHZ:g}",
            board.memory.kind,
            f"{board.memory.bytes // KIB:,}",
            board.remark,
        )
    result_console().print(table)
    if json is not None:
        write_json(json, {"boards": [_board_figures(board) for board in boards]})


def _board_figures(board: Board) -> dict[str, Any]:
    return {
        "name": board.name,
        "title": board.title,
        "device": board.device,
        "family": board.family,
        "capacity": dict(board.capacity),
        "config": board.config,
        "clock_hz": board.clock_hz,
        "memory": board.memory.kind,
        "memory_bytes": board.memory.bytes,
        "remark": board.remark,
    }


def fit_command(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Models, .tflite or .onnx, quantised to int8."),
    ],
    board: Annotated[
        str | None,
        typer.Option(
            "--board",
            metavar="BOARD",
            autocompletion=complete_board,
            help="'celosia boards' lists them. Default: all of them.",
        ),
    ] = None,
    config: BoardConfigOption = None,
    clock: ClockOption = None,
    memory: MemoryOption = None,
    fold: FoldOption = False,
    batch: BatchOption = 1,
    host: HostOption = HostChoice.ALLOW,
    resident: ResidentOption = None,
    json: JsonOption = None,
) -> None:
    """Say whether models fit a board."""
    from celosia.boards.build import request_of
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.report.fit import (
        board_memory,
        boards_that_fit,
        fit_board,
        heaviest_layers,
        remedies,
        usual_memory,
    )

    require_writable(json)
    if board is None:
        if len(models) > 1 or any(option is not None for option in (config, clock, memory)):
            raise CelosiaError(
                "fit",
                "without --board it is one model on all boards, as they are",
                "give --board, or leave out --config, --clock, --memory and other models",
            )
        _fit_everywhere(
            lambda machine: compile_model(
                models[0],
                machine,
                fold=fold,
                batch=batch,
                host=host.value,
                resident=resident,
                memory=usual_memory(machine),
            ),
            json,
        )
        return
    request = request_of(board, config, clock_mhz=clock, memory_kib=memory)
    chosen, identity = request.board, request.identity
    programs = [
        compile_model(
            model,
            request.config,
            fold=fold,
            batch=batch,
            host=host.value,
            resident=resident,
            memory=board_memory(chosen, request.config, identity.clock_hz),
        )
        for model in models
    ]
    fits = [
        fit_board(program, chosen, clock_hz=identity.clock_hz, memory_bytes=identity.memory_bytes)
        for program in programs
    ]
    if len(models) > 1:
        _report_fits(chosen, fits, json)
        return
    (model,), (program,), (fit,) = models, programs, fits
    _print_fit(chosen, fit)
    others = (
        [] if fit.fits else boards_that_fit(model, chosen, fold=fold, batch=batch, host=host.value)
    )
    if json is not None:
        write_json(
            json,
            {"board": chosen.name, **fit.figures(), "boards_that_fit": [b.name for b in others]},
        )
    if fit.fits:
        return
    console = result_console()
    console.print("What helps:")
    for line in remedies(chosen, fit, heaviest_layers(program), others, folded=fold):
        console.print(f"  - {line}", soft_wrap=True, markup=False)
    raise typer.Exit(CHECK_FAILED)


def _fit_everywhere(compile_for: Compile, target: Path | None) -> None:
    """Print how a model does on every board."""
    from celosia.sw.report.places import board_lines, fits_everywhere, place_figures

    with error_console().status("") as status:
        _, places = fits_everywhere(compile_for, presets=False, progress=status.update)
    console = result_console()
    for line in board_lines(places, console.width):
        console.print(line, soft_wrap=True)
    if target is not None:
        write_json(target, place_figures([], places))
    if all(place.lacking for place in places):
        raise typer.Exit(CHECK_FAILED)


def _report_fits(board: Board, fits: list[Fit], target: Path | None) -> None:
    """Print several models' times, and write them where they were asked for."""
    from celosia.sw.report.fit_table import fit_table

    result_console().print(fit_table(board.title, fits))
    if target is not None:
        write_json(target, {"board": board.name, "fits": [fit.figures() for fit in fits]})
    if not all(fit.fits for fit in fits):
        raise typer.Exit(CHECK_FAILED)


def _print_fit(board: Board, fit: Fit) -> None:
    console = result_console()
    samples = f" of {fit.batch} in a run of" if fit.batch > 1 else ""
    verdict = ("fits", "bold green") if fit.fits else ("does not fit", "bold red")
    about = f"{fit.model} on {board.title}, configuration {fit.config}: "
    console.print(Text.assemble(about, verdict))
    parts = ", ".join(f"{name} {size:,}" for name, size in fit.region_bytes.items() if size)
    console.print(
        f"memory: {fit.needed_bytes:,} bytes of {fit.memory_bytes:,} in {board.memory.kind}"
        f" ({parts})",
        soft_wrap=True,
    )
    console.print(
        f"time: {fit.milliseconds:.3f} ms an inference,{samples} {fit.cycles:,} cycles predicted at"
        f" {fit.clock_hz / MHZ:g} MHz; input and output over the serial line are not in it",
        soft_wrap=True,
    )
    if fit.staying_bytes:
        console.print(
            f"weights: {fit.staying_bytes:,} bytes stay on chip from run to run, loaded once"
        )
    console.print(_line_text(fit), soft_wrap=True)
    if fit.host_operators:
        console.print(_host_text(fit), soft_wrap=True)
    needed, there = fit.multipliers
    console.print(f"multipliers: {needed:,} of {there:,}; tables and registers are not foreseen")
    interval = fit.memory.interval_cycles
    rate = "a bus word a cycle" if interval == 1 else f"a bus word every {interval:.3g} cycles"
    console.print(
        f"assumed: memory that answers after {fit.memory.latency_cycles} cycles, then {rate}"
        + (", on average with refreshes" if board.memory.lost else ""),
        soft_wrap=True,
    )
    if board.remark:
        console.print(f"note: {board.remark}", soft_wrap=True, markup=False)


def _line_text(fit: Fit) -> str:
    text = f"line: {fit.link_bytes:,} bytes an inference"
    if fit.reload_bytes:
        text += f", and {fit.reload_bytes:,} of code and weights, which do not fit side by side"
    return f"{text}: {fit.link_milliseconds:.3g} ms at {fit.link_baud:,} baud"


def _host_text(fit: Fit) -> str:
    text = f"host: {fit.host_operators} operators, "
    if fit.total_milliseconds is None or fit.host_milliseconds is None:
        return f"{text}not measured: not all of them can be, or ai-edge-litert is not installed"
    return (
        f"{text}{fit.host_milliseconds:.3g} ms on this machine; with NPU and line"
        f" {fit.total_milliseconds:.3g} ms an inference"
    )


def build_command(
    board: BoardArgument,
    config: BoardConfigOption = None,
    clock: ClockOption = None,
    memory: MemoryOption = None,
    seed: Annotated[int, typer.Option("--seed", min=1, help="Of the placer.")] = 1,
    allow_slow: Annotated[
        bool,
        typer.Option("--allow-slow", help="Make a bitstream even if its clock is too fast for it."),
    ] = False,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project",
            metavar="FILE.zip",
            dir_okay=False,
            help="Only write design, constraints and scripts for the tools that Amaranth uses,"
            " for example Vivado.",
        ),
    ] = None,
    output: FolderOption = DEFAULT_FOLDER,
    record: RecordOption = None,
    json: JsonOption = None,
) -> None:
    """Build a bitstream."""
    require_writable(json, record, project)
    from celosia.boards import build
    from celosia.sw.report.build import record_report, report_lines, report_table

    request = build.request_of(
        board, config, clock_mhz=clock, memory_kib=memory, seed=seed, allow_slow=allow_slow
    )
    chosen = request.board
    console = output_console()
    if project is not None:
        files = build.write_project(request, project)
        console.print(f"{project}: {', '.join(files)}", soft_wrap=True, markup=False)
        return
    problem: CelosiaError | None = None
    with error_console().status(Text(chosen.name)) as status:
        try:
            report: BuildReport = build.build_board(
                request,
                folder=output,
                progress=lambda stage: status.update(Text(f"{chosen.name}: {stage}")),
            )
        except (build.TooBigError, build.TimingError) as error:
            report, problem = error.report, error
    shown = [report_table(report), *report_lines(report)]
    for part in shown:
        console.print(part, soft_wrap=True, markup=False)
    if json is not None:
        write_json(json, report.figures())
    if record is not None:
        record_report(record, report)
    if problem is not None:
        raise problem
    if report.bitstream:
        path = output / chosen.name / report.bitstream
        console.print(f"{path}: {report.bitstream_bytes:,} bytes", soft_wrap=True, markup=False)


def program_command(
    board: BoardArgument,
    flash: Annotated[
        bool, typer.Option("--flash", help="Write the flash memory, to keep it without power.")
    ] = False,
    output: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Program a board."""
    from celosia.boards import build, program, registry

    chosen = registry.find_board(board)
    bitstream = build.bitstream_path(chosen, output)
    said = program.program_board(chosen, bitstream, flash=flash)
    console = output_console()
    if said.strip():
        console.print(said.strip(), soft_wrap=True, markup=False)
    console.print(f"{chosen.title} has {bitstream}", soft_wrap=True, markup=False)
