"""Leaves conversions at the ends of a model to the host: float32 and uint8 inputs and outputs.

A QUANTIZE of an input, and a DEQUANTIZE or QUANTIZE of what is an output, do not run on the NPU:
the host converts as they would (`celosia.sw.runtime.convert`), and the program begins and ends with
the int8 tensors between.
"""

from __future__ import annotations

from dataclasses import replace

from celosia.sw.compiler.ir import DType, Graph, Interface, SourceOp
from celosia.sw.program.file import MAX_RATIO, MIN_RATIO

__all__ = ["edge_tensors", "strip_edges"]

CONVERTED = frozenset({DType.FLOAT32, DType.UINT8})
"""Element types that the host converts to int8 and back."""


def edge_tensors(graph: Graph) -> frozenset[str]:
    """Return the inputs and outputs of a source-level graph that the host can convert."""
    sources = _inputs(graph)
    return frozenset((*sources, *_outputs(graph, sources)))


def strip_edges(graph: Graph) -> Graph:
    """Return the graph without conversions at its ends, and with what they were as its interface.

    Parameters
    ----------
    graph : Graph
        Source level.
    """
    sources = _inputs(graph)
    sinks = _outputs(graph, sources)
    if not sources and not sinks:
        return graph
    removed = {id(op) for ops in sources.values() for op in ops} | {id(op) for op in sinks.values()}
    inputs: list[str] = []
    conversions: list[tuple[str, str]] = []
    for name in graph.inputs:
        ops = sources.get(name)
        inner = [name] if ops is None else [op.results[0] for op in ops]
        inputs += inner
        conversions += [] if ops is None else [(name, target) for target in inner]
    outputs: list[str] = []
    for name in graph.outputs:
        source = sinks[name].inputs[0] if name in sinks else name
        if source not in outputs:
            outputs.append(source)
        if source != name:
            conversions.append((source, name))
    interface = Interface(
        inputs=tuple(graph.tensors[name] for name in graph.inputs),
        outputs=tuple(graph.tensors[name] for name in graph.outputs),
        conversions=tuple(conversions),
    )
    return replace(
        graph,
        ops=[op for op in graph.ops if id(op) not in removed],
        inputs=inputs,
        outputs=outputs,
        interface=interface,
    )


def _inputs(graph: Graph) -> dict[str, list[SourceOp]]:
    """Return the inputs that only QUANTIZE reads, with these operators."""
    found = {}
    for name in graph.inputs:
        if not _convertible(graph, name) or name in graph.outputs:
            continue
        readers = graph.consumers(name)
        quantisers = [op for op in readers if isinstance(op, SourceOp) and op.name == "QUANTIZE"]
        inner = [op for op in quantisers if _is_inner(graph, op.results[0], name)]
        if readers and len(inner) == len(readers):
            found[name] = inner
    return found


def _outputs(graph: Graph, sources: dict[str, list[SourceOp]]) -> dict[str, SourceOp]:
    """Return the outputs that nobody reads and a conversion of an int8 tensor writes, with it.

    `sources` is what `_inputs` finds.
    """
    found = {}
    # The host converts what the NPU has computed: something has to be left to compute.
    inputs = {op.results[0] for ops in sources.values() for op in ops}
    inputs.update(graph.inputs)
    for name in graph.outputs:
        op = graph.producer(name)
        if (
            isinstance(op, SourceOp)
            and op.name in ("QUANTIZE", "DEQUANTIZE")
            and _convertible(graph, name)
            and not graph.consumers(name)
            and _is_inner(graph, op.inputs[0], name)
            and op.inputs[0] not in inputs
        ):
            found[name] = op
    return found


def _convertible(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    quantised = tensor.dtype is DType.FLOAT32 or bool(tensor.scale)
    return tensor.dtype in CONVERTED and quantised


def _is_inner(graph: Graph, name: str, edge: str) -> bool:
    """Whether a tensor is an int8 activation that the edge can be converted to or from."""
    tensor, outer = graph.tensors[name], graph.tensors[edge]
    if tensor.dtype is not DType.INT8 or not tensor.scale or tensor.is_constant:
        return False
    if tensor.shape != outer.shape:
        return False
    return outer.scale is None or MIN_RATIO < tensor.scale / outer.scale < MAX_RATIO
