"""Cuts a part of a layer out of a network, as a graph of its own with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError
from celosia.sw.compiler.ir import (
    Graph,
    Op,
    Origin,
    TableOp,
    Tensor,
    fresh_name,
)
from celosia.sw.compiler.place.works import Work
from celosia.sw.report.arrays.split import Region

__all__ = ["ON_CHIP", "Piece", "can_be_cut", "cut", "needed_region", "reads_all", "whole_region"]

Array = npt.NDArray[Any]

ON_CHIP = "ON_CHIP"
"""Operator of the layers that bring what a piece reads to where it would be in the network."""
IDENTITY = np.arange(256, dtype=np.uint8).view(np.int8)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a layer.

    Attributes
    ----------
    graph : Graph
        Lowered. What the layer reads is written by layers `ON_CHIP`, as the layer before it would,
        unless it is an input of the network.
    sources : tuple of (str, str, Region)
        For each input of the graph its name, that of the network's tensor, and the part of it.
    target : (str, Region)
        The network's tensor that the output is a part of, and the part.
    begins, ends : bool
        Whether it reads an input of the network, and writes an output.
    """

    graph: Graph
    sources: tuple[tuple[str, str, Region], ...]
    target: tuple[str, Region]
    begins: bool
    ends: bool

    def inputs(self, tensors: Mapping[str, Array], network: Graph) -> dict[str, Array]:
        """Return what the graph takes, out of the network's tensors."""
        return {own: _part(tensors[name], network, name, at) for own, name, at in self.sources}

    def expected(self, tensors: Mapping[str, Array], network: Graph) -> Array:
        """Return what the graph gives, out of the network's tensors."""
        name, region = self.target
        return _part(tensors[name], network, name, region)


def _part(values: Array, network: Graph, name: str, region: Region) -> Array:
    image = values.reshape(network.hwc(name))
    (top, bottom), (first, end) = region.rows, region.channels
    return np.ascontiguousarray(image[np.newaxis, top:bottom, :, first:end])


def whole_region(network: Graph, name: str) -> Region:
    """Return the region that is all of a tensor."""
    height, _, channels = network.hwc(name)
    return Region((0, height), (0, channels))


def can_be_cut(work: Work) -> bool:
    """Return whether there are pieces of a layer other than the whole."""
    return work.kind.piece is not None


def cut(network: Graph, works: Sequence[Work], region: Region) -> Piece:
    """Return the part of a layer that computes a region of its output.

    Parameters
    ----------
    network : Graph
        Lowered.
    works : sequence of Work
        The layer: an operator, or a convolution and the addition behind it. Or a layer and the one
        that reads its output, of which the piece then computes what it needs.
    region : Region
        Of the last one's output. Of other operators than convolutions, pools and additions it is
        the whole.

    Raises
    ------
    CelosiaError
        If such an operator cannot be cut.
    """
    tensors: dict[str, Tensor] = {}
    copies: list[Op] = []
    ops: list[Op] = []
    sources: dict[str, tuple[str, str, Region]] = {}
    wanted = {works[-1].output: region}
    made = {work.output for work in works}
    for work in reversed(works):
        own = wanted[work.output]
        if own != whole_region(network, work.output) and not can_be_cut(work):
            raise CelosiaError(f"layer {work.name}", "it cannot be cut", "leave it whole")
        for place, name in enumerate(work.inputs):
            part = needed_region(network, work, place, own)
            if wanted.setdefault(name, part) != part:
                raise CelosiaError(f"layer {work.name}", f"it needs two parts of {name}", "")
            tensors[name] = _tensor(network, name, name, part)
            if name in made or name in sources:
                continue
            taken = name
            if name not in network.inputs:
                taken = fresh_name(network.tensors, f"{name}/memory")
                tensors[taken] = _tensor(network, name, taken, part)
                copies.append(_copy(taken, name))
            sources[name] = taken, name, part
        op = work.op
        if work.kind.piece is not None:
            height = network.hwc(op.inputs[0])[0]
            op = work.kind.piece(op, height, own.rows, own.channels)
        tensors[op.output] = _tensor(network, op.output, op.output, own)
        tensors[work.output] = _tensor(network, work.output, work.output, own)
        added = [] if work.add is None else [work.add]
        ops = [replace(op, macs=_share(network, work, own)), *added, *ops]
    output = works[-1].output
    return Piece(
        graph=Graph(
            name=" and ".join(work.name for work in works),
            tensors=tensors,
            ops=[*copies, *ops],
            inputs=[taken for taken, _, _ in sources.values()],
            outputs=[output],
        ),
        sources=tuple(sources.values()),
        target=(output, region),
        begins=any(name in network.inputs for work in works for name in work.inputs),
        ends=output in network.outputs,
    )


def needed_region(network: Graph, work: Work, place: int, region: Region) -> Region:
    """Return the part of an input that a region of the output needs."""
    name = work.inputs[place]
    height, _, channels = network.hwc(name)
    if not can_be_cut(work):
        return whole_region(network, name)
    rows = work.input_rows(place, height, region.rows)
    return Region(rows, (0, channels) if reads_all(network, work, place) else region.channels)


def reads_all(network: Graph, work: Work, place: int) -> bool:
    """Return whether a channel of a layer's output needs all channels of an input."""
    return place == 0 and not work.kind.channelwise(network, work.op)


def _tensor(network: Graph, like: str, name: str, region: Region) -> Tensor:
    width = network.hwc(like)[1]
    rows, channels = (end - first for first, end in (region.rows, region.channels))
    return replace(network.tensors[like], name=name, shape=(1, rows, width, channels), index=-1)


def _copy(source: str, target: str) -> TableOp:
    return TableOp(origin=Origin("", -1, ON_CHIP), input=source, output=target, table=IDENTITY)


def _share(network: Graph, work: Work, region: Region) -> int:
    height, _, channels = network.hwc(work.output)
    (top, bottom), (first, end) = region.rows, region.channels
    return work.op.macs * (bottom - top) * (end - first) // (height * channels)
