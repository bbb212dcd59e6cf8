"""Where a box of a movement lies: a window of its source, or its source in the result."""

from __future__ import annotations

from dataclasses import dataclass

from celosia.sw.compiler.arithmetic.boxes import Box

__all__ = ["Image", "Window", "part_of", "window_of"]

Image = tuple[int, int, int]
"""Rows, columns and channels."""


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
