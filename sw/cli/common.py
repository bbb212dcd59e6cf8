"""What the commands share: errors, configurations, consoles and option types."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS
from celosia.sw.cli.completing import complete_config
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "BatchOption",
    "ResidentOption",
    "CHECK_FAILED",
    "COULD_NOT",
    "CommandGroup",
    "ConfigOption",
    "FoldOption",
    "HostChoice",
    "ExactOption",
    "HostOption",
    "JsonOption",
    "QuietOption",
    "RecordOption",
    "error_console",
    "help_text",
    "output_console",
    "progress_bar",
    "result_console",
    "show_error",
]

CHECK_FAILED = 1
"""Exit code: the command did its work, and what it checked is wrong."""
COULD_NOT = 2
"""Exit code: the command could not do its work."""
PIPE_WIDTH = 132
"""Columns of a table that is not written to a terminal."""


@dataclass(frozen=True)
class _Saying:
    """What a command prints, and where.

    Attributes
    ----------
    quiet : bool
        No reports and no progress.
    json_out : bool
        Standard output is for JSON and nothing else; what is for people goes to standard error.
    """

    quiet: bool = False
    json_out: bool = False


_USUAL = _Saying()
_saying: ContextVar[_Saying] = ContextVar("_saying", default=_USUAL)
"""Of the command that is being run; its options set it while they are read."""


def _be_quiet(wanted: bool) -> bool:
    if wanted:
        _saying.set(replace(_saying.get(), quiet=True))
    return wanted


def _json_target(path: Path | None) -> Path | None:
    if path is not None:
        # Late: it brings numpy, which takes longer to import than all of this.
        from celosia.sw.report.files import STANDARD_OUTPUT

        if path == STANDARD_OUTPUT:
            _saying.set(replace(_saying.get(), json_out=True))
    return path


class HostChoice(StrEnum):
    """Values of ``--host``."""

    ALLOW = "allow"
    REFUSE = "refuse"


ConfigOption = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="NAME|FILE.json",
        autocompletion=complete_config,
        help=f"Hardware configuration: {', '.join(PRESETS)}, or a JSON file with fields of"
        " NpuConfig ('celosia info' shows the presets).",
    ),
]
FoldOption = Annotated[
    bool,
    typer.Option(
        "--fold",
        help="Remove channels that are constant or that nothing reads, exactly: equal outputs,"
        " fewer multiplications.",
    ),
]
ResidentOption = Annotated[
    bool | None,
    typer.Option(
        "--resident/--no-resident",
        help="Weights stay on chip from run to run, as many as there is room for. Default: if the"
        " configuration is a board's own, such as ulx3s.",
    ),
]
BatchOption = Annotated[
    int,
    typer.Option(
        "--batch",
        metavar="N",
        min=1,
        help="Samples of a run: rows of the same tensors where the layers allow it, so that weights"
        " are loaded once for all; else one after the other.",
    ),
]
ExactOption = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="ONNX: leave what is not proven equal to onnxruntime for all inputs to the host.",
    ),
]
HostOption = Annotated[
    HostChoice,
    typer.Option(
        "--host",
        help="What happens to operators that the NPU does not run: the host runs them, or the model"
        " is refused, with all reasons.",
    ),
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE|-",
        dir_okay=False,
        allow_dash=True,
        callback=_json_target,
        help="Also write all figures to FILE as JSON. '-' is standard output, which then has"
        " nothing else: tables go to standard error.",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_be_quiet,
        help="Print only errors and what was asked for: no reports, no progress.",
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--record",
        metavar="FILE.json",
        dir_okay=False,
        help="Put the figures into a record that documents are made from, by 'make docs'; those of"
        " this project are in docs/figures.",
    ),
]


def help_text(text: str) -> str:
    """Return help in the form that typer prints as it is meant.

    Lines of a paragraph become one, to be wrapped to the terminal's width; indented lines
    (commands to copy) stay lines of their own.
    """
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith("  ") else " ".join(paragraph.split())
        for paragraph in paragraphs
    )


def output_console() -> Console:
    """Return the console for reports; made anew, since tests replace standard output.

    Names of files, tensors and packages have brackets, which are no markup: what has a style is
    `rich.text.Text`. With ``--quiet`` it prints nothing; with ``--json -`` it is standard error.
    """
    return _console(quiet=_saying.get().quiet)


def result_console() -> Console:
    """Return the console for what a command was asked for, which ``--quiet`` leaves.

    That are the outputs of an inference, a listing, the path of a terminal. Beside ``--json -``,
    which has them, ``--quiet`` leaves them out as well.
    """
    saying = _saying.get()
    return _console(quiet=saying.quiet and saying.json_out)


def _console(*, quiet: bool) -> Console:
    from rich.console import Console

    aside = _saying.get().json_out
    # A width that is asked for holds for a pipe, too.
    asked = os.environ.get("COLUMNS", "").isdecimal()
    width = None if asked or (sys.stderr if aside else sys.stdout).isatty() else PIPE_WIDTH
    return Console(
        stderr=aside, quiet=quiet, width=width, highlight=False, markup=False, emoji=False
    )


def error_console() -> Console:
    """Return the console for progress and warnings; nothing with ``--quiet``."""
    from rich.console import Console

    return Console(
        stderr=True, quiet=_saying.get().quiet, highlight=False, markup=False, emoji=False
    )


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` are done, on standard error, if it is a terminal.

    Yields
    ------
    callable
        Takes the number that are done.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = error_console()
    with Progress(
        "[progress.description]{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def show_error(error: CelosiaError) -> None:
    """Print an error: what failed and why, then what to do about it."""
    from rich.text import Text

    console = error_console()
    console.quiet = False
    text = f"{error.what}: {error.cause}" if error.cause else error.what
    console.print(Text.assemble(("error", "bold red"), f": {text}"), soft_wrap=True)
    if error.remedy:
        remedy = f"{error.remedy[:1].upper()}{error.remedy[1:]}"
        console.print(f"  {remedy}", soft_wrap=True)


class CommandGroup(TyperGroup):
    """Commands whose Celosia errors become messages."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Begin: what an earlier command of this process was told is over."""
        _saying.set(_USUAL)
        return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; end with a message and an exit code instead of a traceback."""
        try:
            return super().invoke(ctx)
        except CelosiaError as error:
            show_error(error)
            raise typer.Exit(COULD_NOT) from None
