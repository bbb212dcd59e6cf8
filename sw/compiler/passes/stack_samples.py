"""Makes one program of several samples: their images lie below one another.

A tensor of n samples is the bytes of each, one after the other, which `hwc` views as n times as
many rows. An operator that computes every row from the same row, or whose windows stay within a
sample, computes them all at once; its weights cross the bus once.
"""

from __future__ import annotations

from dataclasses import replace

from celosia.sw.compiler.ir import Graph, NpuOp, Tensor
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.passes.rewrite import unsupported
from celosia.sw.program.tensors import over_samples

__all__ = ["stack_samples"]

MAX_ELEMENTS = 1 << 25
"""Of all tensors of all samples together."""


def stack_samples(graph: Graph, samples: int) -> Graph:
    """Return the graph of several samples.

    Parameters
    ----------
    graph : Graph
        Lowered, of one sample.
    samples : int
        At least 1.

    Raises
    ------
    UnsupportedError
        If an operator would mix the samples; it names the operator.
    """
    if samples == 1:
        return graph
    elements = samples * sum(tensor.elements for tensor in graph.tensors.values())
    if elements > MAX_ELEMENTS:
        raise unsupported(graph.ops[0], f"{samples} samples have {elements:,} elements")
    ops = [_stacked(graph, op, samples) for op in graph.npu_ops]

    def over(tensor: Tensor) -> Tensor:
        return replace(tensor, shape=over_samples(tensor.shape, samples))

    interface = graph.interface
    if interface is not None:
        interface = replace(
            interface,
            inputs=tuple(over(tensor) for tensor in interface.inputs),
            outputs=tuple(over(tensor) for tensor in interface.outputs),
            between=tuple(over(tensor) for tensor in interface.between),
        )
    return replace(
        graph,
        ops=list(ops),
        tensors={name: over(tensor) for name, tensor in graph.tensors.items()},
        interface=interface,
    )


def _stacked(graph: Graph, op: NpuOp, samples: int) -> NpuOp:
    kind = kind_of(op)
    stacked: NpuOp | None = kind.stack(graph, op, samples)
    if stacked is None:
        raise unsupported(op, "it would mix rows of different samples")
    return replace(stacked, macs=samples * stacked.macs, folded_macs=samples * stacked.folded_macs)
