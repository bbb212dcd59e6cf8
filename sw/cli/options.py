"""Options of the commands that run a program: they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from celosia.sw.cli.completing import complete_config

__all__ = [
    "LATENCY_CYCLES",
    "ArrayOption",
    "LatencyOption",
    "ProgramArgument",
    "ProgramConfigOption",
    "QuantizeOption",
    "RandomOption",
    "StallsOption",
]

LATENCY_CYCLES = 8
"""Of the simulated memory, unless a command says otherwise."""

ProgramArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A .tflite or .onnx model, or a .celosia program.")
]
ProgramConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME|FILE.json",
        autocompletion=complete_config,
        help="Hardware configuration: a preset or a JSON file with fields of NpuConfig."
        " Default: what the program was compiled for, or base.",
    ),
]
ArrayOption = Annotated[
    str | None,
    typer.Option("--array", metavar="NAME", help="The array of X.npz to use."),
]
QuantizeOption = Annotated[
    bool,
    typer.Option("--quantize", help="Quantise float inputs with the model's parameters."),
]
RandomOption = Annotated[
    int,
    typer.Option("--random", metavar="N", min=0, help="Also run N random inputs."),
]
LatencyOption = Annotated[
    int | None,
    typer.Option(
        "--latency",
        metavar="CYCLES",
        min=1,
        help=f"Latency of the simulated memory. Default: {LATENCY_CYCLES}.",
    ),
]
StallsOption = Annotated[
    float | None,
    typer.Option(
        "--stalls",
        metavar="P",
        min=0.0,
        max=0.99,
        help="Chance, each cycle, that the simulated memory refuses or delays. Default: 0.",
    ),
]
