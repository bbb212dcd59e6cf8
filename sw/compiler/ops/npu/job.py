"""What an engine is asked to do of an operator, and the command of an element-wise one."""

from __future__ import annotations

from dataclasses import dataclass

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, Vector
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.place.layout import MemoryHome, Slab
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["LoadJob", "MatrixJob", "VectorJob", "elementwise_step", "table_footprint"]


@dataclass(frozen=True, kw_only=True)
class VectorJob:
    """A part of an operator whose operands are on chip.

    Attributes
    ----------
    sources, target : Slab
        Inputs and output.
    in_heights, in_widths : tuple of int
        Rows and columns of each input as a whole.
    rows, columns, tiles : (int, int)
        Output rows, columns and channel tiles to compute.
    layer : int
        Index of the work.
    """

    sources: tuple[Slab, ...]
    target: Slab
    in_heights: tuple[int, ...]
    in_widths: tuple[int, ...]
    rows: Range
    columns: Range
    tiles: Range
    layer: int

    @property
    def width(self) -> int:
        """Output columns to compute."""
        return self.columns[1] - self.columns[0]


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    """A load of tensors that are in memory, in another form.

    Attributes
    ----------
    images : tuple of (int, int, int)
        Height, width and channels of each input.
    homes : tuple of MemoryHome
        The inputs, dense in memory.
    target : Slab
        The part of the output, on chip.
    rows, columns, channels : (int, int)
        Which part this is.
    layer : int
        Index of the work.
    """

    images: tuple[tuple[int, int, int], ...]
    homes: tuple[MemoryHome, ...]
    target: Slab
    rows: Range
    columns: Range
    channels: Range
    layer: int


@dataclass(frozen=True, kw_only=True)
class MatrixJob:
    """A part of a product of matrices: A and the output are on chip, B is in memory.

    Attributes
    ----------
    source, target : Slab
        Rows of A and of the output.
    home : MemoryHome or None
        B; None if it is a constant.
    home_height : int
        Rows of B.
    rows, tiles : (int, int)
        Output rows and channel tiles to compute.
    layer : int
        Index of the work.
    """

    source: Slab
    target: Slab
    home: MemoryHome | None
    home_height: int
    rows: Range
    tiles: Range
    layer: int


def table_footprint(config: NpuConfig) -> Footprint:
    """Return the bytes of the table memory, all of them."""
    return Footprint(Place.TABLE, 0, TABLE_ENTRIES * config.line_bytes)


def elementwise_step(
    job: VectorJob,
    operands: dict[str, int],
    fields: dict[str, int],
    config: NpuConfig,
    *,
    table: bool = False,
) -> Step:
    """Return the command of an element-wise operator.

    Parameters
    ----------
    job : VectorJob
        What to compute.
    operands : dict of str to int
        Numbers of the inputs by the command's operand, ``a`` and ``b``. An input of one row or
        one column is read again for each of the output's.
    fields : dict of str to int
        What else the command says.
    config : NpuConfig
        The machine.
    table : bool
        It reads the table memory.
    """
    line = config.line_bytes
    first, channel = job.rows[0], job.tiles[0] * line
    for name, number in operands.items():
        slab = job.sources[number]
        moves_y, moves_x = job.in_heights[number] > 1, job.in_widths[number] > 1
        place = first if moves_y else 0, job.columns[0] if moves_x else 0
        # One channel is for all tiles.
        own = slab.channel_first if slab.layout.channels == 1 else channel
        fields |= {
            f"{name}_addr": slab.address(*place, own) // line,
            f"{name}_y": slab.layout.row_pitch // line if moves_y else 0,
            f"{name}_x": slab.layout.pixel_pitch // line if moves_x else 0,
        }
    fields |= {
        "d_addr": job.target.address(first, job.columns[0], channel) // line,
        "d_y": job.target.layout.row_pitch // line,
        "d_x": job.target.layout.pixel_pitch // line,
    }
    command = Vector(
        n_oc=job.tiles[1] - job.tiles[0],
        out_h=job.rows[1] - job.rows[0],
        out_w=job.width,
        **fields,
    )
    reads = [job.sources[number].footprint for number in operands.values()]
    if table:
        reads.append(table_footprint(config))
    return Step(
        command=command, reads=tuple(reads), writes=(job.target.footprint,), layer=job.layer
    )
