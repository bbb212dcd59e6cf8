"""Sessions at the command line, as the documents show them.

The commands stand in the document, behind ``$``; what they print is written below them. A line
``...`` leaves lines out: as many lines as there are before and behind it stay. A session on the RTL
is not run again by ``make docs`` but taken from the record; ``python -m
celosia.sw.docgen.sessions`` runs it and records what it prints.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from celosia.errors import CelosiaError
from celosia.sw.docgen.marks import NotHereError
from celosia.sw.docgen.sources import Sources
from celosia.sw.report.records import put_entry, read_entries

__all__ = ["main", "recorded_session", "run_session"]

TIME_OUT_S = 600
PROMPT = "$ "
LEFT_OUT = "..."
TINY = "examples/mlperf_tiny"
RECORDED = (
    "celosia demo",
    f"celosia run {TINY}/kws_int8.tflite --input {TINY}/kws_int8.npy --check",
    f"celosia run {TINY}/ad01_int8.tflite --random 1 --check --batch 8",
    f"celosia run {TINY}/ad01_int8.tflite --random 1 --check --batch 16 --config large",
    "celosia run transformer_int8.tflite --random 1 --check",
    "celosia run transformer_int8.tflite --random 1 --check --config large",
    "celosia run examples/digits/digits_int8.tflite --config tiny --random 1 --trace digits.fst"
    " --from 1 --to 2",
)
"""Sessions that `main` runs. That with a simulated board needs two terminals, and is recorded by
hand."""


def run_session(sources: Sources, old: str) -> str:
    """Return a session with its commands run again."""
    with tempfile.TemporaryDirectory(prefix="celosia-") as folder:
        return _session(old, lambda command: _run(sources, command, Path(folder)))


def recorded_session(sources: Sources, old: str) -> str:
    """Return a session with what is recorded of its commands.

    Raises
    ------
    CelosiaError
        If one is not recorded.
    """
    entries = read_entries(sources.records / "sessions.json")

    def recorded(command: str) -> list[str]:
        if command not in entries:
            raise CelosiaError(
                f"the session {command!r}",
                "it is not recorded",
                "python -m celosia.sw.docgen.sessions",
            )
        lines: list[str] = entries[command]
        return lines

    return _session(old, recorded)


def _session(old: str, output: Callable[[str], list[str]]) -> str:
    lines: list[str] = []
    for part in re.split(rf"^(?={re.escape(PROMPT)})", old, flags=re.M):
        if not part.startswith(PROMPT):
            continue
        head, *shown = part.splitlines()
        new = output(head.removeprefix(PROMPT))
        if LEFT_OUT in shown:
            place = shown.index(LEFT_OUT)
            new = [*new[:place], LEFT_OUT, *new[len(new) - (len(shown) - place - 1) :]]
        lines += [head, *new]
    return "\n".join(lines)


def _run(sources: Sources, command: str, folder: Path) -> list[str]:
    """Run a command where its files are, and return what it prints."""
    words = command.split()
    program = Path(sys.executable).with_name(words[0])
    if not program.exists():
        raise NotHereError(f"the command {words[0]}", "it is not installed", "install celosia")
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(sources.root / "examples")
    for word in words:
        if re.fullmatch(r"\w+\.tflite", word) and not (folder / word).exists():
            shutil.copyfile(sources.beside(word), folder / word)
    # As wide as a pipe is. GNU readline, where it is loaded, puts a width behind Python's back into
    # what children inherit; an environment that is given does not have it.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    result = subprocess.run(
        [str(program), *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_OUT_S,
        check=False,
    )
    if result.returncode:
        raise CelosiaError(f"the session {command!r}", result.stderr.strip(), "")
    return [line.rstrip() for line in result.stdout.rstrip("\n").splitlines()]


def main() -> None:
    """Run the sessions on the RTL and record what they print."""
    argparse.ArgumentParser(description=main.__doc__).parse_args()
    sources = Sources(Path(__file__).resolve().parents[2])
    with tempfile.TemporaryDirectory(prefix="celosia-") as folder:
        for command in RECORDED:
            lines = _run(sources, command, Path(folder))
            put_entry(sources.records / "sessions.json", command, lines)
            print(command)


if __name__ == "__main__":
    main()
