"""Which runs of bytes a movement of elements is made of.

A movement is given by a map: for each element of the result the number of the element that it is.
`boxes_of` finds regular parts of such a map, so that any operator that only moves elements needs
nothing but its own definition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div

__all__ = ["Box", "boxes_of"]

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A part of a result whose elements are at regular distances in one source.

    Element (y, x, c) of the part is element ``offset + y * step_y + x * step_x + c * step_c`` of
    the source, which is dense.

    Attributes
    ----------
    source : int
        Number of the source.
    offset : int
        Element of the source.
    y, x, c : int
        First row, column and channel of the part in the result.
    height, width, channels : int
        Its size.
    step_y, step_x, step_c : int
        Elements of the source from one to the next; may be 0 or negative.
    stride_y, stride_x : int
        Rows and columns of the result from one to the next.
    """

    source: int
    offset: int
    y: int
    x: int
    c: int
    height: int = 1
    width: int = 1
    channels: int
    step_y: int = 0
    step_x: int = 0
    step_c: int
    stride_y: int = 1
    stride_x: int = 1

    @staticmethod
    def dense(height: int, width: int, channels: int) -> Box:
        """Return a whole result that is the first source as it is."""
        return Box(
            source=0,
            offset=0,
            y=0,
            x=0,
            c=0,
            height=height,
            width=width,
            channels=channels,
            step_y=width * channels,
            step_x=channels,
            step_c=1,
        )

    @property
    def span(self) -> tuple[int, int]:
        """The least and the greatest element of the source that it takes."""
        lengths = (
            (self.height - 1) * self.step_y,
            (self.width - 1) * self.step_x,
            (self.channels - 1) * self.step_c,
        )
        return (
            self.offset + sum(min(0, length) for length in lengths),
            self.offset + sum(max(0, length) for length in lengths),
        )

    def part(self, rows: Range, columns: Range, channels: Range) -> Box | None:
        """Return what of it is in a part of the result; None if nothing is."""
        y, y_end = _within(rows, self.y, self.stride_y, self.height)
        x, x_end = _within(columns, self.x, self.stride_x, self.width)
        c, c_end = _within(channels, self.c, 1, self.channels)
        if y >= y_end or x >= x_end or c >= c_end:
            return None
        return replace(
            self,
            offset=self.offset + y * self.step_y + x * self.step_x + c * self.step_c,
            y=self.y + y * self.stride_y,
            x=self.x + x * self.stride_x,
            c=self.c + c,
            height=y_end - y,
            width=x_end - x,
            channels=c_end - c,
        )


def _within(wanted: Range, first: int, stride: int, count: int) -> Range:
    """Return which of some places at equal distances are in a range."""
    begin, end = (ceil_div(place - first, stride) for place in wanted)
    return max(0, begin), min(count, end)


def boxes_of(sources: IndexArray, elements: IndexArray) -> list[Box]:
    """Return boxes that cover a result, none twice.

    Parameters
    ----------
    sources, elements : ndarray of int64, shape [height, width, channels]
        For each element of the result, the number of its source and of the element there.
    """
    boxes = _side_by_side(sources, elements)
    stride_y, stride_x = (_period(sources, elements, axis) for axis in (0, 1))
    if stride_y * stride_x == 1 or stride_y * stride_x >= len(boxes):
        return boxes
    # Pixels that repeat, as of an enlarged image: each kind of them is a box with gaps.
    apart: list[Box] = []
    for y in range(stride_y):
        for x in range(stride_x):
            kind = slice(y, None, stride_y), slice(x, None, stride_x)
            for box in _side_by_side(sources[kind], elements[kind]):
                place = {"y": box.y * stride_y + y, "x": box.x * stride_x + x}
                apart.append(replace(box, **place, stride_y=stride_y, stride_x=stride_x))
    return apart if len(apart) < len(boxes) else boxes


MOST_PERIOD = 8
"""Greatest distance at which pixels that repeat are looked for."""


def _period(sources: IndexArray, elements: IndexArray, axis: int) -> int:
    """Return the least distance along an axis at which all elements grow alike; 1 if none is."""
    sources, elements = np.moveaxis(sources, axis, 0), np.moveaxis(elements, axis, 0)
    for period in range(1, min(MOST_PERIOD, len(elements) - 1) + 1):
        growth = elements[period:] - elements[:-period]
        if (growth == growth.flat[0]).all() and (sources[period:] == sources[:-period]).all():
            return period
    return 1


def _side_by_side(sources: IndexArray, elements: IndexArray) -> list[Box]:
    """Return boxes without gaps in the result."""
    height, width, _ = elements.shape
    patterns: dict[bytes, list[tuple[int, int, int]]] = {}
    distances = np.diff(elements, axis=2)
    distances[np.diff(sources, axis=2) != 0] = _BREAK
    boxes: list[Box] = []
    open_boxes: dict[tuple[int, ...], Box] = {}
    for y in range(height):
        found: list[list[tuple[int, int, int]]] = []
        for x in range(width):
            key = sources[y, x].tobytes() + distances[y, x].tobytes()
            if key not in patterns:
                patterns[key] = list(_progressions([int(d) for d in distances[y, x]]))
            found.append(patterns[key])
        row: dict[tuple[int, ...], Box] = {}
        for box in _row_boxes(y, found, sources[y], elements[y]):
            key_of = (box.source, box.x, box.c, box.width, box.channels, box.step_x, box.step_c)
            above = open_boxes.pop(key_of, None)
            row[key_of] = box
            if above is None:
                continue
            step = box.offset - above.offset - (above.height - 1) * above.step_y
            if above.height == 1 or step == above.step_y:
                row[key_of] = replace(above, height=above.height + 1, step_y=step)
            else:
                boxes.append(above)
        boxes.extend(open_boxes.values())
        open_boxes = row
    return [*boxes, *open_boxes.values()]


_BREAK = np.iinfo(np.int64).max
"""Distance between elements of different sources."""


def _progressions(distances: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (first, count, step) of runs of elements at equal distances."""
    first, total = 0, len(distances) + 1
    while first < total:
        count, step = _longest(distances, first)
        # Two elements are always at equal distances: leave the second to a longer run behind.
        if count == 2 and step != 1 and _longest(distances, first + 1)[0] > 2:
            count = 1
        yield first, count, step if count > 1 else 1
        first += count


def _longest(distances: list[int], first: int) -> tuple[int, int]:
    if first >= len(distances) or distances[first] == _BREAK:
        return 1, 1
    step, end = distances[first], first + 1
    while end < len(distances) and distances[end] == step:
        end += 1
    return end - first + 1, step


def _row_boxes(
    y: int, found: list[list[tuple[int, int, int]]], sources: IndexArray, elements: IndexArray
) -> Iterator[Box]:
    """Yield boxes of one row; pixels with the same runs of the same sources go together."""
    x, width = 0, len(found)
    while x < width:
        end = x + 1
        while end < width and found[end] is found[x]:
            end += 1
        for c, channels, step_c in found[x]:
            offsets = [int(v) for v in elements[x:end, c]]
            distances = [b - a for a, b in zip(offsets, offsets[1:], strict=False)]
            for first, count, step in _progressions(distances):
                yield Box(
                    source=int(sources[x, c]),
                    offset=offsets[first],
                    y=y,
                    x=x + first,
                    c=c,
                    width=count,
                    channels=channels,
                    step_x=step if count > 1 else 0,
                    step_c=step_c if channels > 1 else 0,
                )
        x = end
