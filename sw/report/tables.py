"""Tables of compiled programs and configurations, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from celosia.hw.contract.config import NpuConfig
from celosia.quantities import KIB
from celosia.sw.program.file import Program
from celosia.sw.report.host import HostTime
from celosia.sw.report.labels import layer_label
from rich.table import Table

__all__ = [
    "NARROW",
    "config_table",
    "counter_table",
    "layer_table",
    "program_table",
    "reason_lines",
    "state_table",
]


def _table(*columns: str, numbers: Iterable[str] = (), title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    numeric = set(numbers)
    for column in columns:
        right = column in numeric
        table.add_column(
            column, justify="right" if right else "left", no_wrap=right or column == "operator"
        )
    return table


def _number(value: int) -> str:
    return f"{value:,}"


NARROW = 110
"""Columns of a terminal below which `program_table` has no room for reasons."""


def program_table(
    program: Program, times: Sequence[HostTime] = (), *, reasons: bool = True
) -> Table:
    """Return the compiler's report: a line for each operator, and totals.

    Parameters
    ----------
    program : Program
    times : sequence of HostTime
        Of its layers on the host; then the table has a column for them.
    reasons : bool
        With where each operator runs and why; else `reason_lines` say so, and headers are short.
    """
    own = iter(times)
    folded = program.folded_macs > 0
    numbers = (
        *("tiles", "MACs", *(["folded MACs"] if folded else [])),
        *("SRAM bytes", "DRAM bytes", "predicted cycles", *(["host ms"] if times else [])),
    )
    texts = ("runs on", "why") if reasons else ()
    if not reasons:
        numbers = tuple(name.replace(" ", "\n") for name in numbers)
    table = _table("operator", *texts, *numbers, numbers=numbers)
    for layer in program.layers:
        time = next(own, None) if layer.runs_on == "host" else None
        table.add_row(
            layer_label(layer),
            *((layer.runs_on, layer.reason) if reasons else ()),
            _number(layer.tiles),
            _number(layer.macs),
            *([_number(layer.folded_macs)] if folded else []),
            _number(layer.sram_bytes),
            _number(layer.dram_bytes),
            _number(layer.predicted_cycles),
            *([_milliseconds(time)] if times else []),
        )
    table.add_section()
    layers = program.layers
    table.add_row(
        f"total: {len(layers)} layers",
        *(("", "") if reasons else ()),
        _number(sum(layer.tiles for layer in layers)),
        _number(sum(layer.macs for layer in layers)),
        *([_number(program.folded_macs)] if folded else []),
        # The layers share the SRAM one after the other: the total is the largest.
        f"max {_number(max((layer.sram_bytes for layer in layers), default=0))}",
        _number(sum(layer.dram_bytes for layer in layers)),
        _number(sum(layer.predicted_cycles for layer in layers)),
        *([f"{sum(time.milliseconds or 0.0 for time in times):.3g}"] if times else []),
        style="bold",
    )
    return table


def reason_lines(program: Program) -> list[str]:
    """Say of each operator where it runs and why, for a terminal that is narrow."""
    return [f"{layer_label(layer)}: {layer.runs_on}; {layer.reason}" for layer in program.layers]


def _milliseconds(time: HostTime | None) -> str:
    if time is None:
        return ""
    return "?" if time.milliseconds is None else f"{time.milliseconds:.3g}"


def state_table(program: Program) -> Table:
    """Return the variables of a program: what stays in memory from one inference to the next."""
    table = _table("variable", "shape", "bytes", numbers=("bytes",))
    for info in program.persistent:
        table.add_row(info.name, str(list(info.shape)), _number(info.size_bytes))
    table.add_section()
    count, size = len(program.persistent), sum(info.size_bytes for info in program.persistent)
    table.add_row(f"total: {count} variables", "", _number(size), style="bold")
    return table


def layer_table(program: Program) -> Table:
    """Return a short table of a program's layers: what each one needs and how long it may take."""
    numbers = ("tiles", "MACs", "predicted cycles", "of the array")
    table = _table("operator", "how", *numbers, numbers=numbers)
    per_cycle = program.config.macs_per_cycle
    for layer in program.layers:
        cycles = layer.predicted_cycles
        macs = layer.macs - layer.folded_macs
        share = f"{macs / (cycles * per_cycle):.0%}" if cycles and macs else ""
        table.add_row(
            layer_label(layer),
            layer.reason,
            _number(layer.tiles),
            _number(macs),
            _number(cycles),
            share,
        )
    return table


def counter_table(counters: Mapping[str, int], documentation: Mapping[str, str]) -> Table:
    """Return the hardware's performance counters."""
    table = _table("counter", "value", "meaning", numbers=("value",))
    for name, value in counters.items():
        table.add_row(name, _number(value), documentation.get(name, ""))
    return table


def config_table(configs: Iterable[NpuConfig]) -> Table:
    """Return configurations, one a line."""
    numbers = ("array", "bus bits", "ACT KiB", "WGT KiB", "PARAM KiB", "ACC vectors", "MAC/cycle")
    table = _table("preset", *numbers, "hash", numbers=numbers)
    for config in configs:
        table.add_row(
            config.name,
            f"{config.rows}x{config.cols}",
            str(config.bus_bits),
            f"{config.act_bytes / KIB:g}",
            f"{config.wgt_bytes / KIB:g}",
            f"{config.param_bytes / KIB:g}",
            f"2x{config.acc_depth}",
            str(config.macs_per_cycle),
            f"{config.hash:08x}",
        )
    return table
