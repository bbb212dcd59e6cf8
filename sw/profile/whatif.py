"""What a change would bring: what is changed is compiled, and its cycles are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.build import compile_graph
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.compiler.ir import ConvOp, Graph, MoveOp, NpuOp, ReshapeOp
from celosia.sw.compiler.passes.fold_channels import fold_channels
from celosia.sw.compiler.passes.rewrite import with_ops
from celosia.sw.compiler.passes.stack_samples import stack_samples
from celosia.sw.compiler.verify import verify
from celosia.sw.profile.profile import predicted_cycles

__all__ = [
    "Change",
    "WhatIf",
    "with_free_moves",
    "without_channels",
    "without_first_op",
    "without_input_channels",
    "without_ops",
]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is changed; what is None stays.

    Attributes
    ----------
    graph : Graph, optional
        Lowered, in place of the model's.
    config : NpuConfig, optional
        In place of the machine's.
    samples : int
        Of a run, as rows of the same tensors.
    """

    graph: Graph | None = None
    config: NpuConfig | None = None
    samples: int = 1


@dataclass
class WhatIf:
    """Compiles changed models, so many times at most.

    Attributes
    ----------
    graph : Graph
        The model, lowered.
    config : NpuConfig
        The machine.
    memory : MemoryTiming
        System memory.
    left : int
        How often it may compile.
    """

    graph: Graph
    config: NpuConfig
    memory: MemoryTiming
    left: int

    def cycles(self, change: Change) -> int | None:
        """Return the cycles of an inference after a change; None if it cannot be compiled."""
        self.left -= 1
        graph = change.graph or self.graph
        if not graph.npu_ops:
            return None  # a model of one operator, without it
        try:
            if change.samples > 1:
                graph = stack_samples(graph, change.samples)
            verify(graph)
            program = compile_graph(graph, change.config or self.config)
        except CelosiaError:
            return None
        return predicted_cycles(program, self.memory) // change.samples


def without_ops(graph: Graph, ops: Sequence[NpuOp]) -> Graph:
    """Return a lowered graph without operators of one input, each of its output's shape."""
    gone = {op.output: op.inputs[0] for op in ops}

    def source(name: str) -> str:
        while name in gone:
            name = gone[name]
        return name

    left: list[NpuOp] = []
    for op in graph.npu_ops:
        if op.output in gone:
            continue
        renamed: dict[str, Any] = {
            name: source(getattr(op, name))
            for name in ("input", "input_a", "input_b")
            if isinstance(getattr(op, name, None), str)
        }
        if hasattr(op, "sources"):
            renamed["sources"] = tuple(source(name) for name in op.sources)
        left.append(replace(op, **renamed))
    changed = with_ops(graph, left)
    return replace(changed, outputs=[source(name) for name in graph.outputs], interface=None)


def without_first_op(graph: Graph, op: NpuOp) -> Graph:
    """Return a lowered graph that takes what an operator makes of its input."""
    inputs = [op.output if name == op.inputs[0] else name for name in graph.inputs]
    left = [other for other in graph.npu_ops if other is not op]
    return replace(with_ops(graph, left), inputs=inputs, interface=None)


def without_channels(graph: Graph, op: ConvOp, count: int) -> Graph | None:
    """Return a lowered graph in which a convolution has fewer output channels.

    They become constant and are folded, from all tensors in which they are; None if they cannot
    go, or others would go with them.
    """
    if fold_channels(graph) is not graph:
        return None
    parts = []
    for part in op.weight_parts:
        part = part.copy()
        part[..., op.cout - count :] = 0
        parts.append(part)
    bias = op.bias.copy()
    bias[op.cout - count :] = 0
    constant = replace(op, weights=parts[0], more_weights=tuple(parts[1:]), bias=bias)
    ops = [constant if other is op else other for other in graph.npu_ops]
    folded = fold_channels(with_ops(graph, ops))
    if folded.hwc(op.output)[2] != op.cout - count:
        return None
    return replace(folded, interface=None)


def without_input_channels(graph: Graph, op: ConvOp, count: int) -> Graph:
    """Return a lowered graph with fewer channels of an input that only a convolution reads."""
    left = op.cin - count
    narrow = replace(
        op,
        weights=op.weights[:, :, :left],
        more_weights=tuple(part[:, :, :left] for part in op.more_weights),
    )
    source = graph.tensors[op.input]
    tensor = replace(source, shape=(*source.shape[:-1], left))
    ops = [narrow if other is op else other for other in graph.npu_ops]
    return replace(with_ops(graph, ops, [tensor]), interface=None)


def with_free_moves(graph: Graph, ops: Sequence[MoveOp]) -> Graph:
    """Return a lowered graph in which what single tensors are copied to is their own bytes."""
    free = {
        op.output: ReshapeOp(origin=op.origin, input=op.sources[0], output=op.output) for op in ops
    }
    return with_ops(graph, [free.get(op.output, op) for op in graph.npu_ops])
