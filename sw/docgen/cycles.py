"""Figures from the record of cycles: the tables of ``celosia bench``, and numbers in sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import preset
from celosia.sw.docgen.marks import FigureError
from celosia.sw.docgen.sources import BENCHMARK
from celosia.sw.docgen.text import markdown_table, table_text
from celosia.sw.report.bench.bench import Measurement
from celosia.sw.report.bench.record import CycleRecord
from celosia.sw.report.bench.tables import (
    fold_table,
    layer_table,
    main_table,
    operator_table,
    ratio_text,
    reason_table,
    resident_table,
    sweep_table,
)

__all__ = ["cycle_figure", "cycle_table", "field_table"]

CONFIGS = ("base", "large")
LATENCIES_CYCLES = (1, 8, 32, 100)
BUSES_BITS = (32, 64, 128)
STALLS = (0.0, 0.2)
NANO_CLOCK_HZ = 24_000_000
KINDS = {
    "ad01_int8": "ad01 (FC auto-encoder)",
    "resnet8_int8": "resnet8",
    "kws_int8": "kws (DS-CNN)",
    "vww_96_int8": "vww (MobileNetV1 0.25)",
    "sww_int8": "sww (1-D DS-CNN)",
}
"""The models as README.md calls them, in its order."""
ETHOS = (("base", ("u55",)), ("large", ("u55", "u85")))
"""What networks of the field are compared with: there is no U85 of 64 multipliers."""


def cycle_table(record: CycleRecord, name: str) -> str:
    """Return a table: ``main``, ``reasons``, ``layers kws_int8 base``, ``latency``, ...

    Raises
    ------
    FigureError
        If there is no such table.
    CelosiaError
        If a run that is in it was not measured.
    """
    kind, *rest = name.split()
    runs = [(model, config) for model in BENCHMARK for config in CONFIGS]
    if kind in _PLAIN and not rest:
        return table_text(_PLAIN[kind]([measured(record, *run) for run in runs]))
    if kind == "layers" and len(rest) == 2:
        return table_text(layer_table(measured(record, *rest)))
    if kind == "resident":
        pairs = [(measured(record, *run), _found(record, *run, resident=True)) for run in runs]
        return table_text(resident_table(pairs))
    if kind == "fold":
        folded = [(measured(record, *run), measured(record, *run, fold=True)) for run in runs]
        return table_text(fold_table(folded))
    if kind in _SWEEPS:
        title, columns = _SWEEPS[kind]
        rows = [
            (*run, {head: _found(record, *run, **change) for head, change in columns.items()})
            for run in runs
        ]
        return table_text(sweep_table(title, list(columns), rows))
    if kind == "summary":
        return _summary(record)
    if kind == "firmware":
        return _firmware(record)
    raise FigureError("a table of cycles", f"there is none called {name!r}")


def measured(record: CycleRecord, model: str, config: str, **conditions: Any) -> Measurement:
    """Return a run of the record.

    Raises
    ------
    CelosiaError
        If it is not there.
    """
    found = _found(record, model, config, **conditions)
    if isinstance(found, str):
        raise CelosiaError(f"cycles of {model} on {config}", found, "")
    return found


def _found(record: CycleRecord, model: str, config: str, **conditions: Any) -> Measurement | str:
    found = record.find(model, config, **conditions)
    if found is None:
        raise CelosiaError(
            f"cycles of {model} on {config}",
            f"the record does not have them ({conditions or 'default conditions'})",
            "measure them with celosia bench --record docs/figures/cycles.json",
        )
    # A table has no room for the reason why there is no such bus.
    return "not possible" if isinstance(found, str) and "bus_bits" in conditions else found


_PLAIN: dict[str, Callable[[list[Measurement]], Any]] = {
    "main": main_table,
    "reasons": reason_table,
    "operators": operator_table,
}
_SWEEPS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "latency": (
        "cycles by latency of system memory",
        {f"{n} cycles": {"latency_cycles": n} for n in LATENCIES_CYCLES},
    ),
    "bus": (
        "cycles by width of the bus",
        {f"{bits} bits": {"bus_bits": bits} for bits in BUSES_BITS},
    ),
    "stalls": (
        "cycles with random stalls of system memory",
        {f"chance {p:g}": {"stall_probability": p} for p in STALLS},
    ),
}


def _summary(record: CycleRecord) -> str:
    rows = []
    for model, text in KINDS.items():
        cells = [text]
        for config in CONFIGS:
            run = measured(record, model, config)
            cells += [f"{run.cycles:,}", f"{run.baseline.ethos_u55_cycles:,}"]
        rows.append(cells)
        if model == "vww_96_int8":
            folded = [f"{measured(record, model, c, fold=True).cycles:,}" for c in CONFIGS]
            rows.append(
                [
                    "vww, constant channels folded (`--fold`, equal outputs)",
                    folded[0],
                    "",
                    folded[1],
                    "",
                ]
            )
    heads = ["MLPerf Tiny model"]
    for config in CONFIGS:
        macs = preset(config).macs_per_cycle
        heads += [f"`{config}`, {macs} MACs", f"Ethos-U55-{macs}"]
    return markdown_table(heads, rows, texts=1)


def field_table(record: CycleRecord) -> str:
    """Return all models of a record, and how much faster they are than on an Ethos."""
    models = sorted({entry["model"] for entry in record.entries.values()})
    rows = []
    for model in models:
        cells = [f"`{model}`"]
        for config, families in ETHOS:
            run = measured(record, model, config)
            cells.append(f"{run.cycles:,}")
            others = [getattr(run.baseline, f"ethos_{family}_cycles") for family in families]
            cells += [ratio_text(other, run.cycles) for other in others]
        rows.append(cells)
    heads = ["model"]
    for config, families in ETHOS:
        macs = preset(config).macs_per_cycle
        heads += [f"`{config}`", *(f"times {family.upper()}-{macs}" for family in families)]
    return markdown_table(heads, rows, texts=1)


def _firmware(record: CycleRecord) -> str:
    rows = []
    for model in BENCHMARK:
        run = measured(record, model, "nano")
        milliseconds = 1e3 * run.cycles / NANO_CLOCK_HZ
        rows.append(
            [
                model.split("_")[0],
                f"{run.cycles:,}",
                f"{run.predicted_cycles:,}",
                f"{milliseconds:,.0f} ms",
            ]
        )
    heads = ["model", "cycles", "predicted", f"at {NANO_CLOCK_HZ // 1_000_000} MHz"]
    return markdown_table(heads, rows, texts=1)


def cycle_figure(record: CycleRecord, words: list[str]) -> str:
    """Return a number: ``cycles kws_int8 base``, ``operator DEPTHWISE_CONV_2D kws_int8 base``, ...

    Raises
    ------
    FigureError
        If there is no such number.
    """
    match words:
        case ["cycles", model, config]:
            return f"{measured(record, model, config).cycles:,}"
        case ["operator", operator, model, config]:
            layers = measured(record, model, config).layers
            return f"{sum(e.cycles for e in layers if e.layer and e.layer.op == operator):,}"
        case ["utilisation", model, config]:
            return f"{measured(record, model, config).utilisation:.0%}"
        case ["times", slow, fast, "least" | "most" as which]:
            ratios = [
                measured(record, model, slow).cycles / measured(record, model, fast).cycles
                for model in BENCHMARK
            ]
            return f"{min(ratios) if which == 'least' else max(ratios):.0f}"
    raise FigureError("a number of cycles", f"there is none called {' '.join(words)!r}")
