"""Which tensors are windows of larger ones, so that a movement of elements moves nothing.

A movement (`MoveOp`) is made of boxes. Each of them costs nothing where the two tensors can share a
*storage*, the larger one's:

* what a concatenation joins is written where the result has it, if its channels begin with a line;
* what a slice takes is read where its source has it, with the source's pitches;
* a reshape is the same bytes, wherever they are.

What cannot share is copied on chip, line by line, if its channels are whole lines, or else loaded
from system memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.operations import Operation
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.ir import Graph, MoveOp
from celosia.sw.compiler.place.layout import ActLayout
from celosia.sw.compiler.place.seats import Link, Seat, Trees
from celosia.sw.compiler.place.windows import Window, part_of, window_of
from celosia.sw.compiler.place.works import Work

__all__ = ["MovePlan", "Sharing", "Views", "share", "with_boxes"]


class Sharing(Enum):
    """How movements are done that could do without memory."""

    NONE = "none"
    """All through memory."""
    WINDOWS = "windows"
    """Tensors share storages where they can."""
    COPIES = "copies"
    """Besides, the vector engine copies what are whole lines."""


@dataclass(frozen=True, kw_only=True)
class MovePlan:
    """How a movement is done.

    Attributes
    ----------
    shared : int
        Boxes that are in place already.
    copied : tuple of Box
        Boxes that the vector engine copies; their sources are the work's inputs.
    loaded : MoveOp or None
        What is left for the load engine.
    reads : bool
        The result is read where its source is, not written where it is read.
    """

    shared: int
    copied: tuple[Box, ...]
    loaded: MoveOp | None = field(compare=False)
    reads: bool

    @property
    def describe(self) -> str:
        """Say it in words, for reports."""
        parts = []
        if self.shared:
            parts.append("moves no data" if self.reads else "written in place")
        if self.copied:
            parts.append(f"copy on chip, {len(self.copied)} parts")
        if self.loaded is not None:
            parts.append(f"load engine, {len(self.loaded.boxes)} parts")
        return "; ".join(parts)


@dataclass(frozen=True)
class Views:
    """What shares and what moves.

    Attributes
    ----------
    seats : dict of str to Seat
        By tensor, of those that share a storage with another one through a window.
    moves : dict of int to MovePlan
        By the work's index, of movements that do not go through memory as a whole.
    """

    seats: dict[str, Seat]
    moves: dict[int, MovePlan]


def share(
    graph: Graph,
    works: list[Work],
    config: NpuConfig,
    reshapes: Iterable[tuple[str, str]],
    natural: Callable[[str, bool], ActLayout],
    odd: set[str],
    *,
    sharing: Sharing,
    refused: frozenset[int],
) -> Views:
    """Decide which movements need not go through memory.

    Parameters
    ----------
    graph : Graph
        Lowered.
    works : list of Work
        From `works_of`.
    config : NpuConfig
        The machine.
    reshapes : iterable of (str, str)
        Tensors that are the same bytes on chip: one, and its view.
    natural, odd
        As of `Trees`.
    sharing : Sharing
        What is allowed.
    refused : frozenset of int
        Indices of works for which nothing is.
    """
    trees = Trees(graph, natural, odd, config)
    for source, view in reshapes:
        trees.links[view] = Link(source, None)
    moves: dict[int, MovePlan] = {}
    for work in works:
        movement = work.kind.movement
        if movement is None or sharing is Sharing.NONE or work.index in refused:
            continue
        plan = _plan(graph, trees, movement(work.op), sharing)
        if plan is not None:
            moves[work.index] = plan
    seats: dict[str, Seat] = {}
    roots = {trees.path(n)[-1] for n, link in trees.links.items() if link.window is not None}
    for root in roots:
        found = trees.seats(root)
        assert found is not None, "every link was tried"
        seats |= found
    return Views(seats, moves)


def _plan(graph: Graph, trees: Trees, op: MoveOp, sharing: Sharing) -> MovePlan | None:
    line = trees.config.line_bytes
    result = graph.hwc(op.output)

    def on_chip(box: Box) -> bool:
        """Whether its source is computed, and not an input that is loaded in any case."""
        if box.source >= len(op.sources):
            return False
        return not set(trees.path(op.sources[box.source])) & set(graph.inputs)

    def aligned(box: Box) -> bool:
        ends = box.c + box.channels
        return box.c % line == 0 and (ends % line == 0 or ends == result[2])

    if len(op.boxes) == 1 and on_chip(op.boxes[0]):
        (box,) = op.boxes
        source = op.sources[box.source]
        window = window_of(box, graph.hwc(source))
        if (
            window is not None
            and window.c % line == 0
            and _reads_apart(box, window)
            and trees.join(op.output, source, window)
        ):
            return MovePlan(shared=1, copied=(), loaded=None, reads=True)
    left: list[Box] = []
    for box in op.boxes:
        part = part_of(box, graph.hwc(op.sources[box.source])) if on_chip(box) else None
        if (
            part is None
            or not aligned(box)
            or not trees.join(op.sources[box.source], op.output, part)
        ):
            left.append(box)

    def copyable(box: Box) -> bool:
        if not on_chip(box) or not aligned(box):
            return False
        window = window_of(box, graph.hwc(op.sources[box.source]))
        return window is not None and window.c % line == 0 and not window.linear

    shared = len(op.boxes) - len(left)
    copied: list[Box] = []
    if sharing is Sharing.COPIES and trees.config.can(Operation.MAX):
        # A source that has to be in memory for one of its boxes may be loaded for the others.
        in_memory = {box.source for box in left if not copyable(box)}
        copied = [box for box in left if box.source not in in_memory]
        left = [box for box in left if box.source in in_memory]
    if not shared and not copied:
        return None
    loaded = with_boxes(op, left) if left else None
    return MovePlan(shared=shared, copied=tuple(copied), loaded=loaded, reads=False)


def _reads_apart(box: Box, window: Window) -> bool:
    """Whether all pixels of a box are different ones of its source."""
    return (box.height == 1 or window.row != (0, 0)) and (box.width == 1 or window.pixel != (0, 0))


def with_boxes(op: MoveOp, boxes: list[Box]) -> MoveOp:
    """Return the movement of some of the boxes, with the sources that these have."""
    used = sorted({box.source for box in boxes if box.source < len(op.sources)})
    places = {source: place for place, source in enumerate(used)} | {len(op.sources): len(used)}
    return replace(
        op,
        sources=tuple(op.sources[source] for source in used),
        boxes=tuple(replace(box, source=places[box.source]) for box in boxes),
    )
