"""The commands that load a graph input folded (`fold_input`)."""

from __future__ import annotations

from collections.abc import Iterator

from celosia.hw.contract.isa import Load, Region, Space
from celosia.sw.compiler.passes.fold_input import FoldOp, fold_runs
from celosia.sw.compiler.place.layout import MemoryHome, Slab
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["fold_steps"]


def fold_steps(
    op: FoldOp,
    image: tuple[int, int, int],
    home: MemoryHome,
    target: Slab,
    fill_offset: int,
    layer: int,
) -> Iterator[Step]:
    """Yield the commands: the whole target filled with the zero point, then the image.

    Parameters
    ----------
    op : FoldOp
        The fold.
    image : tuple of int
        Height, width and channels of the input.
    home : MemoryHome
        The input, dense in memory.
    target : Slab
        The folded image on chip.
    fill_offset : int
        Offset in region CONST of as many zero points as the target has bytes.
    layer : int
        Index of the work.
    """
    folding, channels = op.folding, image[2]
    fill = Load(
        region=int(Region.CONST),
        space=int(Space.ACT),
        mem_addr=fill_offset,
        sram_addr=target.base,
        row_bytes=folding.size_bytes,
    )
    yield Step(command=fill, reads=(), writes=(target.footprint,), layer=layer)
    row_bytes = image[1] * channels
    place = Place.of_region(home.region)
    memory = Footprint(place, home.offset, home.offset + image[0] * row_bytes)
    for run in fold_runs(op, image):
        command = Load(
            region=int(home.region),
            space=int(Space.ACT),
            mem_addr=home.offset + run.source,
            sram_addr=target.base + run.target,
            row_bytes=run.size_bytes,
            n1=run.count,
            mem_stride1=folding.pixels * channels,
            sram_stride1=folding.channels,
            n2=run.height,
            mem_stride2=folding.row_step * row_bytes,
            sram_stride2=folding.width * folding.channels,
        )
        yield Step(command=command, reads=(memory,), writes=(target.footprint,), layer=layer)
