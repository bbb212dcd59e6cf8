"""What could be changed about a model or its machine, each rule with a guess of its gain.

A rule looks at the layers' cycles and at the graph and proposes; `celosia.sw.profile.advice` has
proposals compiled and predicted, and leaves out what does not keep its promise.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from celosia.hw.contract.config import ConfigError, NpuConfig
from celosia.quantities import KIB
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.cost.engines import SOFTMAX_ROW_CYCLES
from celosia.sw.compiler.ir import ConvOp, Graph, MoveOp, NpuOp, ReshapeOp, SoftmaxOp, TableOp
from celosia.sw.compiler.ops.registry import OPERATORS
from celosia.sw.compiler.passes.fold_channels import fold_channels
from celosia.sw.profile.attribute import Reason
from celosia.sw.profile.profile import LayerView, Profile
from celosia.sw.profile.whatif import (
    Change,
    with_free_moves,
    without_channels,
    without_first_op,
    without_input_channels,
    without_ops,
)
from celosia.sw.report.labels import layer_label

__all__ = ["RULES", "Case", "Proposal", "Rule"]

FEW = 4
"""A tile is hardly used if at most one of so many of its channels are."""
BATCH = 8
"""Samples that are tried."""
LISTED = 4
"""Layers that a sentence names."""
MONOTONE = ("LOGISTIC", "TANH")
ACTIVATIONS = (
    *("ELU", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "PRELU", "RELU", "RELU6"),
    *("RELU_0_TO_1", "RELU_N1_TO_1", "TANH"),
)
"""Functions that a convolution has no activation of its own for, or that the file has apart."""


Kind = TypeVar("Kind", bound=NpuOp)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What rules look at.

    Attributes
    ----------
    profile : Profile
        Of the compiled model.
    graph : Graph or None
        The model as the compiler lowered it; None if a part of it is the host's, or it runs
        several samples.
    """

    profile: Profile
    graph: Graph | None

    @property
    def config(self) -> NpuConfig:
        """The machine."""
        return self.profile.program.config

    def layers(self, ops: Sequence[NpuOp]) -> tuple[LayerView, ...]:
        """Return the layers on the NPU that operators of the graph became."""
        numbers = {op.origin.index for op in ops if op.origin.index >= 0}
        return tuple(
            layer
            for layer in self.profile.layers
            if layer.on_npu and layer.info.origin.index in numbers
        )

    def cycles(self, *ops: NpuOp) -> int:
        """Return the cycles of the layers that operators of the graph became."""
        return sum(layer.cycles for layer in self.layers(ops))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What could be changed.

    Attributes
    ----------
    text : str
        What, in a sentence without its gain.
    layers : tuple of int
        Numbers of the layers in the profile that it is about; none: all.
    guess : int or None
        Cycles that it saves, about; None: it is not about cycles of the NPU.
    change : callable or None
        Returns what to compile to know; None, also as its result, if that cannot be made.
    certain : bool
        Whether the guess is worth saying where it has not been compiled.
    """

    text: str
    layers: tuple[int, ...] = ()
    guess: int | None
    change: Callable[[], Change | None] | None = None
    certain: bool = False


Rule = Callable[[Case], Iterator[Proposal]]


def _of_graph(rule: Callable[[Case, Graph], Iterator[Proposal]]) -> Rule:
    """Return a rule that has nothing to say where there is no graph."""

    def checked(case: Case) -> Iterator[Proposal]:
        return iter(()) if case.graph is None else rule(case, case.graph)

    return checked


def _numbers(layers: Sequence[LayerView]) -> tuple[int, ...]:
    return tuple(layer.number for layer in layers)


def _named(indices: Sequence[int]) -> str:
    """Return operators' numbers, the first of many."""
    named = ", ".join(f"#{index}" for index in indices[:LISTED])
    more = len(indices) - LISTED
    return f"{named} and {more} more" if more > 0 else named


def _one(op: NpuOp) -> str:
    return f"#{op.origin.index} {op.origin.name}"


def _all(graph: Graph, kind: type[Kind]) -> list[Kind]:
    """Return the operators of the kind that a rule is about, in order."""
    return [op for op in graph.npu_ops if isinstance(op, kind)]


def _outputs(graph: Graph, kind: type[NpuOp]) -> set[str]:
    """Return the tensors that operators of one kind write."""
    return {op.output for op in _all(graph, kind)}


def _fixed_outputs(graph: Graph) -> set[str]:
    """Return tensors whose channels the model's user counts: outputs, and what leads there."""
    fixed, chosen = set(graph.outputs), _outputs(graph, ConvOp)
    for op in reversed(graph.npu_ops):
        if op.output in fixed - chosen:
            fixed.update(op.inputs)
    return fixed


@_of_graph
def _constant_channels(case: Case, graph: Graph) -> Iterator[Proposal]:
    if any(op.folded_macs for op in graph.npu_ops):
        return
    folded = fold_channels(graph)
    if folded is graph:
        return
    gone = sum(op.folded_macs for op in folded.npu_ops)
    yield Proposal(
        text=f"--fold: channels that are constant or unread are {gone / max(graph.macs, 1):.0%} of"
        " the MACs; the outputs stay equal",
        guess=case.profile.cycles * gone // max(graph.macs, 1),
        change=lambda: Change(graph=folded),
    )


@_of_graph
def _last_tile(case: Case, graph: Graph) -> Iterator[Proposal]:
    cols = case.config.cols
    fixed, views = _fixed_outputs(graph), _outputs(graph, ReshapeOp)
    for op in _all(graph, ConvOp):
        if op.depthwise or op.output in fixed:
            continue
        extra = op.cout % cols
        if not 0 < extra <= cols // FEW or op.cout < cols:
            continue
        tiles = ceil_div(op.cout, cols)
        readers = [
            reader
            for reader in graph.npu_ops
            if op.output in reader.inputs and reader.output not in views
        ]
        layers = case.layers([op])

        def change(op: ConvOp = op, extra: int = extra) -> Change | None:
            narrow = without_channels(graph, op, extra)
            return None if narrow is None else Change(graph=narrow)

        yield Proposal(
            text=f"{_one(op)} has {op.cout} output channels, {tiles} tiles of {cols} of which the"
            f" last has {extra}: take {op.cout - extra} (or {tiles * cols}, for the same cycles)",
            layers=_numbers(layers),
            guess=case.cycles(op) // tiles + case.cycles(*readers) // tiles,
            change=change,
            certain=True,
        )


@_of_graph
def _input_channels(case: Case, graph: Graph) -> Iterator[Proposal]:
    rows = case.config.rows
    for op in _all(graph, ConvOp):
        if op.depthwise or op.input not in graph.inputs:
            continue
        extra = op.cin % rows
        if not 0 < extra <= rows // FEW or op.cin < rows or len(graph.consumers(op.input)) > 1:
            continue
        passes = ceil_div(op.cin, rows)

        def change(op: ConvOp = op, extra: int = extra) -> Change:
            return Change(graph=without_input_channels(graph, op, extra))

        yield Proposal(
            text=f"{_one(op)} reads {op.cin} input channels, {passes} passes of {rows} of which the"
            f" last has {extra}: give it {op.cin - extra}",
            layers=_numbers(case.layers([op])),
            guess=case.cycles(op) // passes,
            change=change,
        )


@_of_graph
def _leading_reshape(case: Case, graph: Graph) -> Iterator[Proposal]:
    for op in _all(graph, ReshapeOp):
        if op.input not in graph.inputs:
            continue
        if len(graph.consumers(op.input)) > 1 or len(graph.consumers(op.output)) != 1:
            continue
        first = next((conv for conv in _all(graph, ConvOp) if op.output in conv.inputs), None)
        if first is None:
            continue

        def change(op: NpuOp = op) -> Change:
            return Change(graph=without_first_op(graph, op))

        shape = "x".join(str(size) for size in graph.tensors[op.output].shape)
        yield Proposal(
            text=f"{_one(op)} keeps {_one(first)} from being loaded folded: give the model an input"
            f" of {shape} instead of reshaping it",
            layers=_numbers(case.layers([first])),
            guess=case.cycles(first),
            change=change,
        )


@_of_graph
def _last_function(case: Case, graph: Graph) -> Iterator[Proposal]:
    reasons = dict.fromkeys(_outputs(graph, SoftmaxOp), "the largest score stays the largest")
    for table in _all(graph, TableOp):
        if table.origin.name in MONOTONE:
            reasons[table.output] = "it is monotone, so a threshold can be one of its input"
    for op in graph.npu_ops:
        if op.output not in graph.outputs or graph.consumers(op.output):
            continue
        if op.output not in reasons:
            continue
        why = reasons[op.output]
        if graph.tensors[op.inputs[0]].shape != graph.tensors[op.output].shape:
            continue

        def change(op: NpuOp = op) -> Change:
            return Change(graph=without_ops(graph, [op]))

        yield Proposal(
            text=f"{_one(op)} at the end can be left out if classes are wanted, not probabilities:"
            f" {why}",
            layers=_numbers(case.layers([op])),
            guess=case.cycles(op),
            change=change,
        )


@_of_graph
def _softmax_rows(case: Case, graph: Graph) -> Iterator[Proposal]:
    for op in _all(graph, SoftmaxOp):
        if op.rows > 1:
            yield Proposal(
                text=f"{_one(op)} has {op.rows:,} rows of {op.channels}, and each row takes"
                f" {SOFTMAX_ROW_CYCLES} cycles besides its channels': half as many rows (of an"
                " attention: heads) take half of the time",
                layers=_numbers(case.layers([op])),
                guess=case.cycles(op) // 2,
                certain=True,
            )


@_of_graph
def _activations(case: Case, graph: Graph) -> Iterator[Proposal]:
    groups: dict[str, list[NpuOp]] = defaultdict(list)
    convolved = _outputs(graph, ConvOp)
    for op in _all(graph, TableOp):
        if op.origin.name not in ACTIVATIONS or op.output in graph.outputs:
            continue
        if op.input in convolved and len(graph.consumers(op.input)) == 1:
            groups[op.origin.name].append(op)
    for name, ops in groups.items():

        def change(ops: list[NpuOp] = ops) -> Change:
            return Change(graph=without_ops(graph, ops))

        count = f"{name} ({_named([op.origin.index for op in ops])})"
        yield Proposal(
            text=f"{count} goes over its tensor once more, by a table: RELU or RELU6 as the"
            " own activation of the layer before it takes no cycles",
            layers=_numbers(case.layers(ops)),
            guess=case.cycles(*ops),
            change=change,
        )


@_of_graph
def _batch(case: Case, graph: Graph) -> Iterator[Proposal]:
    reasons = case.profile.reasons
    if graph.state:
        return
    weights = reasons[Reason.WEIGHTS] + reasons[Reason.WEIGHTS_BUS]
    yield Proposal(
        text=f"--batch {BATCH}, if several samples are there at a time: loading weights, filling"
        " and starting are done once for all of them (cycles of a sample)",
        guess=weights * (BATCH - 1) // BATCH,
        change=lambda: Change(samples=BATCH),
    )


def _machine(case: Case) -> Iterator[Proposal]:
    """Propose one size of the machine after the other, where cycles wait for it."""
    config, reasons = case.config, case.profile.reasons
    if case.graph is None:
        return
    loaded = sum(layer.cycles for layer in case.profile.layers if layer.bound == "bus")
    waiting = reasons[Reason.WEIGHTS_BUS] + reasons[Reason.ACTIVATIONS] + reasons[Reason.DMA]
    vector = reasons[Reason.VECTOR] + reasons[Reason.ACCUMULATORS]
    moved = sum(layer.read_bytes + layer.written_bytes for layer in case.profile.layers)
    own = sum(
        len(segment.constants) + sum(info.size_bytes for info in (*segment.taken, *segment.given))
        for segment in case.profile.program.npu_segments
    )
    if moved > own:
        again = f"{moved - own:,} of {moved:,} bytes on the bus are stored aside or loaded again"
        for field, what in (("act_bytes", "activation"), ("wgt_bytes", "weight")):
            size = 2 * getattr(config, field)
            yield from _resized(
                {field: size},
                f"{size // KIB} KiB of {what} SRAM ({field}) instead of {size // 2 // KIB}:"
                f" {again}",
                waiting * (moved - own) // moved,
                config,
            )
    if not config.firmware:
        width = 2 * config.bus_bits
        yield from _resized(
            {"bus_bits": width},
            f"a bus of {width} bits (bus_bits) instead of {config.bus_bits}",
            (loaded + reasons[Reason.WEIGHTS_BUS]) // 2,
            config,
        )
        lanes = 2 * config.vector_lanes
        yield from _resized(
            {"lanes": lanes},
            f"{lanes} lanes of the vector engine (lanes) instead of {config.vector_lanes}",
            vector // 2,
            config,
        )


def _resized(
    fields: dict[str, int], text: str, guess: int, config: NpuConfig
) -> Iterator[Proposal]:
    try:
        changed = config.with_(**fields)
    except ConfigError:
        return
    yield Proposal(
        text=f"a machine with {text}", guess=guess, change=lambda: Change(config=changed)
    )


@_of_graph
def _orders(case: Case, graph: Graph) -> Iterator[Proposal]:
    """Propose another order of elements where one tensor is copied to have it."""
    state = {name for variable in graph.state for name in (variable.before, variable.after)}
    groups: dict[str, list[MoveOp]] = defaultdict(list)
    for op in _all(graph, MoveOp):
        if len(op.sources) != 1 or op.constants:
            continue
        before, after = graph.tensors[op.sources[0]], graph.tensors[op.output]
        if before.elements == after.elements and not state & {before.name, after.name}:
            groups[op.origin.name].append(op)
    for name, ops in groups.items():
        layers = case.layers(ops)
        moved = sum(layer.read_bytes + layer.written_bytes for layer in layers)
        yield Proposal(
            text=f"{name} ({_named([op.origin.index for op in ops])}) copies"
            f"{f' {moved:,} bytes' if moved else ''} into another order: leave it out if the layers"
            " around it can do with the order that is there",
            layers=_numbers(layers),
            guess=case.cycles(*ops),
            change=lambda ops=ops: Change(graph=with_free_moves(graph, ops)),  # type: ignore[misc]
        )


def _host(case: Case) -> Iterator[Proposal]:
    groups: dict[str, list[LayerView]] = defaultdict(list)
    for layer in case.profile.layers:
        if not layer.on_npu:
            groups[re.sub(r"^(tensor )?'.*?' ", "a tensor ", layer.info.reason)].append(layer)
    for reason, layers in groups.items():
        names = list(dict.fromkeys(layer.info.op for layer in layers))
        if len(layers) == 1:
            what = f"{layer_label(layers[0].info)} runs on the host"
        else:
            listed = ", ".join(names[:LISTED]) + (" and others" if len(names) > LISTED else "")
            what = f"{len(layers)} operators run on the host ({listed})"
        yield Proposal(
            text=f"{what}: {reason}{_remedy(reason, names)}",
            layers=_numbers(layers),
            guess=None,
        )


REMEDIES = {
    r"is (u?int(16|32|64)|float\d+)$": "quantise the whole model to int8",
    "keeps state between inferences": "convert the recurrent layer unrolled (unroll=True in Keras)",
}
"""What helps against a reason, by what the reason has in it."""


def _remedy(reason: str, names: Sequence[str]) -> str:
    for pattern, remedy in REMEDIES.items():
        if re.search(pattern, reason):
            return f"; {remedy}"
    record = OPERATORS.get(names[0]) if len(names) == 1 else None
    return f"; {record.remedy}" if record and record.remedy else ""


RULES: dict[str, Rule] = {
    "host": _host,
    "constant-channels": _constant_channels,
    "leading-reshape": _leading_reshape,
    "last-tile": _last_tile,
    "input-channels": _input_channels,
    "activation": _activations,
    "last-function": _last_function,
    "softmax-rows": _softmax_rows,
    "order": _orders,
    "batch": _batch,
    "machine": _machine,
}
"""By the name that ``--json`` has."""
