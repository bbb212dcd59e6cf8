"""The command line, ``celosia``: one module for each group of commands."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated, NoReturn

import typer
from celosia.sw.cli import bench as cli_bench
from celosia.sw.cli import board_sim as cli_board_sim
from celosia.sw.cli import boards as cli_boards
from celosia.sw.cli import compile as cli_compile
from celosia.sw.cli import demo as cli_demo
from celosia.sw.cli import devices as cli_board
from celosia.sw.cli import mlperf as cli_mlperf
from celosia.sw.cli import resources as cli_resources
from celosia.sw.cli import run as cli_run
from celosia.sw.cli import tools as cli_tools
from celosia.sw.cli.common import CommandGroup, help_text, output_console

__all__ = ["app", "main"]

HELP = """
Celosia: an open microNPU for FPGAs, and the tools to use it.

Compiles int8 .tflite models to programs for the NPU, and runs them on the gateware itself
(simulated cycle by cycle) or on a bit-exact emulator.

Start with: [bold]celosia demo[/]

Exit codes: 0 done, 1 a check found a difference, 2 it could not be done (the message says why and
what helps).
"""

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that would end a program at once, without a chance to tidy up."""
FIRST_SIGNAL_CODE = 128
"""Exit code of a program that a signal has ended, to which the signal's number is added."""

app = typer.Typer(
    cls=CommandGroup,
    help=help_text(HELP),
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output_console().print(f"celosia {version('celosia')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the command."""


cli_demo.register(app)
cli_compile.register(app)
cli_run.register(app)
cli_bench.register(app)
cli_tools.register(app)
cli_resources.register(app)
cli_board.register(app)
cli_boards.register(app)
cli_board_sim.register(app)
cli_mlperf.register(app)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does: tools are stopped, and what is half made is deleted."""
    for again in ENDING:
        signal.signal(again, signal.SIG_IGN)
    raise SystemExit(FIRST_SIGNAL_CODE + number)


def main() -> None:
    """Run the command line (the entry point of the installed script)."""
    for number in ENDING:
        # One that is ignored, as below nohup, stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    app()
