"""Places of tensors that lie in one another, which follow from the layout of the outermost.

Tensors that share a *storage* are a tree of `Link`s; a link is taken only if every tensor of its
tree still has a place, which `Trees.seats` works out from the root's layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Vector
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.place.layout import ActLayout
from celosia.sw.compiler.place.limits import most
from celosia.sw.compiler.place.windows import Image, Window

__all__ = ["Link", "Seat", "Trees"]


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


@dataclass(frozen=True)
class Link:
    """What a tensor is of another one: a window, or (None) the same bytes in another shape."""

    whole: str
    window: Window | None


class Trees:
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
        self.links: dict[str, Link] = {}

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
            self.links[source] = Link(view, None)
        self.links[part] = Link(whole, window)
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

    def _seat(self, name: str, link: Link, whole: Seat) -> Seat | None:
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
