"""What is printed and written of a build."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from celosia.boards.fpga.report import BuildReport, ClockResult
from celosia.boards.registry import find_board
from celosia.quantities import KIB
from celosia.sw.report.records import put_entry, read_entries
from rich.table import Table

__all__ = [
    "record_report",
    "recorded_name",
    "recorded_reports",
    "report_lines",
    "report_table",
]


def report_table(report: BuildReport) -> Table:
    """Return what a build takes of the FPGA."""
    table = Table(
        title=f"{report.config} ({report.macs} MACs) on {report.title}, after {report.stage}",
        title_justify="left",
        header_style="bold",
        box=None,
    )
    table.add_column(report.device)
    for column in ("used", "of", "part"):
        table.add_column(column, justify="right")
    for name, used in report.used.items():
        there = report.capacity[name]
        least = "at least " if report.stage == "synthesis" and name in report.excess else ""
        table.add_row(name, f"{least}{used:,}", f"{there:,}", f"{100 * used / there:.0f}%")
    return table


def report_lines(report: BuildReport) -> list[str]:
    """Return what a build says besides its resources, line by line."""
    lines = [f"system memory: {report.memory_bytes // KIB:,} KiB of {report.memory}"]
    if report.excess:
        lines.append(f"does not fit: {', '.join(report.excess)}")
    elif report.fmax_mhz is None:
        lines.append("not placed and routed: there are no tools for this FPGA on PyPI")
    else:
        met = "met" if not report.late else "MISSED"
        lines.append(
            f"clock: {report.fmax_mhz:.1f} MHz possible, {report.clock_mhz:g} MHz asked for, {met};"
            f" seed {report.seed}"
        )
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    lines.append(f"time: {times}")
    return lines


def record_report(path: Path, report: BuildReport) -> None:
    """Put a build's figures into a record, under the name of :func:`recorded_name`."""
    put_entry(path, recorded_name(report), asdict(report))


def recorded_name(report: BuildReport) -> str:
    """Return what a build is called in a record: the board, and the preset if it is another."""
    other = report.config in find_board(report.board).others
    return f"{report.board} {report.config}" if other else report.board


def recorded_reports(path: Path) -> dict[str, BuildReport]:
    """Return the builds of a record, by name."""
    reports = {}
    for name, entry in read_entries(path).items():
        clocks = tuple(ClockResult(**clock) for clock in entry["clocks"])
        reports[name] = BuildReport(**{**entry, "clocks": clocks})
    return reports
