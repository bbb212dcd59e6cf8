"""What an engine is asked to do of an operator, and the command of an element-wise one."""

from __future__ import annotations

from dataclasses import dataclass

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, Vector
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.place.layout import MemoryHome, Slab
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["LoadJob", "VectorJob", "elementwise_step", "table_footprint"]


@dataclass(frozen=True, kw_only=True)
class VectorJob:
    """A part of an operator whose operands are on chip.

    Attributes
    ----------
    sources, target : Slab
        Inputs and output.
    in_height : int
        Rows of the first input as a whole.
    width : int
        Columns of the output.
    rows, tiles : (int, int)
        Output rows and channel tiles to compute.
    layer : int
        Index of the work.
    """

    sources: tuple[Slab, ...]
    target: Slab
    in_height: int
    width: int
    rows: Range
    tiles: Range
    layer: int


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    """A load of a graph input in another form.

    Attributes
    ----------
    image : (int, int, int)
        Height, width and channels of the input.
    home : MemoryHome
        The input, dense in memory.
    target : Slab
        The output, on chip as a whole.
    layer : int
        Index of the work.
    """

    image: tuple[int, int, int]
    home: MemoryHome
    target: Slab
    layer: int


def table_footprint(config: NpuConfig) -> Footprint:
    """Return the bytes of the table memory, all of them."""
    return Footprint(Place.TABLE, 0, TABLE_ENTRIES * config.line_bytes)


def elementwise_step(
    job: VectorJob,
    operands: dict[str, Slab],
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
    operands : dict of str to Slab
        Inputs by the command's operand, ``a`` and ``b``.
    fields : dict of str to int
        What else the command says.
    config : NpuConfig
        The machine.
    table : bool
        It reads the table memory.
    """
    line = config.line_bytes
    for name, slab in {**operands, "d": job.target}.items():
        fields |= {
            f"{name}_addr": slab.address(job.rows[0], 0, job.tiles[0] * line) // line,
            f"{name}_y": slab.layout.row_pitch // line,
            f"{name}_x": slab.layout.pixel_pitch // line,
        }
    command = Vector(
        n_oc=job.tiles[1] - job.tiles[0],
        out_h=job.rows[1] - job.rows[0],
        out_w=job.width,
        **fields,
    )
    reads = [slab.footprint for slab in operands.values()]
    if table:
        reads.append(table_footprint(config))
    return Step(
        command=command, reads=tuple(reads), writes=(job.target.footprint,), layer=job.layer
    )
