"""Cuts a convolution's commands so that it begins before the layer ahead of it has ended.

When the array is done with a layer, the vector engine still empties the last tile of the
accumulator. Nothing but that tile's outputs keeps the next layer waiting: a command of its own for
the last tile (the *tail*) lets all others be told ready before it, and a command of its own for
what can be computed without it (the *head*) keeps the array busy in the meantime. That is, of a
convolution whose kernel is a pixel, the first tile's passes but the last one; where every channel
is treated alone, all tiles but the last; else the rows that those before the last tile are enough
for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Mode
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.schedule.conv_commands import Block, ConvJob, conv_command

__all__ = ["LEAST_VECTORS", "Edges", "Unit", "units_of"]

LEAST_VECTORS = 12
"""Of a tile: emptying fewer takes hardly longer than two more commands."""


@dataclass(frozen=True)
class Edges:
    """Where a layer is to overlap with its neighbours.

    Attributes
    ----------
    head : bool
        With the one before it, whose output is its input.
    tail : bool
        With the one behind it.
    least : int
        Vectors that a tile must have for it.
    """

    head: bool = False
    tail: bool = False
    least: int = LEAST_VECTORS

    def of_chunk(self, index: int, count: int) -> Edges:
        """Return those of one of several parts that are computed one after the other."""
        head, tail = self.head and index == 0, self.tail and index == count - 1
        return replace(self, head=head, tail=tail)


@dataclass(frozen=True)
class Unit:
    """What one `Vector` takes from the accumulator, and the `Conv` that fill it.

    Attributes
    ----------
    job : ConvJob
        The convolution, of the unit's channel tiles alone.
    block : Block
        Its outputs.
    depths : tuple of (int, int)
        Lines of a pixel's channels that each `Conv` reads, in order.
    """

    job: ConvJob
    block: Block
    depths: tuple[Range, ...]


def units_of(job: ConvJob, block: Block, edges: Edges, config: NpuConfig) -> Iterator[Unit]:
    """Yield the units of a block, in the order of its tiles.

    Parameters
    ----------
    job : ConvJob
        What the block is of.
    block : Block
        From `blocks_of`.
    edges : Edges
        Where it is to overlap.
    config : NpuConfig
        The machine.
    """
    conv = block.conv
    whole: Range = (0, conv.n_ic)
    if conv.tile_rows * conv.out_w < edges.least or not job.mapping.fits_command:
        yield Unit(job, block, (whole,))
        return
    tiles, lines = job.tiles, (0, conv.out_h)
    first_lines, last_lines = conv.tile_rows, (conv.out_h - 1) // conv.tile_rows * conv.tile_rows
    several = first_lines < lines[1]
    pixel = conv.n_ic > 1 and _is_pixel(job)
    windows = Mode(conv.mode).windows
    if edges.head and windows and (pixel or several):
        one = tiles[0], tiles[0] + 1
        yield _unit(job, block, one, (0, first_lines), config, cut=pixel)
        if several:
            yield _unit(job, block, one, (first_lines, lines[1]), config)
        tiles = tiles[0] + 1, tiles[1]
    elif edges.head and conv.n_oc == 1 and several:
        yield _unit(job, block, tiles, (0, first_lines), config)
        lines = first_lines, lines[1]
    count = tiles[1] - tiles[0]
    if count == 0:
        return
    at_end = edges.tail or (edges.head and not windows)
    if at_end and count > 1:
        yield _unit(job, block, (tiles[0], tiles[1] - 1), lines, config)
        tiles = tiles[1] - 1, tiles[1]
    elif at_end and lines[0] < last_lines:
        yield _unit(job, block, tiles, (lines[0], last_lines), config)
        lines = last_lines, lines[1]
    yield _unit(job, block, tiles, lines, config)


def _is_pixel(job: ConvJob) -> bool:
    """Whether a pass reads one line of every pixel's channels."""
    mapping = job.mapping
    return mapping.mode == Mode.WINDOW and not mapping.packed and mapping.n_ky == mapping.n_kx == 1


def _unit(
    job: ConvJob, block: Block, tiles: Range, lines: Range, config: NpuConfig, *, cut: bool = False
) -> Unit:
    """Return some channel tiles and lines (of the block's) of a block; `cut`: its passes, too."""
    own = replace(job, tiles=tiles)
    first, end = block.line_first + lines[0], block.line_first + lines[1]
    conv = conv_command(own, (first, end), (block.first, block.end), config)
    height = min(block.conv.tile_rows, end - first)
    depth = conv.n_ic
    return Unit(
        own,
        Block(replace(conv, tile_rows=height), first, end, block.first, block.end),
        ((0, depth - 1), (depth - 1, depth)) if cut else ((0, depth),),
    )
