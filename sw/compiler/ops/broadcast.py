"""How two tensors of different shapes become operands of the vector engine.

The engine has rows, columns and channels; along each of them an operand may have one element for
all. An operator of more axes is viewed as one of three: neighbouring axes along which every operand
is either whole or repeated are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.ir import (
    Graph,
    MoveOp,
    NpuOp,
    ReshapeOp,
    SourceOp,
    Tensor,
    hwc,
    made_like,
)
from celosia.sw.compiler.passes.rewrite import contradiction, unsupported

__all__ = ["Operands", "operands_of"]

T = TypeVar("T")
Image = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Operands:
    """What an operator of two tensors takes and gives.

    Attributes
    ----------
    a, b, result : str
        The tensors, of which some may be views of the model's.
    spread_b : bool
        The second one has one channel for all.
    swapped : bool
        The first one is the model's second.
    before, after : tuple of NpuOp
        What makes the views of the operands, or brings a constant onto the chip, and what makes the
        model's tensor of the result.
    between : tuple of Tensor
        The views.
    """

    a: str
    b: str
    result: str
    spread_b: bool = False
    swapped: bool = False
    before: tuple[NpuOp, ...] = ()
    after: tuple[NpuOp, ...] = ()
    between: tuple[Tensor, ...] = ()

    def in_order(self, sides: Sequence[T]) -> tuple[T, T]:
        """Return what belongs to the model's first and second operand in the order of `a`, `b`."""
        first, second = sides
        return (second, first) if self.swapped else (first, second)


def operands_of(graph: Graph, op: SourceOp, a: Tensor, b: Tensor, result: Tensor) -> Operands:
    """Return the operands of an operator of two tensors, of which one may be a constant.

    Raises
    ------
    ModelError
        If the shapes do not make the output's.
    UnsupportedError
        If they take more than three axes.
    """
    shapes = (a.shape, b.shape, result.shape)
    try:
        fits = np.broadcast_shapes(a.shape, b.shape) == result.shape
    except ValueError:
        fits = False
    if not fits:
        words = [list(shape) for shape in shapes]
        raise contradiction(op, f"operands {words[0]} and {words[1]}, output {words[2]}")
    views = min(_views(shapes), key=lambda found: _cost(found, shapes), default=None)
    if views is None:
        raise unsupported(
            op,
            f"broadcast of {list(a.shape)} and {list(b.shape)} over more than three groups of axes",
            "reshape them so that what is repeated stands together",
        )
    before: list[NpuOp] = []
    after: list[NpuOp] = []
    between: list[Tensor] = []
    names: list[str] = []
    seen: dict[tuple[str, Image], str] = {}
    for tensor, view in zip((a, b, result), views, strict=True):
        key = (tensor.name, view)
        if hwc(tensor.shape) == view and tensor.data is None:
            seen[key] = tensor.name
        if key not in seen:
            part = made_like(
                tensor,
                {*graph.tensors, *(made.name for made in between)},
                f"{result.name}/view",
                (1, *view),
            )
            between.append(part)
            seen[key] = part.name
            if tensor.data is not None:
                before.append(_loaded(op, tensor.data, part.name, view))
            else:
                is_result = tensor is result
                ends = (part.name, tensor.name) if is_result else (tensor.name, part.name)
                made = ReshapeOp(origin=op.origin, fused=op.fused, input=ends[0], output=ends[1])
                (after if is_result else before).append(made)
        names.append(seen[key])
    spreads = [view[2] < views[2][2] for view in views[:2]]
    swapped = spreads[0]
    first, second = (names[1], names[0]) if swapped else (names[0], names[1])
    return Operands(
        a=first,
        b=second,
        result=names[2],
        spread_b=any(spreads),
        swapped=swapped,
        before=tuple(before),
        after=tuple(after),
        between=tuple(between),
    )


def _loaded(op: SourceOp, data: npt.NDArray[Any], name: str, view: Image) -> MoveOp:
    """Return what loads a constant as a tensor."""
    content = np.ascontiguousarray(data, np.int8).tobytes()
    return MoveOp(
        origin=op.origin,
        fused=op.fused,
        output=name,
        sources=(),
        constants=content,
        boxes=(Box.dense(*view),),
    )


def _views(shapes: Sequence[tuple[int, ...]]) -> Iterator[tuple[Image, ...]]:
    """Yield the ways to see operands and result as images whose axes are whole or repeated."""
    rank = len(shapes[-1])
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    for rows in range(rank + 1):
        for columns in range(rows, rank + 1):
            cuts = ((0, rows), (rows, columns), (columns, rank))
            views = [tuple(prod(shape[i:j]) for i, j in cuts) for shape in padded]
            if all(
                shape[i:j] == padded[-1][i:j] or prod(shape[i:j]) == 1
                for shape in padded
                for i, j in cuts
            ):
                yield tuple((view[0], view[1], view[2]) for view in views)


def _cost(views: tuple[Image, ...], shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Return what views cost: tensors whose channels are others, and tensors that are others."""
    own = [hwc(shape) for shape in shapes]
    channels = sum(view[2] != image[2] for view, image in zip(views, own, strict=True))
    return channels, sum(view != image for view, image in zip(views, own, strict=True))
