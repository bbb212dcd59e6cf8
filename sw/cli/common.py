"""What the commands share: errors, configurations, consoles and option types."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "BatchOption",
    "CHECK_FAILED",
    "COULD_NOT",
    "CommandGroup",
    "ConfigOption",
    "FoldOption",
    "HostChoice",
    "HostOption",
    "JsonOption",
    "RecordOption",
    "error_console",
    "help_text",
    "output_console",
    "show_error",
]

CHECK_FAILED = 1
"""Exit code: the command did its work, and what it checked is wrong."""
COULD_NOT = 2
"""Exit code: the command could not do its work."""
PIPE_WIDTH = 132
"""Columns of a table that is not written to a terminal."""


class HostChoice(StrEnum):
    """Values of ``--host``."""

    ALLOW = "allow"
    REFUSE = "refuse"


ConfigOption = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="NAME|FILE.json",
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
        "--json", metavar="FILE", dir_okay=False, help="Also write all figures to FILE as JSON."
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
    """Return the console for results; made anew, since tests replace standard output.

    Names of files, tensors and packages have brackets, which are no markup: what has a style is
    `rich.text.Text`.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


def error_console() -> Console:
    """Return the console for errors and progress; no markup, as `output_console`."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def show_error(error: CelosiaError) -> None:
    """Print an error: what failed and why, then what to do about it."""
    from rich.text import Text

    console = error_console()
    text = f"{error.what}: {error.cause}" if error.cause else error.what
    console.print(Text.assemble(("error", "bold red"), f": {text}"), soft_wrap=True)
    if error.remedy:
        remedy = f"{error.remedy[:1].upper()}{error.remedy[1:]}"
        console.print(f"  {remedy}", soft_wrap=True)


class CommandGroup(TyperGroup):
    """Commands whose Celosia errors become messages."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; end with a message and an exit code instead of a traceback."""
        try:
            return super().invoke(ctx)
        except CelosiaError as error:
            show_error(error)
            raise typer.Exit(COULD_NOT) from None
