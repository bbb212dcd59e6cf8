"""Takes channels out of a network that change nothing: constant ones, and those nobody reads.

Pruned networks have filters of zeros. Such a filter's channel is one value everywhere, and what it
adds to the next layer's accumulators can be added to its bias at compile time. A channel stays
where that would not be exact to the bit:

* a convolution with padding sees the zero point where its taps leave the image, so a channel of
  another value adds a different amount at the border. It goes only if the amounts are the same for
  all border classes (`celosia.sw.compiler.ops.npu.conv.border_classes`);
* operators that treat every channel alone keep input and output in step: a channel goes from all
  tensors they connect, or from none;
* inputs and outputs of the model, of a softmax, and of a reshape that moves channels keep all.

Accumulators and biases are added modulo 2**32, so moving a constant into the bias is exact whatever
its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from celosia.sw.compiler.arithmetic.ranges import BoolArray, Ranges
from celosia.sw.compiler.ir import Graph, NpuOp, Tensor
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.passes.channel_ranges import channel_ranges
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["fold_channels"]


def fold_channels(graph: Graph) -> Graph:
    """Remove the channels that no output depends on or that are constant.

    Tensors keep their names; `Tensor.kept_channels` says which channels of the model's tensor are
    left. `ConvOp.macs` stays what the model says, `ConvOp.folded_macs` says how many of these are
    not computed.

    Parameters
    ----------
    graph : Graph
        Lowered.

    Returns
    -------
    Graph
        Lowered, with outputs equal bit for bit; the same graph if there is nothing to remove.
    """
    ranges = channel_ranges(graph)
    keep = _needed_channels(graph, ranges)
    if all(bool(kept.all()) for kept in keep.values()):
        return graph
    tensors = [_narrow(graph.tensors[name], kept) for name, kept in keep.items()]
    ops = [_rewrite(graph, op, ranges, keep) for op in graph.npu_ops]
    return with_ops(graph, ops, tensors)


def _needed_channels(graph: Graph, ranges: dict[str, Ranges]) -> dict[str, BoolArray]:
    """Return the channels that must stay, the fewest for which every operator is exact."""
    keep = {name: np.zeros(found.low.size, np.bool_) for name, found in ranges.items()}
    for name in (*graph.inputs, *graph.outputs):
        keep[name][:] = True
    for op in graph.npu_ops:
        kind = kind_of(op)
        if not kind.channelwise(graph, op) and kind.needed is None:
            for name in (*op.inputs, op.output):
                keep[name][:] = True
    _spread(graph, ranges, keep)
    # An operator needs something to compute, even where all of it is constant.
    for op in graph.npu_ops:
        for name in (*op.inputs, op.output):
            if not keep[name].any():
                keep[name][0] = True
                _spread(graph, ranges, keep)
    return keep


def _spread(graph: Graph, ranges: dict[str, Ranges], keep: dict[str, BoolArray]) -> None:
    """Add to `keep` until every operator has the inputs that its kept outputs need."""
    changed = True
    while changed:
        changed = False
        for op in reversed(graph.npu_ops):
            kind = kind_of(op)
            names: Sequence[str] = op.inputs
            if kind.channelwise(graph, op):
                names = (*op.inputs, op.output)
                needed = np.logical_or.reduce([keep[name] for name in names])
            elif kind.needed is not None:
                (source,) = op.inputs
                found = kind.needed(graph, op, ranges[source], keep[op.output])
                needed = keep[source] | found
            else:
                continue  # keeps all, from the start
            for name in names:
                if not np.array_equal(keep[name], needed):
                    keep[name] = needed.copy()
                    changed = True


def _narrow(tensor: Tensor, kept: BoolArray) -> Tensor:
    if kept.all():
        return tensor
    channels = tuple(int(channel) for channel in np.flatnonzero(kept))
    return replace(tensor, shape=(*tensor.shape[:-1], len(channels)), kept_channels=channels)


def _rewrite(
    graph: Graph, op: NpuOp, ranges: dict[str, Ranges], keep: dict[str, BoolArray]
) -> NpuOp:
    """Copy an operator for narrower tensors; most have nothing for each channel."""
    narrow = kind_of(op).narrow
    if narrow is None:
        return op
    (source,) = op.inputs
    narrower: NpuOp = narrow(graph, op, ranges[source], keep[source], keep[op.output])
    return narrower
