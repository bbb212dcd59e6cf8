"""Energies in words and tables, for the terminal and the documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celosia.errors import printable
from celosia.sw.energy.model import NOT_MODELLED, Energy, Item, Part, Range, pair_text
from celosia.sw.energy.record import RecordedEnergy
from celosia.sw.report.columns import Column, table_lines
from rich.table import Table

__all__ = [
    "account_lines",
    "condition_lines",
    "energy_table",
    "layer_energy_lines",
    "percent_text",
    "summary_lines",
]

NJ_A_UJ = 1000
UNITS = "microjoules, at least and at most"


SHORT = {
    Part.ARRAY: "array",
    Part.ACCUMULATOR: "accum.",
    Part.ACT: "act.",
    Part.WEIGHTS: "weights",
    Part.VECTOR: "vector",
    Part.REGISTERS: "registers",
}
"""The parts on the chip, as columns."""


def percent_text(shares: tuple[float, float]) -> str:
    """Return two shares as a range in words, the smaller one first."""
    return _range(f"{share:.0%}" for share in sorted(shares))


def _range(ends: Iterable[str]) -> str:
    """Return a range in words; of ends that look alike one."""
    return " to ".join(dict.fromkeys(ends))


def _share(own: Range, whole: Range) -> str:
    return percent_text((own.low_uj / whole.low_uj, own.high_uj / whole.high_uj))


def account_lines(energy: Energy, width: int) -> list[str]:
    """Return each event with its count and its energy, and the parts, as a table.

    Parameters
    ----------
    energy : Energy
    width : int
        Of the terminal: columns go by their importance, no number is cut.
    """
    rows: list[tuple[str, ...]] = []
    for part, whole in energy.parts.items():
        share = "" if part is Part.MEMORY else _share(whole, energy.chip)
        rows.append((part.value, "", "", "", str(whole), share))
        for item in (item for item in energy.items if item.part is part):
            texts = (_count(item), _activity(item), _each(item), str(item.energy), "")
            rows.append((f"  {item.name}", *texts))
    rows.append(("chip", "", "", "", str(energy.chip), ""))
    rows.append(("chip and memory", "", "", "", str(energy.total), ""))
    names = ("part", "events", "activity", "pJ each", "uJ", "of chip")
    return _lines(f"energy of an inference: {UNITS}", names, (0, 2, 4, 3, 0, 1), rows, width)


def _lines(
    title: str,
    names: Sequence[str],
    importances: Sequence[int],
    rows: Sequence[tuple[str, ...]],
    width: int,
) -> list[str]:
    columns = [
        Column(title=name, cells=cells, importance=importance, right=index > 0)
        for index, (name, importance, cells) in enumerate(
            zip(names, importances, zip(*rows, strict=True), strict=True)
        )
    ]
    return [title, *table_lines(columns, width)]


def _count(item: Item) -> str:
    return _range(f"{count:,.0f}" for count in (item.low_count, item.high_count))


def _activity(item: Item) -> str:
    return "" if item.activity is None else f"{item.activity:.2f}"


def _each(item: Item) -> str:
    low, high = item.bounds.low_pj, item.bounds.high_pj
    digits = ",.0f" if high >= 100 else ".3g"
    return _range(f"{bound:{digits}}" for bound in (low, high))


def layer_energy_lines(energy: Energy, width: int) -> list[str]:
    """Return the layers as a table: what each takes of every part, in nanojoules.

    Parameters
    ----------
    energy : Energy
    width : int
        Of the terminal, as for `account_lines`.
    """
    rows = []
    for layer in energy.layers:
        ranges = [layer.chip, layer.parts[Part.MEMORY], *(layer.parts[part] for part in SHORT)]
        texts = (str(own.times(NJ_A_UJ)) if own.high_uj else "" for own in ranges)
        rows.append((printable(layer.name), f"{layer.cycles:,.0f}", *texts))
    names = ("layer", "cycles", "chip", "memory", *SHORT.values())
    importances = (0, 1, 0, 2, 3, 3, 3, 3, 3, 3)
    return _lines("layers: nanojoules, at least and at most", names, importances, rows, width)


def energy_table(energies: Iterable[Energy | RecordedEnergy]) -> Table:
    """Return one line for each of several models."""
    title = f"energy of an inference: {UNITS}"
    table = Table(title=title, title_justify="left", header_style="bold", box=None)
    table.add_column("model", no_wrap=True)
    for name in ("config", "chip", "and memory", "acc. memory", "pJ a MAC", "GOPS/W"):
        # Where there is no room a range becomes two lines: a number is never cut.
        table.add_column(name, justify="right")
    for energy in energies:
        table.add_row(
            printable(energy.model),
            energy.config,
            str(energy.chip),
            str(energy.total),
            percent_text(energy.accumulator_memory_share),
            pair_text(energy.pj_a_mac),
            pair_text(energy.gops_a_watt),
        )
    return table


def summary_lines(energy: Energy, clock_mhz: float) -> list[str]:
    """Return what follows from the energy, in words."""
    share = percent_text(energy.accumulator_memory_share)
    lines = [f"the accumulator's memory takes {share} of the chip's energy"]
    if energy.macs:
        power = energy.milliwatts(clock_mhz)
        lines += [
            f"{pair_text(energy.pj_a_mac)} pJ a MAC on the chip, {pair_text(energy.gops_a_watt)}"
            " GOPS/W (two operations a MAC)",
            f"at {clock_mhz:g} MHz: {energy.gops(clock_mhz):.3g} GOPS, {pair_text(power)} mW on the"
            " chip while it runs",
        ]
    return lines


def condition_lines(energy: Energy) -> list[str]:
    """Return what the range holds for, what is not in it, and the sources."""
    conditions = energy.conditions
    mean = f", mean of {conditions.samples}" if conditions.samples > 1 else ""
    kib = energy.events.small_memory_bits / 8192
    lines = [
        f"conditions: input {conditions.input}{mean}; RTL of {energy.config},"
        f" {energy.cycles:,.0f} cycles, cold; memory {conditions.memory.upper()}, answers after"
        f" {conditions.latency_cycles} cycles",
        "uncertainty: the ends are the least and the greatest published energies of each event; no"
        " chip was measured",
        f"not in it: {'; '.join(NOT_MODELLED)}; accesses to {kib:.3g} KiB of queues and tables",
        "sources:",
    ]
    for name, source in energy.sources.items():
        node = "" if source.node_nm is None else f", {source.node_nm} nm"
        volts = "" if source.voltage_v is None else f", {source.voltage_v:g} V"
        lines.append(f"  {name}{node}{volts}: {source.text}; {source.url}")
    return lines
