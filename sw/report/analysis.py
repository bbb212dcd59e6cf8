"""What is known of a model before it runs: in words and as a table, for a terminal of any width."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from celosia.quantities import MHZ
from celosia.sw.profile.advice import Advice
from celosia.sw.profile.profile import LayerView, Profile
from celosia.sw.program.tensors import TensorInfo
from celosia.sw.report.columns import Column, bar, cut, milliseconds, table_lines
from celosia.sw.report.fit import Fit
from celosia.sw.report.host import shares
from celosia.sw.report.labels import layer_label

__all__ = [
    "MOST_LAYERS",
    "advice_lines",
    "analysis_figures",
    "headline",
    "heaviest",
    "operator_lines",
]

MOST_LAYERS = 100
"""Of a table, unless all are asked for."""
LABEL_CHARACTERS = 26
BAR_CHARACTERS = 12
INDENT = 11
LEAST_SHOWN = 0.01
"""Of all cycles: a reason of less is not named."""


def headline(profile: Profile, fit: Fit, clock: str, width: int) -> list[str]:
    """Return what matters most, a line each.

    Parameters
    ----------
    profile : Profile
        Predicted.
    fit : Fit
        Of the same program, with the clock.
    clock : str
        Whose clock it is.
    width : int
        Of the terminal.
    """
    program, config = profile.program, profile.program.config
    layers = profile.layers
    macs = program.runs * sum(layer.info.macs for layer in layers)
    on_host = sum(not layer.on_npu for layer in layers)
    share, _ = shares(program)
    where = "all of them on the NPU"
    if on_host:
        where = f"{share:.1%} of them on the NPU; {on_host} of {len(layers)} layers on the host"
        where += f", {len(program.segments) - 1} changes between the two"
    if on_host == len(layers):
        where = "all of them on the host"
    gone = program.runs * program.folded_macs
    folded = f"; {gone:,} of them folded away" if gone else ""
    batch = f" for {program.batch} samples, {fit.cycles / program.batch:,.0f} each"
    cycles = f"{fit.cycles:,} cycles{batch if program.batch > 1 else ''}"
    each = f"{milliseconds(fit.milliseconds)} ms an inference"
    used = f", {profile.utilisation:.1%} of the multipliers' cycles used"
    time = f"{cycles}, {each} at {fit.clock_hz / MHZ:g} MHz ({clock}){used}"
    parts = ", ".join(f"{name} {size:,}" for name, size in fit.region_bytes.items() if size)
    on_chip = max((layer.info.sram_bytes for layer in layers), default=0)
    memory = f"{fit.needed_bytes:,} bytes of system memory ({parts}); on chip {on_chip:,} at most"
    if not profile.cycles:
        time, memory = "no cycles: the NPU has nothing to do", ""
    rows = {
        "inputs": "; ".join(_tensor(info) for info in program.inputs),
        "outputs": "; ".join(_tensor(info) for info in program.outputs),
        "work": f"{macs:,} MACs{folded}, {where}",
        "time": time,
        "spent on": ", ".join(
            f"{why.value} {count / profile.cycles:.0%}"
            for why, count in sorted(profile.reasons.items(), key=lambda entry: -entry[1])
            if count >= LEAST_SHOWN * profile.cycles > 0
        ),
        "memory": memory,
        "variables": "; ".join(_tensor(info) for info in program.persistent),
    }
    kind = f"{config.rows}x{config.cols} array, bus of {config.bus_bits} bits"
    title = f"{program.model} on configuration {config.name} ({kind})"
    lines = textwrap.wrap(title, width)
    for name, text in rows.items():
        if text:
            lines += _indented(f"  {name}", text, width, INDENT + 2)
    told = "predicted, nothing was run; 'celosia bench --layers' measures on the RTL"
    return [*lines, *textwrap.wrap(told, width, initial_indent="  ", subsequent_indent="  ")]


def _tensor(info: TensorInfo) -> str:
    return f"{cut(info.name, 40)} {'x'.join(str(size) for size in info.shape)} {info.dtype}"


def _indented(first: str, text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, indent + 20),
        initial_indent=first.ljust(indent),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


def heaviest(profile: Profile, most: int | None) -> list[LayerView]:
    """Return the layers that take most cycles, in the program's order; of many on the host few."""
    layers = list(profile.layers)
    if most is None or len(layers) <= most:
        return layers
    chosen = sorted(layers, key=lambda layer: -layer.cycles)[:most]
    return sorted(chosen, key=lambda layer: layer.number)


def operator_lines(
    profile: Profile, width: int, *, most: int | None = MOST_LAYERS, blocks: bool = True
) -> list[str]:
    """Return the table of operators.

    Parameters
    ----------
    profile : Profile
    width : int
        Of the terminal.
    most : int, optional
        Layers to show, the heaviest; None: all.
    blocks : bool
        Whether the terminal has block characters.
    """
    layers = heaviest(profile, most)
    figures = [profile.layer_figures(layer) for layer in layers]
    largest = max((entry["share"] for entry in figures), default=0.0) or 1.0

    def number(key: str) -> list[str]:
        return [f"{entry[key]:,}" if entry["runs_on"] == "npu" else "" for entry in figures]

    moved = [
        f"{entry['read_bytes'] + entry['written_bytes']:,}" if entry["runs_on"] == "npu" else ""
        for entry in figures
    ]
    lines = table_lines(
        [
            Column(
                title="operator",
                cells=[cut(layer_label(layer.info), LABEL_CHARACTERS) for layer in layers],
            ),
            Column(title="on", cells=[entry["runs_on"] for entry in figures]),
            Column(title="cycles", cells=number("cycles"), right=True),
            Column(
                title="share",
                cells=[f"{entry['share']:.1%}" if entry["cycles"] else "" for entry in figures],
                right=True,
            ),
            Column(
                title="",
                cells=[
                    bar(entry["share"] / largest, BAR_CHARACTERS, blocks=blocks)
                    for entry in figures
                ],
                importance=2,
            ),
            Column(
                title="bound by",
                cells=["" if entry["bound"] == "host" else entry["bound"] for entry in figures],
                importance=1,
            ),
            Column(
                title="use",
                cells=[
                    f"{entry['utilisation']:.0%}" if entry["utilisation"] else ""
                    for entry in figures
                ],
                right=True,
                importance=1,
            ),
            Column(title="SRAM bytes", cells=number("sram_bytes"), right=True, importance=5),
            Column(title="bus bytes", cells=moved, right=True, importance=4),
            Column(
                title="how",
                cells=[entry["how"] for entry in figures],
                importance=6,
                wraps=True,
            ),
        ],
        width,
    )
    if any((entry["utilisation"] or 0.0) > 1.0 for entry in figures):
        lines.append("use above 100%: a part of it was done while layers before it took their time")
    left = len(profile.layers) - len(layers)
    if left:
        rest = profile.cycles - sum(layer.cycles for layer in layers)
        lines.append(f"{left} lighter layers are left out, {rest:,} cycles together (--all)")
    return lines


def advice_lines(
    advice: Sequence[Advice], profile: Profile, width: int, untried: str = ""
) -> list[str]:
    """Return what to change, with the savings in front.

    Parameters
    ----------
    advice : sequence of Advice
    profile : Profile
    width : int
        Of the terminal.
    untried : str
        Why no change has been compiled; empty if that has been done.
    """
    on_host = [entry for entry in advice if entry.saved_cycles is None]
    savings = [entry for entry in advice if entry.saved_cycles is not None]
    lines: list[str] = []
    for entry in on_host:
        lines += _indented("  -", entry.text, width, 4)
    figures = [
        f"{'' if entry.compiled else 'about '}{entry.saved_cycles:,}"
        f" ({entry.saved_share or 0.0:.1%})"
        for entry in savings
    ]
    column = max((len(text) for text in figures), default=0)
    for text, entry in zip(figures, savings, strict=True):
        lines += _indented(f"  {text.rjust(column)}", entry.text, width, column + 4)
    if not lines and profile.cycles:
        lines = ["  nothing was found that saves 1 % of the cycles"]
    if untried and profile.cycles:
        lines += _indented("  -", f"changes have not been tried: {untried}", width, 4)
    return lines


def analysis_figures(
    profile: Profile,
    fit: Fit,
    clock: str,
    advice: Sequence[Advice],
    places: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything as plain values, for ``--json``."""
    program = profile.program
    macs, operators = shares(program)
    return {
        **profile.figures(),
        "run_cycles": fit.cycles,
        "milliseconds": fit.milliseconds,
        "clock_hz": fit.clock_hz,
        "clock_of": clock,
        "npu_share": {"macs": macs, "operators": operators},
        "inputs": [_tensor_figures(info) for info in program.inputs],
        "outputs": [_tensor_figures(info) for info in program.outputs],
        "variables": [_tensor_figures(info) for info in program.persistent],
        "memory_bytes": fit.needed_bytes,
        "region_bytes": dict(fit.region_bytes),
        "advice": [entry.figures() for entry in advice],
        **places,
    }


def _tensor_figures(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "shape": list(info.shape), "dtype": info.dtype}
