"""The command that copies a part of a tensor on chip, a line at a time.

The vector engine's maximum of a window of one pixel is that pixel.
"""

from __future__ import annotations

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Vector, VectorOp
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.windows import window_of
from celosia.sw.compiler.steps import Step

__all__ = ["line_copy_step"]


def line_copy_step(
    box: Box,
    source: Slab,
    image: tuple[int, int, int],
    target: Slab,
    layer: int,
    config: NpuConfig,
) -> Step:
    """Return the command that copies a box, which may be too large for one (`cut`).

    Parameters
    ----------
    box : Box
        A part of the target; it begins with a line in both tensors.
    source, target : Slab
        Both as a whole.
    image : tuple of int
        Rows, columns and channels of the source.
    layer : int
        Index of the work.
    config : NpuConfig
        The machine.
    """
    line = config.line_bytes
    window = window_of(box, image)
    assert window is not None, "the box is copied by lines"
    a, d = source.layout, target.layout
    row = window.row[0] * a.row_pitch + window.row[1] * a.pixel_pitch
    pixel = window.pixel[0] * a.row_pitch + window.pixel[1] * a.pixel_pitch
    command = Vector(
        op=int(VectorOp.MAX),
        n_oc=ceil_div(box.channels, line),
        out_h=box.height,
        out_w=box.width,
        a_addr=source.address(window.y, window.x, window.c) // line,
        a_y=row // line if box.height > 1 else 0,
        a_x=pixel // line if box.width > 1 else 0,
        d_addr=target.address(box.y, box.x, box.c) // line,
        d_y=box.stride_y * d.row_pitch // line if box.height > 1 else 0,
        d_x=box.stride_x * d.pixel_pitch // line if box.width > 1 else 0,
        act_min=-128,
        act_max=127,
    )
    return Step(command=command, reads=(source.footprint,), writes=(target.footprint,), layer=layer)
