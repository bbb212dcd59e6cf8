"""The figures of a run in words, a line each."""

from __future__ import annotations

from typing import Any

from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program

__all__ = ["batch_lines", "check_line", "timing_lines"]


def batch_lines(program: Program, cycles: int | None) -> list[str]:
    """Return how several samples are computed, and what each costs; nothing for one sample."""
    if program.batch == 1:
        return []
    count = program.predicted_cycles if cycles is None else cycles
    each = f"{count / program.batch:,.0f} cycles a sample"
    if cycles is None:
        each += " predicted"
    if not program.one_by_one:
        return [f"batch of {program.batch}, as rows of the same tensors: {each}"]
    return [f"batch of {program.batch}, one sample after the other ({program.one_by_one}): {each}"]


def timing_lines(program: Program, result: Result, figures: dict[str, Any]) -> list[str]:
    """Return cycles, prediction and utilisation in words."""
    predicted = figures["predicted_cycles"]
    macs, folded = figures["npu_macs"], figures["folded_macs"]
    more = f"; {folded:,} more MACs of the model folded away" if folded else ""
    batch = batch_lines(program, result.cycles)
    on_host = figures["macs"] - folded - macs
    more += f"; {on_host:,} more on the host" if on_host else ""
    if not program.npu_segments:
        return []
    if result.cycles is None:
        return [
            f"cycles: none on the emulator, {predicted:,} predicted; {macs:,} MACs{more}",
            *batch,
        ]
    error = (predicted - result.cycles) / result.cycles
    return [
        f"cycles: {result.cycles:,} ({predicted:,} predicted, {error:+.1%})",
        f"utilisation: {figures['utilisation']:.1%} ({macs:,} MACs on"
        f" {program.config.rows}x{program.config.cols}{more})",
        *batch,
    ]


def check_line(figures: dict[str, Any]) -> str:
    """Return the result of a check in words."""
    check = figures["check"]
    # Not confirmed is no difference, but it must be said.
    alone = ""
    if check["unconfirmed"] is not None:
        reason = check["unconfirmed"].rstrip(".")
        alone = f"\nnot confirmed by the reference: {reason}; the golden model's comparison"
        alone += " stands alone"
    if check["difference"] is not None:
        return f"NOT EQUAL. {check['difference']['text']}{alone}"
    samples = figures["samples"]
    times = f" in each of {samples} inferences" if samples > 1 else ""
    but = "" if not check["foreseen"] else f", but for {len(check['foreseen'])}"
    text = f"all {check['tensors']} tensors equal{times}{but} ({' and '.join(check['sources'])})"
    if check["narrowed"]:
        text += f"; of {len(check['narrowed'])} the channels that are left after folding"
    if check["absent"]:
        count = len(check["absent"])
        text += f"; {count} more {'is' if count == 1 else 'are'} folded into other operators"
    for line in check["foreseen"]:
        text += f"\nas its layer is not proven exact, {line}; what follows from it is not compared"
    if check["elsewhere"]:
        text += (
            f"\nonnxruntime's default options make {check['elsewhere']} elements of outputs others"
            " on this processor: it computes int8 layers in floating point (docs/onnx.md)"
        )
    return text + alone
