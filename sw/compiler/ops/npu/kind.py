"""What the compiler knows of a kind of NPU operator, in one record.

A pass, the placement or the schedule that has to treat operators differently asks the record of
the operator's kind (`celosia.sw.compiler.ops.npu.registry.kind_of`); none of them lists kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.ranges import BoolArray, Ranges
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ir import Graph, Int8Array, MoveOp, NpuOp, Tensor
from celosia.sw.compiler.ops.npu.job import LoadJob, MatrixJob, VectorJob
from celosia.sw.compiler.place.layout import ActLayout
from celosia.sw.compiler.place.mapping import ConvMapping
from celosia.sw.compiler.place.phases import PhaseMapping
from celosia.sw.compiler.schedule.chunks import ChunkLoader
from celosia.sw.compiler.schedule.constants import ConstantPool
from celosia.sw.compiler.steps import Step

__all__ = ["InputLayout", "Kind", "Placement", "same_positions"]

O = TypeVar("O", bound=NpuOp)  # noqa: E741


class Placement(Enum):
    """How an operator's output comes to be where it is."""

    COMPUTED = "computed"
    """By the array or the vector engine, from chip to chip; can be cut into stripes of rows."""
    VIEW = "view"
    """It is the input's bytes; a copy only where the two tensors cannot share a place."""
    LOADED = "loaded"
    """By the load engine, from inputs that are dense in memory; a movement's boxes need not be."""
    STORED = "stored"
    """By the store engine, from an input that is on chip; it is in memory only."""


@dataclass(frozen=True, kw_only=True)
class InputLayout(Generic[O]):
    """What an operator would like of its first input's layout on chip.

    Attributes
    ----------
    odd_rows : callable
        Whether it gains from rows of an odd number of lines.
    stream_costs : callable
        From operator, input size and output size (both rows, columns): the positions that it
        streams along rows, and along columns with pixels of an odd number of lines; infinite where
        it cannot, both 0 where it does not mind.
    reads_packed : callable
        Whether pixels may follow one another without padding.
    joined_bytes : callable
        From operator, channels and machine: the bytes of kernel rows that it would join if the rows
        of a packed input are as far apart as that takes; 0 where it gains nothing.
    """

    odd_rows: Callable[[O, NpuConfig], bool]
    stream_costs: Callable[[O, Range, Range, NpuConfig], tuple[float, float]]
    reads_packed: Callable[[O], bool]
    joined_bytes: Callable[[O, int, NpuConfig], int] = lambda op, channels, config: 0


def same_positions(op: NpuOp, size: int, wanted: Range) -> Range:
    """Rows or columns of an element-wise operator's input, which may be one for all."""
    return wanted if size > 1 else (0, 1)


def _nothing_known(graph: Graph, op: NpuOp, sources: tuple[Ranges, ...]) -> Ranges:
    return Ranges.full(graph.hwc(op.output)[2])


def _mixes(graph: Graph, op: NpuOp, samples: int) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[O]):
    """One kind of NPU operator.

    Attributes
    ----------
    op : type
        The class of its operators.
    where : str
        What computes it, in a word or two.
    verify : callable
        From graph and operator: what is wrong with it, or None.
    channelwise : callable
        Whether output channel c depends on channel c of the inputs only.
    ranges : callable
        From graph, operator and the ranges of its inputs: those of its output.
    needed : callable, optional
        Of one that mixes channels: from graph, operator, ranges of its input and the output
        channels that stay (bool, shape [cout]), the input channels that have to stay (bool, shape
        [cin]). Without it all of them stay, unless it is channelwise.
    narrow : callable, optional
        Of one that has something for each channel: from graph, operator, ranges of its input, and
        the input and output channels that stay, the operator of the narrower tensors.
    clamp : callable, optional
        Returns the operator with its clamp narrowed to two int8 values, if it has one.
    compose : callable, optional
        Returns the operator with a table (int8, as `TableOp.table`) looked up behind it.
    split : callable, optional
        Returns the operators that do the same on a machine for whose commands or memory this one
        is too large: from operator, tensors by name, to which those between are added, and machine.
    placement : Placement
        How its output comes to be where it is.
    packed : bool
        Its output is packed, and on chip as a whole; of one that is loaded.
    grouped : bool
        Its output channels can be computed in groups.
    in_place : bool
        Its output can take the place of an input that is not needed any more.
    rows : callable
        From operator, height of the first input and a range of output rows: the rows of that input
        that these need, at least one. Of other inputs they are the same rows, or the only one.
    columns : callable, optional
        The same for columns: from operator, width of the first input and a range of output columns.
        Without it the operator's rows are not cut.
    input_layout : InputLayout, optional
        Wishes for the first input's layout; without them whole lines a pixel.
    map : callable, optional
        Lays it onto the array, if the array computes it. From operator, layout of the input, its
        height, and rows and columns of the output.
    phases : callable, optional
        Likewise, of one that is several convolutions.
    table : callable, optional
        Content of the table memory that its commands look up: from operator, bytes of a line and
        the channel tile.
    table_per_tile : callable
        Whether each channel tile has a table of its own.
    steps : callable, optional
        The commands of a part whose operands are on chip, if the vector engine computes it.
    multiply : callable, optional
        The commands of a part whose first operand is on chip, if the array computes it without a
        mapping.
    in_memory : tuple of int
        Places of the inputs that it takes from memory, in pixels of whole lines.
    with_input : callable, optional
        A copy of the operator that takes another tensor as the input at a place of `in_memory`.
    load : callable, optional
        The commands that load it and the constants they need, if the load engine does.
    movement : callable, optional
        Of one that only moves elements: the movement, whose boxes need not all be loaded
        (`celosia.sw.compiler.place.views`).
    part : callable, optional
        First row and column of the input that are stored, if the store engine does it.
    reason : callable, optional
        Says in a report how it is loaded; what is computed says so by its tiling.
    flat : callable, optional
        From operator, shape of the input (height, width, channels) and machine: the operator of an
        input that is one pixel of all those values, if that takes fewer passes; else None.
    piece : callable, optional
        From operator, height of the first input and rows and channels of the output: the operator
        that computes these from the rows that `rows` says. Without it, it is computed as a whole.
    stack : callable
        From graph, operator and a number of samples: the operator for that many, whose rows lie
        below one another in all its tensors; None if it would mix them.
    behind_array : bool
        Where it follows an operator of the array, its channels can be computed as theirs are done.
    """

    op: type[O]
    where: str
    verify: Callable[[Graph, O], str | None]
    channelwise: Callable[[Graph, O], bool]
    ranges: Callable[[Graph, O, tuple[Ranges, ...]], Ranges] = _nothing_known
    needed: Callable[[Graph, O, Ranges, BoolArray], BoolArray] | None = None
    narrow: Callable[[Graph, O, Ranges, BoolArray, BoolArray], O] | None = None
    clamp: Callable[[O, int, int], O] | None = None
    compose: Callable[[O, Int8Array], O] | None = None
    split: Callable[[O, dict[str, Tensor], NpuConfig], list[NpuOp]] | None = None
    placement: Placement = Placement.COMPUTED
    packed: bool = False
    grouped: bool = True
    in_place: bool = False
    rows: Callable[[O, int, Range], Range] = same_positions
    columns: Callable[[O, int, Range], Range] | None = None
    input_layout: InputLayout[O] | None = None
    map: Callable[[O, ActLayout, int, Range, NpuConfig], ConvMapping] | None = None
    phases: Callable[[O, ActLayout, int, Range, NpuConfig], PhaseMapping] | None = None
    table: Callable[[O, int, int], bytes] | None = None
    table_per_tile: Callable[[O], bool] = lambda op: False
    steps: Callable[[O, VectorJob, NpuConfig], Iterable[Step]] | None = None
    multiply: Callable[[O, MatrixJob, ChunkLoader], Iterable[Step]] | None = None
    in_memory: tuple[int, ...] = ()
    with_input: Callable[[O, int, str], O] | None = None
    load: Callable[[O, LoadJob, ConstantPool], Iterable[Step]] | None = None
    movement: Callable[[O], MoveOp] | None = None
    part: Callable[[O], tuple[int, int]] | None = None
    reason: Callable[[O], str] | None = None
    flat: Callable[[O, tuple[int, int, int], NpuConfig], O | None] | None = None
    piece: Callable[[O, int, Range, Range], O] | None = None
    stack: Callable[[Graph, O, int], O | None] = _mixes
    behind_array: bool = False
