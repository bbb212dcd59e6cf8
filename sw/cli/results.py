"""What a run gave, for the terminal and for files."""

from __future__ import annotations

from typing import Any

import numpy as np
from celosia.sw.cli.common import result_console
from celosia.sw.driver.opening import SIMULATED
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.report.lines import timing_lines
from rich.console import Console

__all__ = ["MAX_LISTED_SAMPLES", "answered_right", "print_results", "stacked_outputs"]

MAX_LISTED_SAMPLES = 50


def print_results(
    console: Console,
    program: Program,
    results: list[Result],
    figures: dict[str, Any],
    most: int,
    *,
    listed: bool,
) -> None:
    """Print what `most` inferences gave; `listed`: of every one, they are steps in time."""
    word = "step" if listed or program.persistent else "sample"
    most = len(results) if listed else most
    console.print(
        f"{program.model} on {figures['device']}, configuration {program.config.name}",
        soft_wrap=True,
        markup=False,
    )
    for number, run in enumerate(figures["runs"][:most]):
        for name, text in run["outputs"].items():
            which = f"{word} {number}: " if len(results) > 1 else ""
            result_console().print(f"{which}{name}: {text}", soft_wrap=True, markup=False)
    if len(results) > most:
        console.print(f"... {len(results) - most} more {word}s")
    for line in timing_lines(program, results[0], figures):
        console.print(line, soft_wrap=True)
    cycles = [result.cycles for result in results if result.cycles is not None]
    if len(set(cycles)) > 1:
        console.print(f"over all samples: {min(cycles):,} to {max(cycles):,} cycles")
    if cycles and figures["equal"] is None:  # a check takes time of its own
        speed = sum(cycles) / figures["seconds"]
        if figures["device"] in SIMULATED:
            seconds = f"{figures['seconds']:.3g} s: {speed / 1e6:.2f} M cycles/s"
            console.print(f"simulated in {seconds}")
    # Of a few it says nothing, and a page that shows a run would change with every run.
    many = len(results) > MAX_LISTED_SAMPLES and figures["equal"] is None
    if many and figures["device"] == "emu":
        console.print(f"emulated {len(results):,} inferences in {figures['seconds']:.3g} s")


def answered_right(results: list[Result], labels: list[int]) -> int | None:
    """Return how many of the labelled samples got the highest score for their label."""
    if not labels or len(results) < len(labels) or len(results[0].outputs) != 1:
        return None
    scores = [result.output.reshape(-1) for result in results[: len(labels)]]
    if not all(0 <= label < scores[0].size for label in labels):
        return None
    return sum(int(s.argmax()) == label for s, label in zip(scores, labels, strict=True))


def stacked_outputs(results: list[Result]) -> dict[str, Any]:
    """Return the outputs by name; with several samples, those along a new first dimension."""
    if len(results) == 1:
        return dict(results[0].outputs)
    return {
        name: np.stack([result.outputs[name] for result in results]) for name in results[0].outputs
    }
