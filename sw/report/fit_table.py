"""Models on a board, beside what others have measured of the same tasks."""

from __future__ import annotations

from collections.abc import Sequence

from celosia.quantities import MHZ
from celosia.sw.report.fit import Fit
from celosia.sw.report.fpga_results import published_results
from rich.table import Table

__all__ = ["fit_table"]


def fit_table(title: str, fits: Sequence[Fit]) -> Table:
    """Return predicted inference times, and the published ones of the same task below them.

    Where the host has a part, its time and the line's are in the time.

    Parameters
    ----------
    title : str
        The board's.
    fits : sequence of Fit
        Those of a model, on several configurations, beside one another.
    """
    table = Table(header_style="bold", box=None)
    for column in ("model", "board", "how", "quality", "ms", "source"):
        table.add_column(column, justify="right" if column == "ms" else "left", no_wrap=True)
    for index, fit in enumerate(fits):
        again = index > 0 and fits[index - 1].model == fit.model
        verdict = "" if fit.fits else ", DOES NOT FIT"
        on_host = fit.host_operators
        more = f", {on_host} operators on the host, line" if on_host else ""
        table.add_row(
            "" if again else fit.model,
            title,
            f"{fit.config}, predicted at {fit.clock_hz / MHZ:g} MHz{more}{verdict}",
            "reference model",
            _milliseconds(fit.total_milliseconds if on_host else fit.milliseconds),
            "celosia fit",
        )
        if index + 1 < len(fits) and fits[index + 1].model == fit.model:
            continue
        for result in published_results():
            if result.model == fit.model:
                table.add_row(
                    "",
                    result.board,
                    result.design,
                    "reference model" if result.same_model else f"own, {result.quality}",
                    _milliseconds(result.milliseconds),
                    result.source,
                )
    return table


def _milliseconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"
