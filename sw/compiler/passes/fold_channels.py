"""Takes channels out of a network that change nothing: constant ones, and those nobody reads.

Pruned networks have filters of zeros. Such a filter's channel is one value everywhere, and what it
adds to the next layer's accumulators can be added to its bias at compile time. A channel stays
where that would not be exact to the bit:

* a convolution with padding sees the zero point where its taps leave the image, so a channel of
  another value adds a different amount at the border. It goes only if the amounts are the same for
  all border classes (`celosia.sw.compiler.passes.channel_ranges.border_classes`);
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
import numpy.typing as npt
from celosia.sw.compiler.ir import (
    ConvOp,
    Graph,
    NpuOp,
    ReshapeOp,
    SoftmaxOp,
    Tensor,
    hwc,
)
from celosia.sw.compiler.passes.channel_ranges import Ranges, border_classes, channel_ranges
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["fold_channels"]

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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
        if not _keeps_channels(graph, op) and not isinstance(op, ConvOp):
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
            names: Sequence[str]
            if _keeps_channels(graph, op):
                names = (*op.inputs, op.output)
                needed = np.logical_or.reduce([keep[name] for name in names])
            elif isinstance(op, ConvOp):
                names = (op.input,)
                needed = keep[op.input] | _needed_inputs(graph, op, ranges[op.input], keep)
            else:
                continue  # keeps all, from the start
            for name in names:
                if not np.array_equal(keep[name], needed):
                    keep[name] = needed.copy()
                    changed = True


def _keeps_channels(graph: Graph, op: NpuOp) -> bool:
    """Whether output channel c depends on channel c of the inputs only."""
    if isinstance(op, ConvOp):
        return op.depthwise
    if isinstance(op, ReshapeOp):
        return _channels(graph, op.input) == _channels(graph, op.output)
    return not isinstance(op, SoftmaxOp)


def _channels(graph: Graph, name: str) -> int:
    return hwc(graph.tensors[name].shape)[2]


def _needed_inputs(
    graph: Graph, op: ConvOp, source: Ranges, keep: dict[str, BoolArray]
) -> BoolArray:
    """Return the input channels of a convolution that its bias cannot stand for."""
    added, reads = _contributions(graph, op, source)
    outputs = keep[op.output]
    uneven = (added != added[:1]).any(axis=0)
    needed: BoolArray = ((reads & ~source.constant[:, None]) | uneven)[:, outputs].any(axis=1)
    return needed


def _contributions(graph: Graph, op: ConvOp, source: Ranges) -> tuple[Int64Array, BoolArray]:
    """Return what each input channel adds to the accumulators if it is constant.

    Returns
    -------
    added : ndarray of int64, shape [border classes, cin, cout]
        For channels that are not constant: as if they were.
    reads : ndarray of bool, shape [cin, cout]
        Whether any tap that is ever inside the image has a weight.
    """
    height, width, _ = hwc(graph.tensors[op.input].shape)
    inside = border_classes(op, height, width)
    weights = op.weights.astype(np.int64)
    sums_inside = np.einsum("kij,ijcn->kcn", inside.astype(np.int64), weights)
    sums_outside = weights.sum(axis=(0, 1)) - sums_inside
    added = sums_inside * source.low[:, None] + sums_outside * op.input_zero_point
    reads: BoolArray = (weights[inside.any(axis=0)] != 0).any(axis=0)
    return added, reads


def _narrow(tensor: Tensor, kept: BoolArray) -> Tensor:
    if kept.all():
        return tensor
    channels = tuple(int(channel) for channel in np.flatnonzero(kept))
    return replace(tensor, shape=(*tensor.shape[:-1], len(channels)), kept_channels=channels)


def _rewrite(
    graph: Graph, op: NpuOp, ranges: dict[str, Ranges], keep: dict[str, BoolArray]
) -> NpuOp:
    """Copy an operator for narrower tensors; only convolutions know channels."""
    if not isinstance(op, ConvOp):
        return op
    inputs, outputs = keep[op.input], keep[op.output]
    if inputs.all() and outputs.all():
        return op
    bias = op.bias.astype(np.int64)
    if op.depthwise:
        weights = op.weights[:, :, outputs]
        total, left = op.cout, int(outputs.sum())
    else:
        added, _ = _contributions(graph, op, ranges[op.input])
        bias = bias + added[0, ~inputs].sum(axis=0)
        weights = op.weights[:, :, inputs][..., outputs]
        total, left = op.cin * op.cout, int(inputs.sum()) * int(outputs.sum())
    return replace(
        op,
        weights=np.ascontiguousarray(weights),
        bias=bias[outputs].astype(np.int32),  # wraps, as the 32-bit accumulator does
        multiplier=op.multiplier[outputs],
        shift=op.shift[outputs],
        folded_macs=op.macs - op.macs * left // total,
    )
