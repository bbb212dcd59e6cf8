"""The options of ``celosia run`` that write a waveform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.sw.program.file import Program
from celosia.sw.report.labels import layer_label
from celosia.sw.report.waves import Waveform, plan_waveform
from rich.console import Console

__all__ = [
    "FromOption",
    "ToOption",
    "TraceOption",
    "announce_trace",
    "check_trace_options",
    "plan_trace",
    "trace_figures",
]

TRACED = "sim"
"""The device that has waveforms."""

TraceOption = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="X.fst|X.vcd",
        help="Write a waveform of the first run, and a signal list X.gtkw. Device 'sim' only.",
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="LAYER",
        help="First layer in --trace: number, name or result. Default: the first.",
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option("--to", metavar="LAYER", help="Last layer in --trace. Default: the last."),
]


def check_trace_options(
    device: str, trace: Path | None, first: str | None, last: str | None
) -> None:
    """Refuse options that do not go together, before anything is compiled.

    Raises
    ------
    CelosiaError
        Naming the option.
    """
    for option, given in (("--from", first), ("--to", last)):
        if given is not None and trace is None:
            raise CelosiaError(option, "it is about the layers in a --trace", "add one")
    if trace is not None and device != TRACED:
        raise CelosiaError(
            f"device {device!r}",
            f"it has no waveform: --trace shows signals of the gateware, which only {TRACED!r} has",
            f"use --device {TRACED}",
        )


def plan_trace(
    program: Program, trace: Path | None, first: str | None, last: str | None
) -> Waveform | None:
    """Return what is to be written; None if nothing is. Errors as `plan_waveform`."""
    return None if trace is None else plan_waveform(program, trace, first, last)


def announce_trace(console: Console, program: Program, waveform: Waveform) -> None:
    """Say what will be written, and that a simulator has to be built for it, if so."""
    from celosia.sim.rtl.verilator import cache_folder, npu_key

    size = _size(waveform.expected_bytes)
    console.print(
        f"{waveform.path}: {_layers(waveform)}, about {waveform.expected_cycles:,} cycles,"
        f" about {size}",
        soft_wrap=True,
        markup=False,
    )
    if not (cache_folder() / "rtl" / npu_key(program.config, trace=True)).is_dir():
        console.print(
            f"the simulator of {program.config.name} that writes waveforms is built first: a minute"
            " or two, once",
            soft_wrap=True,
            markup=False,
        )


def trace_figures(console: Console, waveform: Waveform) -> dict[str, Any]:
    """Say what has been written; return it for ``--json``."""
    size = waveform.path.stat().st_size
    console.print(
        f"{waveform.path}: {_size(size)}; gtkwave {waveform.path} {waveform.list_path}",
        soft_wrap=True,
        markup=False,
    )
    return {
        "file": str(waveform.path),
        "signals": str(waveform.list_path),
        "bytes": size,
        "layers": [layer_label(layer) for layer in waveform.layers],
    }


def _layers(waveform: Waveform) -> str:
    first, last = (layer_label(waveform.layers[place]) for place in (0, -1))
    return f"layer {first}" if len(waveform.layers) == 1 else f"layers {first} to {last}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
