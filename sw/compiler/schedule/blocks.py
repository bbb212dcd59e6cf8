"""Cuts the outputs of a convolution into rectangles for which there are commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADDRESS_MASK, Command, Conv, Vector
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, split
from celosia.sw.compiler.place.limits import field_limit
from celosia.sw.compiler.schedule.bounds import conv_limit, fitted_conv
from celosia.sw.compiler.schedule.conv_commands import Block, ConvJob, conv_command, vector_step
from celosia.sw.compiler.schedule.pieces import shifted

__all__ = ["blocks_of", "lines_of"]


def blocks_of(job: ConvJob, config: NpuConfig) -> Iterator[Block]:
    """Yield the job's rectangles: as wide as a tile of the accumulator and a command allow."""
    lines, along = job.rows, job.columns
    if job.mapping.swapped:
        lines, along = along, lines
    width = along[1] - along[0]
    width = ceil_div(width, ceil_div(width, config.acc_depth))
    for first, end in split(along[1] - along[0], width):
        yield from _fitting_blocks(job, lines, (first + along[0], end + along[0]), config)


def lines_of(block: Block, lines: Range) -> Block:
    """Return some lines of a block, as one tile of the accumulator."""
    conv, height = block.conv, lines[1] - lines[0]
    tile = replace(
        conv,
        act_addr=(conv.act_addr + lines[0] * conv.step_y) & ADDRESS_MASK,
        y0=conv.y0 + lines[0] * conv.stride_y,
        out_h=height,
        tile_rows=height,
    )
    return Block(
        tile, block.line_first + lines[0], block.line_first + lines[1], block.first, block.end
    )


def _fitting_blocks(job: ConvJob, lines: Range, along: Range, config: NpuConfig) -> Iterator[Block]:
    """Yield a rectangle, or its halves if no command has room for it."""
    height, width = lines[1] - lines[0], along[1] - along[0]
    block = Block(conv_command(job, lines, along, config), *lines, *along)
    drained = vector_step(job, block, 0, config).command
    if height * width == 1 or (_exists(job, block.conv, config) and not field_limit(drained)):
        yield block
        return
    if height > 1 and (width == 1 or not _only_across(block.conv, drained, config)):
        middle = lines[0] + height // 2
        yield from _fitting_blocks(job, (lines[0], middle), along, config)
        yield from _fitting_blocks(job, (middle, lines[1]), along, config)
        return
    middle = along[0] + width // 2
    yield from _fitting_blocks(job, lines, (along[0], middle), config)
    yield from _fitting_blocks(job, lines, (middle, along[1]), config)


def _exists(job: ConvJob, conv: Conv, config: NpuConfig) -> bool:
    """Whether a command, or those of single passes if they are many, have room for a block."""
    if job.mapping.fits_command:
        return not conv_limit(fitted_conv(conv, config), config)
    # Which rows are inside does not depend on the column, and matters where some are and some not.
    reach = (conv.out_h - 1) * conv.stride_y
    firsts = range(conv.y0, conv.y0 + conv.n_ky * max(conv.ky_rows, 1), max(conv.ky_rows, 1))
    passes = [
        (ky, 0, 0)
        for ky, first in enumerate(firsts)
        if first < 0 <= first + reach or first < conv.in_h <= first + reach
    ]
    passes += [
        (0, kx, ic)
        for kx in (0, conv.n_kx // 2, conv.n_kx - 1)
        for ic in (0, conv.n_ic // 2, conv.n_ic - 1)
    ]
    ones = (shifted(conv, (ky, ky + 1), (kx, kx + 1), (ic, ic + 1)) for ky, kx, ic in passes)
    return not any(conv_limit(fitted_conv(one, config), config) for one in ones)


def _only_across(conv: Conv, drained: Command, config: NpuConfig) -> bool:
    """Whether fewer lines would not help: along them it is that a command is too large."""
    line = replace(conv, out_h=1, tile_rows=1, n_ky=1, n_kx=1, n_ic=1, y0=0, in_h=1)
    assert isinstance(drained, Vector), "it empties the accumulator"
    one = replace(drained, out_h=1, tile_rows=1, d_y=0, b_y=0)
    return bool(conv_limit(fitted_conv(line, config), config) or field_limit(one))
