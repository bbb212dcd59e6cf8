"""Makes a dilated convolution of SPACE_TO_BATCH_ND, a convolution and BATCH_TO_SPACE_ND.

The first deals the pixels of an image out to d * d images of a batch, each with every d-th row and
column; a convolution of these has its taps d pixels apart in the image; the last puts the results
back. So it is one convolution with dilation d. What the first pads and the last crops is its
padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from celosia.sw.compiler.ir import Graph, Op, SourceOp, Tensor, made_like
from celosia.sw.compiler.passes.rewrite import (
    RESHAPES,
    constant_numbers,
    same_quantisation,
    with_ops,
)
from celosia.sw.compiler.passes.window import EXPLICIT_PADS

__all__ = ["fold_dilation"]

_CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Pattern:
    """The operators of a dilated convolution, in order, and its geometry.

    Attributes
    ----------
    ops : tuple of SourceOp
        SPACE_TO_BATCH_ND, perhaps a reshape, the convolution, perhaps a reshape,
        BATCH_TO_SPACE_ND.
    conv : SourceOp
        The convolution.
    size, out_size : (int, int)
        Rows and columns of the image and of the result.
    dilation : (int, int)
        Along rows and columns.
    pads : tuple of int
        Top, bottom, left, right.
    """

    ops: tuple[SourceOp, ...]
    conv: SourceOp
    size: Pair
    out_size: Pair
    dilation: Pair
    pads: tuple[int, int, int, int]


def fold_dilation(graph: Graph) -> Graph:
    """Replace each such group of operators by the dilated convolution that it is."""
    for op in list(graph.ops):
        if isinstance(op, SourceOp) and op.name == "SPACE_TO_BATCH_ND":
            pattern = _pattern(graph, op)
            if pattern is not None:
                graph = _replaced(graph, pattern)
    return graph


def _pattern(graph: Graph, first: SourceOp) -> _Pattern | None:
    ops = _chain(graph, first)
    if ops is None:
        return None
    conv, last = next(op for op in ops if op.name in _CONVOLUTIONS), ops[-1]
    source, result = graph.tensors[first.inputs[0]], graph.tensors[last.results[0]]
    kernel, inner = graph.tensors[conv.inputs[1]], graph.tensors[conv.inputs[0]]
    block, pads = constant_numbers(graph, first, 1), constant_numbers(graph, first, 2)
    if (
        None in (block, pads, crops := constant_numbers(graph, last, 2))
        or block != constant_numbers(graph, last, 1)
        or not same_quantisation(source, graph.tensors[first.results[0]])
        or not same_quantisation(graph.tensors[last.inputs[0]], result)
        or len(inner.shape) != 4
        or len(kernel.shape) != 4
        or source.shape[0] != 1
        or result.shape[0] != 1
    ):
        return None
    assert block is not None
    assert pads is not None
    assert crops is not None
    rank = len(source.shape)
    if rank == 4 and len(ops) == 3 and len(block) == 2:
        axes = [0, 1]
    elif rank == 3 and len(ops) == 5 and len(block) == 1 and 1 in inner.shape[1:3]:
        # A row of pixels, as an image of one row or of one column.
        axes = [1 if inner.shape[1] == 1 else 0]
    else:
        return None
    if any(conv.options.get(name) != 1 for name in _ONES) or EXPLICIT_PADS in conv.options:
        return None
    size, out_size, dilation = [1, 1], [1, 1], [1, 1]
    around = [[0, 0], [0, 0]]
    for axis in (0, 1):
        taps = kernel.shape[1 + axis]
        if axis not in axes:
            if taps != 1:
                return None
            continue
        place = axes.index(axis)
        size[axis], out_size[axis] = source.shape[1 + place], result.shape[1 + place]
        dilation[axis] = block[place]
        inside = (taps - 1) // 2 if conv.options.get("padding") == "SAME" else 0
        before = pads[2 * place] - crops[2 * place] + inside * block[place]
        reach = (taps - 1) * block[place] + 1
        around[axis] = [before, out_size[axis] - 1 + reach - size[axis] - before]
    if min(*around[0], *around[1]) < 0:
        return None
    return _Pattern(
        ops=ops,
        conv=conv,
        size=(size[0], size[1]),
        out_size=(out_size[0], out_size[1]),
        dilation=(dilation[0], dilation[1]),
        pads=(*around[0], *around[1]),  # type: ignore[arg-type]
    )


_ONES = ("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor")


def _chain(graph: Graph, first: SourceOp) -> tuple[SourceOp, ...] | None:
    """Return the operators from `first` to BATCH_TO_SPACE_ND if nothing else reads between."""
    ops = [first]
    while ops[-1].name != "BATCH_TO_SPACE_ND":
        between = ops[-1].results[0]
        readers = graph.consumers(between)
        if between in graph.outputs or len(readers) != 1:
            return None
        (reader,) = readers
        if not isinstance(reader, SourceOp) or reader.operands[0] != between or len(ops) == 5:
            return None
        ops.append(reader)
    names = [op.name for op in ops[1:-1]]
    if len(names) == 1 and names[0] in _CONVOLUTIONS:
        return tuple(ops)
    if len(names) == 3 and names[1] in _CONVOLUTIONS and {names[0], names[2]} <= RESHAPES:
        return tuple(ops)
    return None


def _replaced(graph: Graph, pattern: _Pattern) -> Graph:
    first, last, conv = pattern.ops[0], pattern.ops[-1], pattern.conv
    source, result = graph.tensors[first.inputs[0]], graph.tensors[last.results[0]]
    tensors: list[Tensor] = []

    def image(tensor: Tensor, size: Pair) -> Tensor:
        """Return a tensor as an image; a new one if it is a row of pixels."""
        shape = (1, *size, tensor.shape[-1])
        if tensor.shape == shape:
            return tensor
        tensors.append(made_like(tensor, graph.tensors, f"{tensor.name}/image", shape))
        return tensors[-1]

    before, behind = image(source, pattern.size), image(result, pattern.out_size)
    dilated = replace(
        conv,
        operands=(before.name, *conv.operands[1:]),
        results=(behind.name,),
        fused=(*conv.fused, *(op.origin.index for op in pattern.ops if op is not conv)),
        options=MappingProxyType(
            {
                **conv.options,
                "padding": "VALID",
                EXPLICIT_PADS: pattern.pads,
                "dilation_h_factor": pattern.dilation[0],
                "dilation_w_factor": pattern.dilation[1],
            }
        ),
    )
    new: list[Op] = [dilated]
    if before is not source:
        new.insert(0, _reshape(pattern.ops[1], source, before))
    if behind is not result:
        new.append(_reshape(pattern.ops[-2], behind, result))
    ops: list[Op] = []
    for op in graph.ops:
        if op is last:
            ops.extend(new)
        elif op not in pattern.ops:
            ops.append(op)
    return with_ops(graph, ops, tensors)


def _reshape(like: SourceOp, source: Tensor, result: Tensor) -> SourceOp:
    return replace(like, name="RESHAPE", operands=(source.name,), results=(result.name,), fused=())
