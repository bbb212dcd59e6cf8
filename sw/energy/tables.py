"""Energies in words and tables, for the terminal and the documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celosia.errors import printable
from celosia.sw.energy.model import NOT_MODELLED, Energy, Item, Part, Range, pair_text
from celosia.sw.energy.published import sources
from celosia.sw.energy.record import RecordedEnergy
from rich.table import Table

__all__ = [
    "account_table",
    "condition_lines",
    "energy_table",
    "layer_energy_table",
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


def _table(title: str, first: str, numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=None)
    table.add_column(first, no_wrap=True)
    for name in numbers:
        # Where there is no room a range becomes two lines: a number is never cut.
        table.add_column(name, justify="right")
    return table


def _share(own: Range, whole: Range) -> str:
    return _percent((own.low_uj / whole.low_uj, own.high_uj / whole.high_uj))


def _percent(shares: tuple[float, float]) -> str:
    return " to ".join(dict.fromkeys(f"{share:.0%}" for share in sorted(shares)))


def account_table(energy: Energy) -> Table:
    """Return each event with its count and its energy, and the parts."""
    numbers = ["events", "activity", "pJ each", "uJ", "of chip"]
    table = _table(f"energy of an inference: {UNITS}", "part", numbers)
    for part, whole in energy.parts.items():
        share = "" if part is Part.MEMORY else _share(whole, energy.chip)
        table.add_row(part.value, "", "", "", str(whole), share, style="bold")
        for item in (item for item in energy.items if item.part is part):
            table.add_row(
                f"  {item.name}", _count(item), _activity(item), _each(item), str(item.energy), ""
            )
    table.add_section()
    table.add_row("chip", "", "", "", str(energy.chip), "", style="bold")
    table.add_row("chip and memory", "", "", "", str(energy.total), "", style="bold")
    return table


def _count(item: Item) -> str:
    return " to ".join(dict.fromkeys(f"{n:,.0f}" for n in (item.low_count, item.high_count)))


def _activity(item: Item) -> str:
    return "" if item.activity is None else f"{item.activity:.2f}"


def _each(item: Item) -> str:
    low, high = item.bounds.low_pj, item.bounds.high_pj
    digits = ",.0f" if high >= 100 else ".3g"
    return " to ".join(dict.fromkeys(f"{bound:{digits}}" for bound in (low, high)))


def layer_energy_table(energy: Energy) -> Table:
    """Return the layers: what each takes of every part, in nanojoules."""
    numbers = ["cycles", *SHORT.values(), "chip", "memory"]
    table = _table("layers: nanojoules, at least and at most", "layer", numbers)
    for layer in energy.layers:
        ranges = [*(layer.parts[part] for part in SHORT), layer.chip, layer.parts[Part.MEMORY]]
        table.add_row(
            printable(layer.name),
            f"{layer.cycles:,}",
            *(str(own.times(NJ_A_UJ)) if own.high_uj else "" for own in ranges),
        )
    return table


def energy_table(energies: Iterable[Energy | RecordedEnergy]) -> Table:
    """Return one line for each of several models."""
    numbers = ["config", "chip", "and memory", "acc. memory", "pJ a MAC", "GOPS/W"]
    table = _table(f"energy of an inference: {UNITS}", "model", numbers)
    for energy in energies:
        table.add_row(
            printable(energy.model),
            energy.config,
            str(energy.chip),
            str(energy.total),
            _percent(energy.accumulator_memory_share),
            pair_text(energy.pj_a_mac),
            pair_text(energy.gops_a_watt),
        )
    return table


def summary_lines(energy: Energy, clock_mhz: float) -> list[str]:
    """Return what follows from the energy, in words."""
    lines = [
        f"the accumulator's memory takes {_percent(energy.accumulator_memory_share)} of the chip's"
        " energy"
    ]
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
    named = {name for item in energy.items for name in item.bounds.sources}
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
    for name, source in sources().items():
        if name in named:
            node = "" if source.node_nm is None else f", {source.node_nm} nm"
            volts = "" if source.voltage_v is None else f", {source.voltage_v:g} V"
            lines.append(f"  {name}{node}{volts}: {source.text}; {source.url}")
    return lines
