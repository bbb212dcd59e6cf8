"""The way of one tensor through the compiler, for ``docs/compiler.md``: values and picture.

The tensor is what the first convolution of the digit classifier makes, on configuration ``base``.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import COMMAND_BYTES, Command, Conv, Engine, Vector, fields_of
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite import convert
from celosia.sw.compiler.ir import ConvOp, Graph, SourceOp, Tensor
from celosia.sw.compiler.lower import PASSES
from celosia.sw.compiler.ops.registry import OPERATORS
from celosia.sw.docgen.marks import FigureError
from celosia.sw.docgen.sources import DIGITS, Sources
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.report.example import load_digits

__all__ = ["Walk", "walk_block", "walk_of"]

CONFIG = "base"
LAYER = 0
SAMPLE = 4
"""That of ``celosia demo``."""
WIDTH = 98
HEX_BYTES = 16
SHOWN_CHANNELS = 8
COMMON = ("opcode", "wait", "signal", "tag")
"""Fields that are shown otherwise, or not."""


@dataclass(frozen=True)
class Walk:
    """The tensor at each stage.

    Attributes
    ----------
    source, lowered : Graph
        As the reader returns it; as the passes leave it.
    passes : list of (str, int, int)
        Each pass, and how many operators and tensors there are behind it.
    op : SourceOp
        The operator that makes the tensor.
    conv : ConvOp
        The same for the NPU.
    program : Program
        All of it compiled.
    decoded : list of Command
        Its commands.
    owners : tuple of int
        The layer of each command.
    code : bytes
        The commands as the machine fetches them.
    plan : list of dict
        What the program file says of addresses.
    values : list of int
        The first channels of pixel (0, 0), by the emulator.
    """

    source: Graph
    lowered: Graph
    passes: list[tuple[str, int, int]]
    op: SourceOp
    conv: ConvOp
    program: Program
    decoded: list[Command]
    owners: tuple[int, ...]
    code: bytes
    plan: list[dict[str, int | str]]
    values: list[int]

    @property
    def tensor(self) -> Tensor:
        """The tensor that is followed."""
        return self.source.tensors[self.conv.output]

    @property
    def commands(self) -> list[tuple[int, Command]]:
        """The commands of its layer, with their numbers."""
        return [(i, c) for i, c in enumerate(self.decoded) if self.owners[i] == LAYER]

    def first(self, kind: type[Command]) -> tuple[int, Any]:
        """Return the first command of a kind, with its number."""
        return next((i, c) for i, c in self.commands if isinstance(c, kind))

    def places(self, memory: str) -> list[dict[str, int | str]]:
        """Return what the memory plan says of the tensor and of the model's input."""
        names = (self.conv.input, self.conv.output)
        return [e for e in self.plan if e["memory"] == memory and e["what"] in names]


@cache
def _walk(model: Path) -> Walk:
    source = graph = convert.load(model)
    passes = []
    for run in PASSES:
        graph = run(graph)
        passes.append((run.__name__, len(graph.ops), len(graph.tensors)))
    op, conv = source.ops[LAYER], graph.ops[LAYER]
    assert isinstance(op, SourceOp)
    assert isinstance(conv, ConvOp)
    config = preset(CONFIG)
    program = compile_model(model, config)
    kept = compile_model(model, config, keep_tensors=True)
    with open_device("emu", config, memory_bytes=1 << 20) as device:
        tensors = device.run(kept, load_digits().inputs[SAMPLE][None]).tensors
    values = tensors[conv.output].reshape(-1)[:SHOWN_CHANNELS]
    return Walk(
        source=source,
        lowered=graph,
        passes=passes,
        op=op,
        conv=conv,
        program=program,
        decoded=program.npu.decode(),
        owners=program.npu.command_layers,
        code=program.npu.commands,
        plan=program.npu.memory.plan,
        values=[int(value) for value in values],
    )


def walk_of(sources: Sources) -> Walk:
    """Return the tensor at each stage."""
    return _walk(sources.model(DIGITS))


def walk_block(sources: Sources, name: str) -> str:
    """Return what the page shows of a stage.

    Raises
    ------
    FigureError
        If there is no such stage.
    """
    if name not in _BLOCKS:
        raise FigureError("a stage of the compiler", f"there is none called {name!r}")
    return _BLOCKS[name](walk_of(sources))


def short(name: str) -> str:
    """Return a tensor's name without what TFLite's converter has put behind it."""
    first, *others = name.split(";")
    return f"{first};..." if others else first


def describe(tensor: Tensor) -> str:
    """Return a tensor's number in the file, type, shape and quantisation in words."""
    text = f"number {tensor.index}, {tensor.dtype} {list(tensor.shape)}"
    if tensor.channel_scales is not None:
        return f"{text}, {len(tensor.channel_scales)} scales"
    if tensor.scale is None:
        return text
    return f"{text}, scale {tensor.scale:.6g}, zero point {tensor.zero_point}"


def fields_text(command: Command) -> str:
    """Return a command's fields that have not their default value."""
    default = type(command)()
    shown = []
    for spec in fields_of(type(command)):
        value = getattr(command, spec.name)
        if spec.name in COMMON or (spec.enum is None and value == getattr(default, spec.name)):
            continue
        shown.append(f"{spec.name}={spec.enum(value).name if spec.enum else int(value)}")
    return " ".join(shown)


def tokens_text(command: Command) -> str:
    """Return whom a command waits for and whom it gives a signal."""
    named = []
    for word in ("wait", "signal"):
        mask = getattr(command, word)
        engines = [engine.name for engine in Engine if mask >> engine & 1]
        named += [f"{word} {'+'.join(engines)}"] if engines else []
    return ", ".join(named)


def _source(walk: Walk) -> str:
    lines = [walk.op.label]
    tensors = walk.source.tensors
    for head, names in (("input", walk.op.inputs), ("output", walk.op.outputs)):
        lines += [f"  {head:7} {short(name)}: {describe(tensors[name])}" for name in names]
    options = ", ".join(f"{name}={value}" for name, value in walk.op.options.items())
    lines += textwrap.wrap(
        options, WIDTH, initial_indent="  options ", subsequent_indent="          "
    )
    return "\n".join(lines)


def _record(walk: Walk) -> str:
    record = OPERATORS[walk.op.origin.name]
    assert record.lower is not None
    return "\n".join(
        [
            f"names   {', '.join(record.names)}",
            f"where   {record.where}",
            f"limits  {record.limits}",
            f"lower   {record.lower.__name__}",
        ]
    )


def _lowered(walk: Walk) -> str:
    conv = walk.conv
    return "\n".join(
        [
            f"{type(conv).__name__} of {conv.label}",
            f"  weights    {conv.weights.dtype} {list(conv.weights.shape)}: kernel height and"
            " width, input channels, output channels",
            f"  strides    {conv.stride_h}, {conv.stride_w}",
            f"  padding    top {conv.pad_top}, bottom {conv.pad_bottom},"
            f" left {conv.pad_left}, right {conv.pad_right}",
            f"  channel 0  bias {conv.bias[0]}, multiplier {conv.multiplier[0]},"
            f" shift {conv.shift[0]}",
            f"  values     input zero point {conv.input_zero_point}, output zero point"
            f" {conv.output_zero_point}, clamped to {conv.act_min} .. {conv.act_max}",
            f"  MACs       {conv.macs:,}",
        ]
    )


def _passes(walk: Walk) -> str:
    parts = [f"{len(walk.source.ops)} operators, {len(walk.source.tensors)} tensors"]
    before = (len(walk.source.ops), len(walk.source.tensors))
    for name, *after in walk.passes:
        parts.append(f"-> {name}")
        if tuple(after) != before:
            parts.append(f"({after[0]} operators, {after[1]} tensors)")
        before = (after[0], after[1])
    return "\n".join(textwrap.wrap(" ".join(parts), WIDTH, break_on_hyphens=False))


def _place(walk: Walk) -> str:
    lines = []
    for entry in (*walk.places("ACT"), *walk.places("IO")):
        first, size = int(entry["address"]), int(entry["bytes"])
        life = (
            f", alive in layers {entry['first_layer']} to {entry['last_layer']}"
            if "first_layer" in entry
            else ""
        )
        lines.append(
            f"{entry['memory']:4} bytes {first:5} to {first + size - 1:5}"
            f"  {short(str(entry['what']))}{life}"
        )
    line, vector = walk.program.config.line_bytes, walk.first(Vector)[1]
    lines.append(
        f"a line is {line} bytes; pixels are {vector.d_x} lines apart, rows {vector.d_y} lines"
    )
    return "\n".join(lines)


def _commands(walk: Walk) -> str:
    """Say what the commands are up to the first ones of the array and the vector engine."""
    lines = []
    shown = [index for index, _ in walk.commands].index(walk.first(Vector)[0]) + 1
    for index, command in walk.commands[:shown]:
        engine = command.engine.name if command.engine is not None else ""
        head = f"{index:4}  {engine:6} {type(command).__name__:6} "
        for text in (fields_text(command), tokens_text(command)):
            lines += textwrap.wrap(
                text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head)
            )
            head = " " * len(head)
    more = len(walk.commands) - shown
    return "\n".join([*lines, f"and {more} more, of other rows and channels"] if more else lines)


def _bytes(walk: Walk) -> str:
    index, _ = walk.first(Conv)
    start = index * COMMAND_BYTES
    code = walk.code[start : start + COMMAND_BYTES]
    return "\n".join(
        f"{start + at:04x}  {code[at : at + HEX_BYTES].hex(' ')}"
        for at in range(0, COMMAND_BYTES, HEX_BYTES)
    )


def _layer(walk: Walk) -> str:
    entry = {**asdict(walk.program.layers[LAYER])}
    entry["name"] = short(str(entry["name"]))
    text = json.dumps(entry)
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=" ")
    numbers = ", ".join(str(index) for index, _ in walk.commands)
    return "\n".join([*lines, f"commands of layer {LAYER}: {numbers}"])


def _values(walk: Walk) -> str:
    place = next(e for e in walk.places("ACT") if e["what"] == walk.conv.output)
    shown = " ".join(f"{value:4}" for value in walk.values)
    return f"pixel (0, 0), channels 0 to {SHOWN_CHANNELS - 1}, ACT byte {place['address']}: {shown}"


_BLOCKS: dict[str, Callable[[Walk], str]] = {
    "source": _source,
    "record": _record,
    "lowered": _lowered,
    "passes": _passes,
    "place": _place,
    "commands": _commands,
    "bytes": _bytes,
    "layer": _layer,
    "values": _values,
}
"""By the names that the page uses."""
