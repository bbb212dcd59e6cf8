"""Tables of measurements, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from celosia.quantities import KIB
from celosia.sw.profile.attribute import LayerProfile, Reason
from celosia.sw.report.bench.bench import Measurement
from celosia.sw.report.labels import layer_label
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

__all__ = [
    "SweepRow",
    "fit_columns",
    "fold_table",
    "layer_table",
    "main_table",
    "operator_table",
    "ratio_text",
    "reason_table",
    "resident_table",
    "sweep_table",
]


HEADINGS = {
    Reason.ARRAY: "array",
    Reason.WEIGHTS: "weights",
    Reason.ACCUMULATORS: "accum.",
    Reason.WEIGHTS_BUS: "weights bus",
    Reason.ACTIVATIONS: "act.",
    Reason.START: "start",
    Reason.VECTOR: "vector",
    Reason.DMA: "dma",
    Reason.IDLE: "idle",
}

EQUAL = "equal"
LEAST_FIRST = (
    *("than\nU65", "read\nKiB", "written\nKiB", "times\nideal", "MACs", "than\nU85"),
    *("Ethos-\nU55", "idle", "start", "dma", "accum.", "error", "predicted"),
)
"""Columns that go first where a terminal has no room; then the last ones."""
LEAST_TEXT = 16
"""Characters of a column that wraps."""
NEWER_ETHOS = {"ethos_u65_cycles": "than\nU65", "ethos_u85_cycles": "than\nU85"}
"""How much faster than these, where anything is known of them."""
SweepRow = tuple[str, str, dict[str, "Measurement | str"]]
"""Model, configuration, and for each condition a measurement or why there is none."""


def _table(title: str, *columns: str, texts: int) -> Table:
    """Return a table whose first columns are texts, the others numbers."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < texts else "right", no_wrap=True)
    return table


def fit_columns(table: Table, console: Console) -> list[str]:
    """Leave out columns of numbers until none is cut on a console; return their headings.

    Parameters
    ----------
    table : Table
        Of this module; columns of others, which wrap, stay.
    console : Console
        Whose width it is to fit.
    """
    left_out: list[str] = []
    while sum(map(_width, table.columns)) > console.width:
        headings = [str(column.header) for column in table.columns]
        choice = next((name for name in LEAST_FIRST if name in headings), None)
        index = len(headings) - 1 if choice is None else headings.index(choice)
        while index > 0 and (headings[index] == EQUAL or not table.columns[index].no_wrap):
            index -= 1
        if table.columns[index].justify == "left":
            break  # what a row is of
        left_out.append(headings[index].replace("-\n", "-").replace("\n", " "))
        table.columns.pop(index)
    return left_out


def _width(column: Column) -> int:
    """Return the characters that a column takes at least, with a blank on each side."""
    texts = (str(cell) for cell in (column.header, *column.cells))
    widest = max(cell_len(line) for text in texts for line in text.split("\n"))
    return 2 + (widest if column.no_wrap else min(widest, LEAST_TEXT))


def ratio_text(cycles: int | None, other: int | None) -> str:
    """Return one number of cycles over another; empty if one is not known."""
    return f"{cycles / other:.2f}" if cycles and other else ""


def _yes(equal: bool) -> Text:
    return Text("yes") if equal else Text("NO", style="bold red")


def main_table(measurements: Sequence[Measurement]) -> Table:
    """Return a line for each model and configuration."""
    title = "cycles of one inference"
    if any(run.batch > 1 for run in measurements):
        title = "cycles of one inference, of several samples in one run where that is possible"
    with_host = any(run.host_operators for run in measurements)
    newer = [
        (family, heading)
        for family, heading in NEWER_ETHOS.items()
        if any(getattr(run.baseline, family) for run in measurements)
    ]
    table = _table(
        title,
        *("model", "config", "cycles", "MACs", "util.", "predicted", "error", "read\nKiB"),
        *("written\nKiB", "times\nideal", "times\nroofline", "Ethos-\nU55", "faster\nby"),
        *(heading for _, heading in newer),
        EQUAL,
        *(["host\nops", "host\nms"] if with_host else []),
        texts=2,
    )
    for run in measurements:
        word_kib, baseline = run.config.bus_bytes / KIB / run.batch, run.baseline
        u55, cycles = baseline.ethos_u55_cycles, round(run.cycles / run.batch)
        table.add_row(
            f"{run.model} x {run.batch}" if run.batch > 1 else run.model,
            run.config.name,
            f"{cycles:,}",
            f"{run.macs // run.batch:,}",
            f"{run.utilisation:.1%}",
            f"{round(run.predicted_cycles / run.batch):,}",
            f"{run.prediction_error:+.1%}",
            f"{run.words_read * word_kib:.1f}",
            f"{run.words_written * word_kib:.1f}",
            ratio_text(cycles, baseline.ideal_cycles),
            ratio_text(cycles, baseline.roofline_cycles),
            f"{u55:,}" if u55 else "",
            ratio_text(u55, cycles),
            *(ratio_text(getattr(baseline, family), cycles) for family, _ in newer),
            _yes(run.equal),
            *([str(run.host_operators), f"{run.host_milliseconds:.3g}"] if with_host else []),
        )
    return table


def reason_table(measurements: Sequence[Measurement]) -> Table:
    """Return for each run the share of its cycles that went on each reason."""
    table = _table(
        "what the cycles went on", "model", "config", "cycles", *HEADINGS.values(), texts=2
    )
    for run in measurements:
        shares = [run.reasons[why] / run.cycles for why in HEADINGS]
        table.add_row(
            run.model,
            run.config.name,
            f"{run.cycles:,}",
            *(f"{share:.1%}" if share else "" for share in shares),
        )
    return table


def operator_table(measurements: Sequence[Measurement]) -> Table:
    """Return the layers of all models by configuration and operator, with shares by reason."""
    table = _table(
        "operators, all models together",
        *("operator", "config", "layers", "cycles", "util.", *HEADINGS.values()),
        texts=2,
    )
    groups: dict[tuple[str, str], list[tuple[Measurement, LayerProfile]]] = {}
    for run in measurements:
        for profile in run.layers:
            if profile.layer is not None:
                groups.setdefault((profile.layer.op, run.config.name), []).append((run, profile))
    for (op, config), entries in sorted(groups.items()):
        cycles = sum(profile.cycles for _, profile in entries)
        slots = sum(profile.cycles * run.config.macs_per_cycle for run, profile in entries)
        macs = sum(profile.layer.macs for _, profile in entries if profile.layer is not None)
        counts = [sum(profile.reasons[why] for _, profile in entries) for why in HEADINGS]
        table.add_row(
            op,
            config,
            str(len(entries)),
            f"{cycles:,}",
            f"{macs / slots:.1%}" if macs and slots else "",
            *(f"{count / cycles:.1%}" if count else "" for count in counts),
        )
    return table


def layer_table(run: Measurement) -> Table:
    """Return a run's layers, with cycles by reason."""
    table = _table(
        f"{run.model} on {run.config.name}, by layer",
        *("operator", "cycles", "util.", "predicted", "error", *HEADINGS.values()),
        texts=1,
    )
    for profile in run.layers:
        table.add_row(*_layer_cells(profile, run.config.macs_per_cycle))
    table.add_section()
    table.add_row(
        "total",
        f"{run.cycles:,}",
        f"{run.utilisation:.1%}",
        f"{run.predicted_cycles:,}",
        f"{run.prediction_error:+.1%}",
        *(f"{count:,}" if count else "" for count in (run.reasons[why] for why in HEADINGS)),
        style="bold",
    )
    return table


def _layer_cells(profile: LayerProfile, macs_per_cycle: int) -> list[str]:
    layer, cycles = profile.layer, profile.cycles
    counts = [profile.reasons[why] for why in HEADINGS]
    cells = [f"{count:,}" if count else "" for count in counts]
    if layer is None:
        return ["end of the program", f"{cycles:,}", "", "", "", *cells]
    used = f"{layer.macs / (cycles * macs_per_cycle):.1%}" if layer.macs and cycles else ""
    error = f"{layer.predicted_cycles / cycles - 1:+.1%}" if cycles else ""
    return [layer_label(layer), f"{cycles:,}", used, f"{layer.predicted_cycles:,}", error, *cells]


def sweep_table(title: str, conditions: Sequence[str], rows: Sequence[SweepRow]) -> Table:
    """Return a line for each model and configuration, a column for each condition.

    Parameters
    ----------
    title : str
        What is varied.
    conditions : sequence of str
        Columns.
    rows : sequence of SweepRow
        One entry a line. Cycles, and how much they are above the line's least.
    """
    table = _table(title, "model", "config", *conditions, "equal", texts=2)
    for model, config, cells in rows:
        runs = {name: run for name, run in cells.items() if isinstance(run, Measurement)}
        least = min((run.cycles for run in runs.values()), default=0)
        texts = []
        for name in conditions:
            cell = cells[name]
            if isinstance(cell, str):
                texts.append(cell)
            else:
                more = cell.cycles / least - 1
                texts.append(f"{cell.cycles:,} ({more:+.1%})" if more else f"{cell.cycles:,}")
        table.add_row(model, config, *texts, _yes(all(run.equal for run in runs.values())))
    return table


def resident_table(pairs: Sequence[tuple[Measurement, Measurement | str]]) -> Table:
    """Return a line for each model and configuration: cold, and with the weights on chip.

    Parameters
    ----------
    pairs : sequence of (Measurement, Measurement or str)
        The cold run, and the other one or why there is none.
    """
    table = _table(
        "weights already on chip",
        *("model", "config", "cold", "resident", "of cold", "util.", "read KiB", "equal", ""),
        texts=2,
    )
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    for cold, resident in pairs:
        cells = [cold.model, cold.config.name, f"{cold.cycles:,}"]
        if isinstance(resident, str):
            table.add_row(*cells, "", "", "", "", "", f"not possible: {resident}")
            continue
        read = resident.words_read * resident.config.bus_bytes
        table.add_row(
            *cells,
            f"{resident.cycles:,}",
            f"{resident.cycles / cold.cycles:.1%}",
            f"{resident.utilisation:.1%}",
            f"{read / KIB:.1f}",
            _yes(resident.equal),
        )
    return table


def fold_table(pairs: Sequence[tuple[Measurement, Measurement]]) -> Table:
    """Return a line for each model and configuration: plain, and without constant channels.

    Parameters
    ----------
    pairs : sequence of (Measurement, Measurement)
        The plain run and the folded one.
    """
    table = _table(
        "constant channels removed",
        *("model", "config", "MACs", "cycles", "MACs left", "cycles", "of plain", "util.", "equal"),
        texts=2,
    )
    for plain, folded in pairs:
        table.add_row(
            plain.model,
            plain.config.name,
            f"{plain.macs:,}",
            f"{plain.cycles:,}",
            f"{folded.macs:,}",
            f"{folded.cycles:,}",
            f"{folded.cycles / plain.cycles:.1%}",
            f"{folded.utilisation:.1%}",
            _yes(folded.equal),
        )
    return table
