"""The commands of several convolutions that write parts of one tensor, and of tiles in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ops.npu.phases import Phase
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.mapping import PhaseMapping, shared_requantisation
from celosia.sw.compiler.schedule.chunks import ChunkLoader, WeightedLayer
from celosia.sw.compiler.schedule.conv import (
    ConvJob,
    conv_steps,
    split_reduction_steps,
    summed_steps,
)
from celosia.sw.compiler.steps import Place, Step

__all__ = ["PhasesJob", "phase_steps", "tile_by_tile"]


@dataclass(frozen=True)
class PhasesJob:
    """A part of an operator of several convolutions, whose operands are on chip.

    Attributes
    ----------
    source, target : Slab
        Input and output.
    in_height : int
        Rows of the input as a whole.
    rows, tiles : (int, int)
        Output rows and output channel tiles to compute.
    layer : int
        Index of the work.
    """

    source: Slab
    target: Slab
    in_height: int
    rows: Range
    tiles: Range
    layer: int


def phase_steps(
    phases: Sequence[Phase],
    mappings: PhaseMapping,
    job: PhasesJob,
    loader: ChunkLoader,
    config: NpuConfig,
) -> Iterator[Step]:
    """Yield the commands, the loads of weights and parameters among them."""
    for number, (phase, mapping) in enumerate(zip(phases, mappings.each, strict=True)):
        rows = phase.within(job.rows)
        if rows[0] == rows[1]:
            continue
        whole = ConvJob(
            mapping=mapping,
            add=None,
            source=job.source,
            target=_grid(phase, job.target, rows),
            other=None,
            in_height=job.in_height,
            out_size=(phase.rows, phase.columns),
            rows=rows,
            tiles=job.tiles,
            layer=job.layer,
        )
        layer = WeightedLayer(
            job.layer,
            mapping,
            job.source.layout.pixel_pitch,
            shared_requantisation(mapping.op),
            phase=number,
        )
        steps = _steps(whole, layer, loader, config)
        if phase.rest is not None:
            rest = replace(mapping, op=replace(mapping.op, weights=phase.rest))
            other = replace(layer, mapping=rest, phase=-1 - number)
            steps = _summed(whole, layer, other, loader, config)
        for step in steps:
            # A grid's own bytes have those of others between them, and gaps behind the last.
            on_chip = any(written.place is Place.ACT for written in step.writes)
            yield replace(step, writes=(job.target.footprint,)) if on_chip else step


def _grid(phase: Phase, target: Slab, rows: Range) -> Slab:
    """Return the pixels of a phase in a slab as one of their own, with larger pitches."""
    layout = target.layout
    return replace(
        target,
        base=target.address(phase.y + rows[0] * phase.step_y, phase.x),
        y_first=rows[0],
        y_end=rows[1],
        layout=replace(
            layout,
            width=phase.columns,
            pixel_pitch=layout.pixel_pitch * phase.step_x,
            row_pitch=layout.row_pitch * phase.step_y,
        ),
    )


def _steps(
    job: ConvJob, layer: WeightedLayer, loader: ChunkLoader, config: NpuConfig
) -> Iterator[Step]:
    chunks = loader.cut(layer, job.tiles, parts=1, taper=False)
    if chunks is None:
        yield from tile_by_tile(job, layer, loader, config)
        return
    for chunk in chunks:
        yield from loader.load(layer, chunk)
        part = replace(job, tiles=chunk.tiles)
        yield from conv_steps(part, chunk.wgt_addr, chunk.param_addr, config)


def _summed(
    job: ConvJob,
    layer: WeightedLayer,
    other: WeightedLayer,
    loader: ChunkLoader,
    config: NpuConfig,
) -> Iterator[Step]:
    """Yield the commands of a convolution and another one that is added to it."""
    for tile in range(*job.tiles):
        tiles = (tile, tile + 1)
        parameters, param_addr = loader.load_parameters(layer, tiles)
        yield parameters

        def load(index: int, tiles: Range = tiles) -> tuple[Step, int]:
            return loader.load_weights((layer, other)[index], tiles)

        part = replace(job, tiles=tiles)
        jobs = (part, replace(part, mapping=other.mapping))
        yield from summed_steps(jobs, load, param_addr, config)


def tile_by_tile(
    job: ConvJob, layer: WeightedLayer, loader: ChunkLoader, config: NpuConfig
) -> Iterator[Step]:
    """Yield the commands of a job of whose tiles not even one has its weights in one command."""
    for tile in range(*job.tiles):
        tiles = (tile, tile + 1)
        parameters, param_addr = loader.load_parameters(layer, tiles)
        yield parameters

        def load_piece(passes: Range, tiles: Range = tiles) -> tuple[Step, int]:
            return loader.load_weights(layer, tiles, passes)

        yield from split_reduction_steps(replace(job, tiles=tiles), load_piece, param_addr, config)
