"""Which tensors are windows of larger ones, so that a movement of elements moves nothing.

A movement (`MoveOp`) is made of boxes. Each of them costs nothing where the two tensors can share a
*storage*, the larger one's:

* what a concatenation joins is written where the result has it, if its channels begin with a line;
* what a slice takes is read where its source has it, with the source's pitches;
* a reshape is the same bytes, wherever they are.

What cannot share is copied on chip, line by line, if its channels are whole lines, or else loaded
from system memory. Tensors that share are a tree of `_Link`s; a link is taken only if every tensor
of its tree still has a place, which `_Tree.seats` works out from the root's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Vector
from celosia.hw.contract.operations import Operation
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.ir import Graph, MoveOp
from celosia.sw.compiler.place.layout import ActLayout
from celosia.sw.compiler.place.limits import most
from celosia.sw.compiler.place.works import Work

__all__ = [
    "MovePlan",
    "Seat",
    "Sharing",
    "Views",
    "Window",
    "part_of",
    "share",
    "window_of",
    "with_boxes",
]

Image = tuple[int, int, int]
"""Rows, columns and channels."""


class Sharing(Enum):
    """How movements are done that could do without memory."""

    NONE = "none"
    """All through memory."""
    WINDOWS = "windows"
    """Tensors share storages where they can."""
    COPIES = "copies"
    """Besides, the vector engine copies what are whole lines."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """How an image lies in a larger one.

    Attributes
    ----------
    y, x, c : int
        The larger image's row, column and channel of its first element.
    row, pixel : tuple of int
        Rows and columns of the larger image from row to row, and from pixel to pixel.
    linear : bool
        It runs over the ends of the larger image's rows, between which no gaps may be.
    """

    y: int
    x: int
    c: int
    row: tuple[int, int]
    pixel: tuple[int, int]
    linear: bool = False


@dataclass(frozen=True)
class Seat:
    """The place of a tensor in its storage.

    Attributes
    ----------
    root : str
        The tensor whose bytes the storage is.
    offset : int
        Bytes from its beginning.
    layout : ActLayout
        Pitches there.
    """

    root: str
    offset: int
    layout: ActLayout


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


def window_of(box: Box, image: Image) -> Window | None:
    """Return where the elements of a box are in its source, or None if no window says it.

    Parameters
    ----------
    box : Box
        A part of a result.
    image : tuple of int
        Rows, columns and channels of the source.
    """
    height, width, channels = image
    pixel, c = divmod(box.offset, channels)
    y, x = divmod(pixel, width)
    if (box.channels > 1 and box.step_c != 1) or c + box.channels > channels:
        return None
    steps, last = [], [y, x]
    for count, step in ((box.height, box.step_y), (box.width, box.step_x)):
        step = step if count > 1 else 0
        if step % channels or step < 0:
            return None
        rows, columns = divmod(step // channels, width)
        if rows and columns:
            rows, columns = 0, step // channels
        steps.append((rows, columns))
        last[0] += (count - 1) * rows
        last[1] += (count - 1) * columns
    return Window(y=y, x=x, c=c, row=steps[0], pixel=steps[1], linear=last[1] >= width)


def part_of(box: Box, image: Image) -> Window | None:
    """Return where a source lies in the result, or None unless a box is the source as it is.

    Parameters
    ----------
    box : Box
        A part of a result.
    image : tuple of int
        Rows, columns and channels of the source.
    """
    height, width, channels = image
    if (box.offset, box.height, box.width, box.channels) != (0, *image):
        return None
    whole = {(channels, box.step_c, 1), (width, box.step_x, channels)}
    whole.add((height, box.step_y, width * channels))
    if any(count > 1 and step != expected for count, step, expected in whole):
        return None
    return Window(
        y=box.y,
        x=box.x,
        c=box.c,
        row=(box.stride_y if height > 1 else 0, 0),
        pixel=(0, box.stride_x if width > 1 else 0),
    )


@dataclass(frozen=True)
class _Link:
    """What a tensor is of another one: a window, or (None) the same bytes in another shape."""

    whole: str
    window: Window | None


class _Trees:
    """The links, and the seats that follow from them.

    Parameters
    ----------
    graph : Graph
        The tensors.
    natural : callable
        From a tensor, and whether its rows shall have an odd number of lines: its layout alone.
    odd : set of str
        Tensors whose readers gain from such rows.
    config : NpuConfig
        The machine.
    """

    def __init__(
        self,
        graph: Graph,
        natural: Callable[[str, bool], ActLayout],
        odd: set[str],
        config: NpuConfig,
    ) -> None:
        self.graph, self.natural, self.odd, self.config = graph, natural, odd, config
        self.links: dict[str, _Link] = {}

    def path(self, name: str) -> list[str]:
        """Return the tensors from one to its root."""
        path = [name]
        while path[-1] in self.links:
            path.append(self.links[path[-1]].whole)
        return path

    def join(self, part: str, whole: str, window: Window | None) -> bool:
        """Make a tensor a part of another one; False, and no change, if it cannot be."""
        path = self.path(part)
        if path[-1] == self.path(whole)[-1]:
            return False
        if any(self.links[name].window is not None for name in path[:-1]):
            return False  # it is in another place already
        before = dict(self.links)
        # Two shapes of the same bytes: either is the other's view.
        for view, source in reversed(list(zip(path, path[1:], strict=False))):
            del self.links[view]
            self.links[source] = _Link(view, None)
        self.links[part] = _Link(whole, window)
        if self.seats(self.path(whole)[-1]) is None:
            self.links = before
            return False
        return True

    def seats(self, root: str) -> dict[str, Seat] | None:
        """Return the places of all tensors of a tree; None if one has none."""
        parts: dict[str, list[str]] = {}
        for name, link in self.links.items():
            parts.setdefault(link.whole, []).append(name)
        members = [root]
        for name in members:
            members += parts.get(name, [])
        links = [self.links[name] for name in members[1:]]
        gaps = not any(link.window is None or link.window.linear for link in links)
        layout = self.natural(root, gaps and not self.odd.isdisjoint(members))
        if layout.size_bytes(self.graph.hwc(root)[0]) > self.config.act_bytes:
            return None
        found = {root: Seat(root, 0, layout)}
        for name in members[1:]:
            link = self.links[name]
            seat = self._seat(name, link, found[link.whole])
            if seat is None:
                return None
            found[name] = seat
        return found

    def _seat(self, name: str, link: _Link, whole: Seat) -> Seat | None:
        image, outer = self.graph.hwc(name), self.graph.hwc(link.whole)
        if link.window is None:
            layout = _reshaped(whole.layout, outer, image, self.config.line_bytes)
            return None if layout is None else replace(whole, layout=layout)
        window, pitches = link.window, whole.layout
        height, width, channels = image
        if window.linear and outer[0] > 1 and not pitches.is_dense:
            return None
        pixel = window.pixel[0] * pitches.row_pitch + window.pixel[1] * pitches.pixel_pitch
        pixel = pixel if width > 1 else pitches.pixel_pitch
        row = window.row[0] * pitches.row_pitch + window.row[1] * pitches.pixel_pitch
        row = row if height > 1 else width * pixel
        layout = ActLayout(width, channels, pixel, row, pitches.element_bytes)
        first = window.y * pitches.row_pitch + window.x * pitches.pixel_pitch
        offset = whole.offset + first + window.c * pitches.element_bytes
        return Seat(whole.root, offset, layout) if self._fits_commands(layout) else None

    def _fits_commands(self, layout: ActLayout) -> bool:
        line = self.config.line_bytes
        return (
            layout.row_pitch > (layout.width - 1) * layout.pixel_pitch
            and layout.width * layout.pixel_pitch <= most(Conv, "row_bytes")
            and layout.row_pitch <= most(Conv, "row_pitch")
            and layout.pixel_pitch // line <= most(Vector, "d_x")
        )


def _reshaped(layout: ActLayout, outer: Image, image: Image, line_bytes: int) -> ActLayout | None:
    """Return the layout of the same bytes in another shape, or None if there is none."""
    if outer == image:
        return layout
    if outer[1] == 1 and outer[0] > 1:
        pitch = layout.row_pitch
    elif outer[0] == 1 or layout.is_dense:
        pitch = layout.pixel_pitch
    else:
        return None
    if outer[2] != image[2]:
        if pitch != layout.pixel_bytes or image[2] % line_bytes:
            return None
        pitch = image[2] * layout.element_bytes
    return ActLayout(image[1], image[2], pitch, image[1] * pitch, layout.element_bytes)


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
        As of `_Trees`.
    sharing : Sharing
        What is allowed.
    refused : frozenset of int
        Indices of works for which nothing is.
    """
    trees = _Trees(graph, natural, odd, config)
    for source, view in reshapes:
        trees.links[view] = _Link(source, None)
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


def _plan(graph: Graph, trees: _Trees, op: MoveOp, sharing: Sharing) -> MovePlan | None:
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
