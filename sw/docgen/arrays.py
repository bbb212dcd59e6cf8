"""Figures from the study of several arrays: what 1,024 multipliers reach, and what limits them."""

from __future__ import annotations

from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import preset
from celosia.sw.docgen.cycles import KINDS
from celosia.sw.docgen.marks import FigureError
from celosia.sw.docgen.sources import BENCHMARK, Sources
from celosia.sw.docgen.text import markdown_table
from celosia.sw.report.records import read_entries

__all__ = ["arrays_figure", "arrays_table"]

FILE = "arrays.json"
ARRAY, WIDE = "large", "32x32"
MACS = preset(ARRAY).macs_per_cycle
LOADED, RESIDENT = "loaded", "resident"
FOUR = {
    "4x1": "four stripes",
    "2x2": "2 x 2",
    "1x4": "four times the columns",
    "best": "best a layer",
}
TWO = {"2x1": "two stripes", "1x2": "twice the columns", "best of 2": "best a layer"}
PARTS = ("array", "cut", "uneven", "exchange", "barrier", "bus", "start")
AREA = {
    "tables": "4-input tables",
    "ff": "flip-flops",
    "dp16kd": "DP16KD",
    "mult18x18d": "MULT18X18D",
}


def arrays_table(sources: Sources, name: str) -> str:
    """Return a table: ``main``, ``samples``, ``two``, ``limits loaded``, ``layers kws_int8``, ...

    Raises
    ------
    FigureError
        If there is no such table.
    CelosiaError
        If something that is in it is not recorded.
    """
    match name.split():
        case ["main"]:
            return _main(sources)
        case ["samples"]:
            return _samples(sources)
        case ["two"]:
            return _two(sources)
        case ["limits", kind] if kind in (LOADED, RESIDENT):
            return _limits(sources, kind)
        case ["layers", model]:
            return _layers(sources, model)
        case ["method"]:
            return _method(sources)
        case ["area"]:
            return _area(sources)
    raise FigureError("a table of arrays", f"there is none called {name!r}")


def arrays_figure(sources: Sources, words: list[str]) -> str:
    """Return a number: ``arrays utilisation vww_96_int8 best``, ``arrays cycles kws_int8 wide``.

    Raises
    ------
    FigureError
        If there is no such number.
    """
    match words:
        case ["arrays", "utilisation", model, column]:
            return _percent(_reached(sources, model, column)[0])
        case ["arrays", "cycles", model, column]:
            return f"{_reached(sources, model, column)[1]:,.0f}"
        case ["arrays", "bus", model]:
            return f"{_entry(sources, model)['array']['words_read']:,}"
    raise FigureError("a number of arrays", f"there is none called {' '.join(words)!r}")


def _entry(sources: Sources, name: str) -> Any:
    entries = read_entries(sources.records / FILE)
    if name not in entries:
        raise CelosiaError(
            f"{name} in docs/figures/{FILE}",
            "it was not recorded",
            f"python -m celosia.sw.report.arrays --record docs/figures/{FILE}",
        )
    return entries[name]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def _best(entry: Any, kind: str) -> Any:
    return entry["organisations"]["best of 4"][kind]


def _reached(sources: Sources, model: str, column: str) -> tuple[float, float]:
    """Return the utilisation of all multipliers, and the cycles of an inference.

    Of several samples at a time the cycles are those of one: what all of them take, divided.
    """
    entry = _entry(sources, model)
    samples, multipliers = 1, 4 * MACS
    if column == "one":
        total, multipliers = entry["array"]["cycles"], MACS
    elif column == "wide":
        total = entry["wide"]["cycles"]
    elif column == "best-resident":
        total = _best(entry, RESIDENT)["total"]
    elif column == "best":
        total = _best(entry, LOADED)["total"]
    elif column == "two-samples":
        found = entry["organisations"]["best of 2"][LOADED]
        first = entry["first_layer"][found["units"][0][0]]
        total, samples = found["total"] + first["2"] - first["1"], 2
    elif column == "four-samples":
        first = entry["first_layer"]["1x1"]
        total, samples = entry["array"]["cycles"] + first["4"] - first["1"], 4
    elif column == "quarter-bus":
        total, samples = entry["array"]["quarter_bus"], 4
    elif column == "batch":
        samples = entry["array"]["batch"]["samples"]
        total, multipliers = entry["array"]["batch"]["cycles"], MACS
    elif column in entry["organisations"]:
        found = entry["organisations"][column]
        total, multipliers = found[LOADED]["total"], found["arrays"] * MACS
    else:
        raise FigureError("a column of arrays", f"there is none called {column!r}")
    return samples * entry["macs"] / (total * multipliers), total / samples


def _cell(sources: Sources, model: str, column: str) -> str:
    share, cycles = _reached(sources, model, column)
    return f"{cycles:,.0f} ({_percent(share)})"


def _main(sources: Sources) -> str:
    columns = ("one", "wide", *FOUR, "best-resident")
    heads = [
        "cycles (utilisation)",
        f"one 16x16, {MACS} MACs",
        "one 32x32",
        *FOUR.values(),
        "the same, weights on chip",
    ]
    rows = [
        [KINDS[model], *(_cell(sources, model, column) for column in columns)]
        for model in BENCHMARK
    ]
    return markdown_table(heads, rows, texts=1)


def _samples(sources: Sources) -> str:
    rows = []
    for model in BENCHMARK:
        batch = _entry(sources, model)["array"]["batch"]["samples"]
        columns = ("four-samples", "two-samples", "quarter-bus")
        cells = [_cell(sources, model, column) for column in columns]
        together = ""
        if batch > 1:
            # The weights of its first layer are the bus's work, not its input.
            cells[:2] = "", ""
            together = f"{batch} a run: {_cell(sources, model, 'batch')}"
        rows.append([KINDS[model], *cells, together])
    heads = [
        "cycles an inference (utilisation)",
        "four samples, one array each, the same weights at the same time",
        "two samples, two arrays each",
        "four machines that share the bus and nothing else",
        "one array, samples as rows of the same tensors",
    ]
    return markdown_table(heads, rows, texts=1)


def _two(sources: Sources) -> str:
    rows = []
    for model in BENCHMARK:
        cells = [_cell(sources, model, column) for column in TWO]
        found = _entry(sources, model)["organisations"]["1x2"][RESIDENT]
        rows.append([KINDS[model], *cells, _percent(found["ideal"] / found["total"])])
    heads = [f"{2 * MACS} MACs: cycles (utilisation)", *TWO.values()]
    return markdown_table([*heads, "twice the columns, weights on chip"], rows, texts=1)


def _limits(sources: Sources, kind: str) -> str:
    rows = []
    for model in BENCHMARK:
        found = _best(_entry(sources, model), kind)
        total = found["total"]
        rows.append(
            [
                KINDS[model],
                f"{total:,}",
                *(f"{100 * found[part] / total:.1f}" for part in ("ideal", *PARTS)),
            ]
        )
    heads = ["% of the cycles", "cycles", "products", *PARTS]
    return markdown_table(heads, rows, texts=1)


def _layers(sources: Sources, model: str) -> str:
    entry = _entry(sources, model)
    chosen = [
        name
        for name, count in _best(entry, RESIDENT)["units"]
        for name in [name] + [f"{name}, with the one before"] * (count - 1)
    ]
    names = ("1x1", *list(FOUR)[:3])
    rows = [
        [
            f"{layer['name']}",
            f"{layer['macs'] / (4 * MACS):,.0f}",
            *(f"{max(layer['cycles'][name]):,}" for name in names),
            best,
        ]
        for layer, best in zip(entry["layers"], chosen, strict=True)
    ]
    heads = ["layer", "all 1,024 busy", "one array", *list(FOUR.values())[:3], "chosen"]
    return markdown_table(heads, rows, texts=1)


def _method(sources: Sources) -> str:
    rows = []
    for model in BENCHMARK:
        entry = _entry(sources, model)
        run = entry["array"]["cycles"]
        layers = entry["organisations"]["1x1"][LOADED]["total"]
        rows.append([KINDS[model], f"{run:,}", f"{layers:,}", f"{100 * (layers / run - 1):+.1f} %"])
    heads = ["one array", "the network in one run", "put together from its layers", "error"]
    return markdown_table(heads, rows, texts=1)


def _area(sources: Sources) -> str:
    one, wide = (_entry(sources, f"area {name}") for name in (ARRAY, WIDE))
    rows = [
        [f"one `{ARRAY}`, {MACS} MACs", *(f"{one[key]:,}" for key in AREA)],
        [f"four `{ARRAY}`", *(f"{4 * one[key]:,}" for key in AREA)],
        ["one 32x32 of the same memory", *(f"{wide[key]:,}" for key in AREA)],
    ]
    return markdown_table(["ECP5, synthesised", *AREA.values()], rows, texts=1)
