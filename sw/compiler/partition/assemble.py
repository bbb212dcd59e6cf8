"""Makes one program of the segments of a divided model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.emit import tensor_info
from celosia.sw.compiler.ir import Graph, SourceOp
from celosia.sw.compiler.partition.variables import Variables
from celosia.sw.program.file import Program
from celosia.sw.program.segments import HostSegment, LayerInfo, NpuSegment, Segment
from celosia.sw.program.tensors import TensorInfo

__all__ = ["assemble", "host_layer"]


def host_layer(graph: Graph, op: SourceOp, reason: str, macs: int) -> LayerInfo:
    """Return what a report says of an operator on the host."""
    name = op.results[0] if op.results else op.label
    return LayerInfo(
        name=name, op=op.origin.name, origin=op.origin, macs=macs, runs_on="host", reason=reason
    )


def assemble(
    graph: Graph,
    config: NpuConfig,
    parts: Sequence[tuple[Program | HostSegment, Sequence[int]]],
    variables: Variables,
) -> Program:
    """Return the program of a divided model.

    Parameters
    ----------
    graph : Graph
        The model as it was read.
    config : NpuConfig
        The machine.
    parts : sequence of (Program or HostSegment, sequence of int)
        In the order in which they run, and their operators; a program has one segment, of the NPU.
    variables : Variables
        Those of the model.
    """
    inputs, outputs = (
        tuple(tensor_info(graph, graph.tensors[name]) for name in names)
        for names in graph.interface_names
    )
    segments: list[Segment] = []
    conversions: dict[tuple[str, str], None] = {}
    state = variables.initial()
    between: dict[str, TensorInfo] = {}
    casts: dict[str, None] = {}
    layouts: dict[str, tuple[int, ...]] = {}
    even: dict[str, None] = {}
    ends = {info.name: info for info in (*inputs, *outputs)}
    known = dict(ends)
    for number, (part, operators) in enumerate(parts, 1):
        name = graph.name if len(parts) == 1 else f"{graph.name}, part {number}"
        segment: Segment = part if isinstance(part, HostSegment) else part.npu
        if isinstance(part, Program):
            conversions |= dict.fromkeys(variables.renamed(part.conversions))
            between |= {info.name: info for info in part.between}
            casts |= dict.fromkeys(part.casts)
            layouts |= part.layouts
            even |= dict.fromkeys(part.even)
        segment = variables.in_segment(segment, operators)
        if isinstance(segment, NpuSegment):
            segment = _without_doubles(segment, graph, known)
        segments.append(replace(segment, name=name))
        known |= {info.name: info for info in segment.infos}
    return Program(
        config=config,
        model=graph.name,
        inputs=inputs,
        outputs=outputs,
        conversions=tuple(conversions),
        between=tuple(between.values()),
        casts=tuple(casts),
        layouts=layouts,
        even=tuple(even),
        segments=tuple(segments),
        initial_state=b"".join(
            state[name] for name, info in {**ends, **between, **known}.items() if info.persistent
        ),
    )


def _without_doubles(segment: NpuSegment, graph: Graph, known: dict[str, TensorInfo]) -> NpuSegment:
    """Leave out kept tensors whose name another tensor of the program has.

    The compiler chooses names for the tensors that it makes in each segment alone.
    """
    kept = tuple(
        tensor
        for tensor in segment.intermediates
        if tensor.name not in known
        and (tensor.info.origin.index >= 0 or tensor.name not in graph.tensors)
    )
    return replace(segment, intermediates=kept)
