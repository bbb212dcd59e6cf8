"""Leaves conversions at the ends of a model to the host: float32, uint8 and other types.

QUANTIZE, DEQUANTIZE and CAST between an input of another type and the first int8 tensor, or between
the last one and an output, do not run on the NPU: the host converts as they would
(`celosia.sw.runtime.convert`), and the program begins and ends with the int8 tensors.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from celosia.sw.compiler.ir import DType, Graph, Op, Scaling, SourceOp
from celosia.sw.program.contents import MAX_RATIO, MIN_RATIO
from celosia.sw.program.conversion import CASTS, DEQUANTISED, QUANTISED

__all__ = ["LAYOUT", "edge_tensors", "strip_edges"]

LAYOUT = "layout"
"""Option of a conversion whose result has its input's axes in this order."""


def edge_tensors(graph: Graph) -> frozenset[str]:
    """Return the tensors at the ends of a source-level graph that the host has."""
    before, after = _ends(graph)
    first = {op.inputs[0] for ops in before.values() for op in ops}
    return frozenset((*first, *(op.results[0] for ops in after.values() for op in ops)))


def strip_edges(graph: Graph) -> Graph:
    """Return the graph without conversions at its ends, and with what they were as its interface.

    Parameters
    ----------
    graph : Graph
        Source level.
    """
    before, after = _ends(graph)
    if not before and not after:
        return graph
    removed = [op for ops in (*before.values(), *after.values()) for op in ops]
    gone = {id(op) for op in removed}
    inputs: list[str] = []
    for name in graph.inputs:
        results = [op.results[0] for op in before.get(name, [])]
        inputs += [t for t in results if _is_inner(graph, t)] or [name]
    outputs: list[str] = []
    for name in graph.outputs:
        source = after[name][0].inputs[0] if name in after else name
        if source not in outputs:
            outputs.append(source)
    conversions = dict.fromkeys((op.inputs[0], op.results[0]) for op in removed)
    ends = {*graph.inputs, *graph.outputs, *inputs, *outputs}
    between = dict.fromkeys(name for names in conversions for name in names if name not in ends)
    interface = replace(
        graph.own_interface,
        conversions=tuple(conversions),
        between=tuple(graph.tensors[name] for name in between),
        casts=tuple(dict.fromkeys(op.results[0] for op in removed if op.name == "CAST")),
        layouts=MappingProxyType(
            {op.results[0]: layout for op in removed if (layout := _turned(op)) is not None}
        ),
        even=tuple(dict.fromkeys(op.results[0] for op in removed if _rounds_to_even(op))),
    )
    return replace(
        graph,
        ops=[op for op in graph.ops if id(op) not in gone],
        inputs=inputs,
        outputs=outputs,
        interface=interface,
    )


_Ends = dict[str, list[SourceOp]]


def _ends(graph: Graph) -> tuple[_Ends, _Ends]:
    """Return inputs and outputs that conversions lead from and to, with these in order."""
    before: _Ends = {}
    # Variables are the NPU's own.
    variables = {name for variable in graph.state for name in (variable.before, variable.after)}
    for name in graph.inputs:
        inner = name in variables or _is_inner(graph, name)
        ops = None if inner else _from(graph, name)
        if ops:
            before[name] = ops
    # The host converts what the NPU has computed: something has to be left to compute.
    taken = {op.results[0] for ops in before.values() for op in ops} | set(graph.inputs)
    after: _Ends = {}
    for name in graph.outputs:
        inner = name in variables or _is_inner(graph, name)
        ops = None if inner else _to(graph, name, taken)
        if ops:
            after[name] = ops
    return before, after


def _from(graph: Graph, name: str) -> list[SourceOp] | None:
    """Return the conversions of a tensor and of what they make, down to int8 tensors.

    None if somebody else reads one of another type.
    """
    readers = graph.consumers(name)
    if name in graph.outputs or not readers:
        return None
    ops: list[SourceOp] = []
    for op in readers:
        if not isinstance(op, SourceOp) or not _converts(graph, op):
            return None
        result = op.results[0]
        further: list[SourceOp] | None = []
        if not _is_inner(graph, result):
            further = _from(graph, result)
        elif not graph.consumers(result):
            return None  # something has to be left to compute
        if further is None:
            return None
        ops += [op, *further]
    return ops


def _to(graph: Graph, name: str, taken: set[str]) -> list[SourceOp] | None:
    """Return the conversions that lead from an int8 tensor to an output which nobody reads."""
    ops: list[SourceOp] = []
    while True:
        op = graph.producer(name)
        if graph.consumers(name) != [*ops[:1]] or not isinstance(op, SourceOp):
            return None
        if (ops and name in graph.outputs) or not _converts(graph, op):
            return None
        ops.insert(0, op)
        name = op.inputs[0]
        if _is_inner(graph, name):
            return None if name in taken else ops


def _turned(op: SourceOp) -> tuple[int, ...] | None:
    """Return the order that a conversion brings the axes into; None if it is the one they have."""
    layout = op.options.get(LAYOUT)
    turns = isinstance(layout, tuple) and layout != tuple(range(len(layout)))
    return layout if turns and isinstance(layout, tuple) else None


def _rounds_to_even(op: SourceOp) -> bool:
    """Whether a conversion quantises as ONNX does."""
    return op.arithmetic.scaling is Scaling.SINGLE and op.name == "QUANTIZE"


def _converts(graph: Graph, op: SourceOp) -> bool:
    """Whether an operator is a conversion that the host does."""
    if not op.inputs:
        return False
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    kinds = str(source.dtype), str(result.dtype)
    layout = op.options.get(LAYOUT)
    shape = source.shape
    if isinstance(layout, tuple) and sorted(layout) == list(range(len(shape))):
        shape = tuple(shape[axis] for axis in layout)
    if source.is_constant or shape != result.shape:
        return False
    if op.name == "CAST":
        return set(kinds) <= CASTS
    if op.name == "DEQUANTIZE":
        quantised = bool(source.scale) or source.dtype is DType.FLOAT16
        return kinds in DEQUANTISED and quantised
    if op.name != "QUANTIZE" or kinds not in QUANTISED or not result.scale:
        return False
    if source.dtype is DType.FLOAT32:
        return True
    return source.scale is not None and MIN_RATIO < source.scale / result.scale < MAX_RATIO


def _is_inner(graph: Graph, name: str) -> bool:
    """Whether a tensor is an activation of the NPU: int8, or a uint8 one that it computes with."""
    tensor = graph.tensors[name]
    if tensor.dtype not in (DType.INT8, DType.UINT8) or not tensor.scale or tensor.is_constant:
        return False
    if tensor.dtype is DType.INT8:
        return not _is_outer(graph, name)
    users = [graph.producer(name), *graph.consumers(name)]
    return any(op is not None and not _is_conversion(graph, op) for op in users)


def _is_outer(graph: Graph, name: str) -> bool:
    """Whether an int8 tensor at an end of the graph is only there in another order of axes."""
    users = [graph.producer(name), *graph.consumers(name)]
    ops = [op for op in users if op is not None]
    return bool(ops) and all(
        isinstance(op, SourceOp)
        and LAYOUT in op.options
        and name in (*graph.inputs, *graph.outputs)
        and (name in graph.outputs) == (name in op.results)
        for op in ops
    )


def _is_conversion(graph: Graph, op: Op) -> bool:
    return isinstance(op, SourceOp) and _converts(graph, op)
