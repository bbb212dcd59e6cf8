"""The command line, ``celosia``: one module for each group of commands, imported on demand."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Annotated, Any, NoReturn

import typer
from celosia.sw.cli.common import CommandGroup, QuietOption, help_text
from celosia.version import VERSION
from typer.core import TyperCommand

__all__ = ["app", "main"]

HELP = """
Celosia: an open microNPU for FPGAs, and the tools to use it.

Compiles int8 .tflite and .onnx models to programs for the NPU, and runs them on the gateware itself
(simulated cycle by cycle) or on a bit-exact emulator.

Start with: [bold]celosia demo[/]

Exit codes: 0 done, 1 a check found a difference, 2 it could not be done (the message says why and
what helps).
"""

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that would end a program at once, without a chance to tidy up."""
FIRST_SIGNAL_CODE = 128
"""Exit code of a program that a signal has ended, to which the signal's number is added."""


def _demo() -> ModuleType:
    from celosia.sw.cli import demo

    return demo


def _analyze() -> ModuleType:
    from celosia.sw.cli import analyze

    return analyze


def _compile() -> ModuleType:
    from celosia.sw.cli import compile

    return compile


def _run() -> ModuleType:
    from celosia.sw.cli import run

    return run


def _report() -> ModuleType:
    from celosia.sw.cli import report

    return report


def _bench() -> ModuleType:
    from celosia.sw.cli import bench

    return bench


def _energy() -> ModuleType:
    from celosia.sw.cli import energy

    return energy


def _tools() -> ModuleType:
    from celosia.sw.cli import tools

    return tools


def _resources() -> ModuleType:
    from celosia.sw.cli import resources

    return resources


def _devices() -> ModuleType:
    from celosia.sw.cli import devices

    return devices


def _boards() -> ModuleType:
    from celosia.sw.cli import boards

    return boards


def _board_sim() -> ModuleType:
    from celosia.sw.cli import board_sim

    return board_sim


def _mlperf() -> ModuleType:
    from celosia.sw.cli import mlperf

    return mlperf


def _mlperf_run() -> ModuleType:
    from celosia.sw.cli import mlperf_run

    return mlperf_run


COMMANDS: dict[str, Callable[[], ModuleType]] = {
    "demo": _demo,
    "analyze": _analyze,
    "compile": _compile,
    "run": _run,
    "report": _report,
    "bench": _bench,
    "energy": _energy,
    "verilog": _tools,
    "disasm": _tools,
    "info": _tools,
    "resources": _resources,
    "clock": _resources,
    "devices": _devices,
    "selftest": _devices,
    "boards": _boards,
    "fit": _boards,
    "build": _boards,
    "program": _boards,
    "board-sim": _board_sim,
    "mlperf-dut": _mlperf,
    "mlperf-run": _mlperf_run,
}
"""The commands in the order of the help, with the module that each is in.

A module is imported when its command is asked for: the compiler alone takes half a second.
"""


class _Commands(CommandGroup):
    """The commands, each from its module."""

    _names_only = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return the commands that begin so, without importing them for a line of help."""
        self._names_only = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._names_only = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        if self._names_only:
            return TyperCommand(cmd_name)
        of_module = typer.Typer(rich_markup_mode="rich")
        # A group, even of one command.
        of_module.callback()(_options)
        COMMANDS[cmd_name]().register(of_module)
        group: Any = typer.main.get_group(of_module)
        command = group.commands[cmd_name]
        # It may stand behind the command as well; only its callback has an effect.
        (quiet,) = (option for option in group.params if option.name == "quiet")
        quiet.expose_value = False
        command.params.append(quiet)
        return command


app = typer.Typer(
    cls=_Commands,
    help=help_text(HELP),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"celosia {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Options before the command."""


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
