"""``celosia compile``: from a ``.tflite`` file to a program file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from celosia.hw.contract.isa import COMMAND_BYTES
from celosia.hw.contract.named import resolve_config
from celosia.sw.cli.common import (
    BatchOption,
    ConfigOption,
    ExactOption,
    FoldOption,
    HostChoice,
    HostOption,
    JsonOption,
    ResidentOption,
    help_text,
    output_console,
)
from celosia.sw.program.file import Program
from celosia.sw.program.segments import HostSegment
from celosia.sw.report.figures import state_figures
from celosia.sw.report.files import require_writable, write_bytes, write_json
from celosia.sw.report.host import host_figures, measure_host, share_line
from celosia.sw.report.lines import batch_lines
from celosia.sw.report.tables import NARROW, program_table, reason_lines, state_table

__all__ = ["program_figures", "register"]

HELP = """
Compile a model (.tflite or .onnx) to a program for the NPU, and for the host where it cannot.

The table says for each operator where it runs and why (how it is laid onto the array), in how many
tiles, what it holds in the on-chip SRAM, what it moves over the bus and how many cycles it is
expected to take. Operators that the NPU does not run are cut out of the model and run on the host,
by TFLite's own kernels or by onnxruntime: the table says why, and what each takes on this machine
if ai-edge-litert is installed. --host refuse refuses such a model instead. Of an ONNX model the
table also says whether a layer is proven equal to onnxruntime; --exact leaves those that are not to
the host.

Examples:

  celosia compile kws_int8.tflite -o kws.celosia

  celosia compile resnet8_int8.tflite -o resnet8.celosia --config large --json report.json

  celosia compile vww_96_int8.tflite -o vww.celosia --fold

  celosia compile ad01_int8.tflite -o ad01.celosia --batch 8
"""


def program_figures(program: Program) -> dict[str, Any]:
    """Return the figures of a program for ``--json``."""
    layers, segments = program.layers, program.npu_segments
    return {
        "model": program.model,
        "batch": program.batch,
        "one_by_one": program.one_by_one,
        "config": asdict(program.config),
        "config_hash": f"{program.config.hash:08x}",
        "macs": program.runs * sum(layer.macs for layer in layers),
        "folded_macs": program.runs * program.folded_macs,
        "predicted_cycles": program.predicted_cycles,
        "commands": sum(len(segment.commands) for segment in segments) // COMMAND_BYTES,
        "constant_bytes": sum(len(segment.constants) for segment in segments),
        "staying_bytes": sum(segment.staying_bytes for segment in segments),
        "region_bytes": dict(sum((Counter(s.memory.region_bytes) for s in segments), Counter())),
        "segments": [
            {
                "name": segment.name,
                "runs_on": "host" if isinstance(segment, HostSegment) else "npu",
                "layers": len(segment.layers),
                "takes": [info.name for info in segment.taken],
                "gives": [info.name for info in segment.given],
            }
            for segment in program.segments
        ],
        "layers": [asdict(layer) for layer in layers],
        "state": state_figures(program),
    }


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("compile", help=help_text(HELP))(compile_command)


def compile_command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Model, .tflite or .onnx, quantised to int8.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT.celosia", help="Program file to write."),
    ],
    config: ConfigOption = "base",
    keep_tensors: Annotated[
        bool,
        typer.Option(
            "--keep-tensors",
            help="Also leave every intermediate tensor in memory, for debugging (slower).",
        ),
    ] = False,
    fold: FoldOption = False,
    batch: BatchOption = 1,
    host: HostOption = HostChoice.ALLOW,
    resident: ResidentOption = None,
    exact: ExactOption = False,
    json: JsonOption = None,
) -> None:
    """Compile a model and print the report."""
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.report.fit import usual_memory

    require_writable(output, json)
    chosen = resolve_config(config)
    program = compile_model(
        model,
        chosen,
        keep_tensors=keep_tensors,
        fold=fold,
        batch=batch,
        host=host.value,
        resident=resident,
        memory=usual_memory(chosen),
        exact=exact,
    )
    # Both at the end: a failure leaves no files.
    data = program.to_bytes()
    write_bytes(output, data)
    times = measure_host(program)
    figures = program_figures(program) | host_figures(program, times)
    if json is not None:
        write_json(json, {**figures, "program": str(output), "program_bytes": len(data)})
    console = output_console()
    narrow = console.width < NARROW
    console.print(program_table(program, times, reasons=not narrow))
    for line in reason_lines(program) if narrow else ():
        console.print(line)
    if program.persistent:
        console.print(state_table(program))
    if times:
        console.print(share_line(program, times), soft_wrap=True)
    console.print(
        f"{output}: {len(data):,} bytes for configuration {chosen.name},"
        f" {figures['commands']} commands, {figures['constant_bytes']:,} bytes of constants,"
        f" {figures['predicted_cycles']:,} cycles predicted",
        soft_wrap=True,
    )
    if figures["staying_bytes"]:
        console.print(
            f"{figures['staying_bytes']:,} bytes of weights stay on chip from run to run",
        )
    for line in batch_lines(program, None):
        console.print(line, soft_wrap=True)
