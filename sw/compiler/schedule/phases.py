"""The commands of several convolutions that write parts of one tensor, and of tiles in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.mapping import shared_requantisation
from celosia.sw.compiler.place.parts import KernelPart
from celosia.sw.compiler.place.phases import Phase, PhaseMapping
from celosia.sw.compiler.schedule.chunks import Chunk, ChunkLoader, WeightedLayer
from celosia.sw.compiler.schedule.conv import conv_steps, split_reduction_steps, summed_steps
from celosia.sw.compiler.schedule.conv_commands import ConvJob
from celosia.sw.compiler.steps import Place, Step

__all__ = ["PhasesJob", "phase_steps", "split_tile", "tile_by_tile"]


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


@dataclass(frozen=True)
class _Part:
    """What a job computes of one phase.

    Attributes
    ----------
    job : ConvJob
        With the phase's outputs as a slab of their own.
    layers : tuple of WeightedLayer
        Its weights; two if they add up.
    """

    job: ConvJob
    layers: tuple[WeightedLayer, ...]

    @property
    def fits_command(self) -> bool:
        """Whether one `Conv` can count the passes of a tile."""
        return all(layer.mapping.fits_command for layer in self.layers)

    def weight_bytes(self, config: NpuConfig) -> int:
        """Bytes of the weights of a tile of output channels."""
        return sum(layer.mapping.tile_weight_bytes(config) for layer in self.layers)

    def parameter_bytes(self, config: NpuConfig) -> int:
        """Likewise of the parameters."""
        return sum(layer.parameter_tile_bytes(config) for layer in self.layers)


def phase_steps(
    mappings: PhaseMapping,
    job: PhasesJob,
    loader: ChunkLoader,
    config: NpuConfig,
) -> Iterator[Step]:
    """Yield the commands, the loads of weights and parameters among them.

    Phases are many and their weights few: one load brings those of as many as half of the weight
    memory has room for.
    """
    for parts, together in _bundles(_parts(mappings, job), job.tiles, loader):
        if together:
            steps = _bundle(parts, job.tiles, loader, config)
        else:
            steps = _alone(parts[0], loader, config)
        for step in steps:
            # A grid's own bytes have those of others between them, and gaps behind the last.
            on_chip = any(written.place is Place.ACT for written in step.writes)
            yield replace(step, writes=(job.target.footprint,)) if on_chip else step


def _parts(mappings: PhaseMapping, job: PhasesJob) -> Iterator[_Part]:
    for number, (phase, mapping) in enumerate(zip(mappings.phases, mappings.each, strict=True)):
        rows = phase.within(job.rows)
        if rows[0] == rows[1]:
            continue
        own = ConvJob(
            mapping=mapping,
            add=None,
            source=job.source,
            target=_grid(phase, job.target, rows),
            other=None,
            in_size=(job.in_height, job.source.layout.width),
            out_size=(phase.rows, phase.columns),
            rows=rows,
            columns=(0, phase.columns),
            tiles=job.tiles,
            layer=job.layer,
        )
        pitch, shared = job.source.layout.pixel_pitch, shared_requantisation(mapping.op)
        first = WeightedLayer(job.layer, mapping, pitch, shared, phase=number)
        if phase.rest is None:
            yield _Part(own, (first,))
            continue
        rest = replace(mapping, op=replace(mapping.op, weights=phase.rest))
        yield _Part(own, (first, replace(first, mapping=rest, phase=-1 - number)))


def _bundles(
    parts: Iterator[_Part], tiles: Range, loader: ChunkLoader
) -> Iterator[tuple[list[_Part], bool]]:
    """Yield parts whose weights are loaded together, and whether they can be.

    Together they take half of the memories; what is too large for that is alone.
    """
    config = loader.config
    rooms = loader.wgt_bytes // 2, config.param_bytes // 2
    count = tiles[1] - tiles[0]
    bundle: list[_Part] = []
    taken = (0, 0)
    for part in parts:
        sizes = count * part.weight_bytes(config), count * part.parameter_bytes(config)
        if sizes[0] > rooms[0] or sizes[1] > rooms[1] or not part.fits_command:
            if bundle:
                yield bundle, True
            yield [part], False
            bundle, taken = [], (0, 0)
            continue
        if bundle and (taken[0] + sizes[0] > rooms[0] or taken[1] + sizes[1] > rooms[1]):
            yield bundle, True
            bundle, taken = [], (0, 0)
        bundle.append(part)
        taken = taken[0] + sizes[0], taken[1] + sizes[1]
    if bundle:
        yield bundle, True


def _bundle(
    parts: Sequence[_Part], tiles: Range, loader: ChunkLoader, config: NpuConfig
) -> Iterator[Step]:
    loads, chunks = loader.load_together([layer for part in parts for layer in part.layers], tiles)
    yield from loads
    places = iter(chunks)
    for part in parts:
        own = [next(places) for _ in part.layers]
        if len(own) == 1:
            yield from conv_steps(part.job, own[0].wgt_addr, own[0].param_addr, config)
            continue
        for number, tile in enumerate(range(*tiles)):

            def there(
                index: int, own: list[Chunk] = own, part: _Part = part, number: int = number
            ) -> tuple[list[Step], int]:
                size = part.layers[index].mapping.tile_weight_bytes(config)
                return [], own[index].wgt_addr + number * size

            param_addr = own[0].param_addr + number * part.layers[0].parameter_tile_bytes(config)
            yield from _summed(part, (tile, tile + 1), there, param_addr, config)


def _alone(part: _Part, loader: ChunkLoader, config: NpuConfig) -> Iterator[Step]:
    """Yield the commands of a phase whose weights take more than their share."""
    first, *rest = part.layers
    if rest:
        for tile in range(*part.job.tiles):
            tiles = (tile, tile + 1)
            parameters, param_addr = loader.load_parameters(first, tiles)
            yield parameters

            def load(index: int, tiles: Range = tiles) -> tuple[list[Step], int]:
                return loader.load_weights(part.layers[index], tiles)

            yield from _summed(part, tiles, load, param_addr, config)
        return
    chunks = loader.cut(first, part.job.tiles, parts=1, taper=False)
    if chunks is None:
        yield from tile_by_tile(part.job, first, loader, config)
        return
    for chunk in chunks:
        yield from loader.load(first, chunk)
        own = replace(part.job, tiles=chunk.tiles)
        yield from conv_steps(own, chunk.wgt_addr, chunk.param_addr, config)


def _summed(
    part: _Part,
    tiles: Range,
    load: Callable[[int], tuple[list[Step], int]],
    param_addr: int,
    config: NpuConfig,
) -> Iterator[Step]:
    jobs = [replace(part.job, tiles=tiles, mapping=layer.mapping) for layer in part.layers]
    yield from summed_steps(jobs, load, param_addr, config)


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


def tile_by_tile(
    job: ConvJob,
    layer: WeightedLayer,
    loader: ChunkLoader,
    config: NpuConfig,
    parts: Sequence[tuple[KernelPart, Callable[[Range, Range, Range], tuple[Step, Slab]]]] = (),
) -> Iterator[Step]:
    """Yield the commands of a job of whose tiles not even one has its weights in one command.

    Parameters
    ----------
    job, layer, loader, config
        What to compute, and what loads its weights.
    parts : sequence of (KernelPart, callable)
        As of `split_reduction_steps`; the callable is also given the tile of output channels.
    """
    for tile in range(*job.tiles):
        tiles = (tile, tile + 1)
        parameters, param_addr = loader.load_parameters(layer, tiles)
        yield parameters
        of_tile = [(part, partial(load_part, tiles)) for part, load_part in parts]
        own = replace(job, tiles=tiles)
        yield from split_tile(own, layer, loader, param_addr, config, of_tile)


def split_tile(
    job: ConvJob,
    layer: WeightedLayer,
    loader: ChunkLoader,
    param_addr: int,
    config: NpuConfig,
    kernel_parts: Sequence[tuple[KernelPart, Callable[[Range, Range], tuple[Step, Slab]]]] = (),
) -> Iterator[Step]:
    """Yield the commands of a channel tile whose sum takes several `Conv`.

    `kernel_parts` are those of `split_reduction_steps`.
    """
    tile = job.tiles[0]
    parts = len(loader.weight_parts(layer, tile, None))
    # What is of several parts and fits into half of the memory together is loaded once.
    stays = parts > 1 and (parts * layer.mapping.tile_weight_bytes(config) <= loader.wgt_bytes // 2)
    loaded: dict[tuple[Range, int], int] = {}

    def load_piece(piece: Range, part: int) -> tuple[list[Step], int]:
        if (piece, part) in loaded:
            return [], loaded[piece, part]
        steps, address = loader.load_weights(layer, job.tiles, piece, part=part)
        if stays:
            loaded[piece, part] = address
        return steps, address

    def parts_of(piece: Range) -> list[int]:
        return loader.weight_parts(layer, tile, piece)

    # Half of the memory each, so that the next piece is loaded while one is used.
    most = loader.wgt_bytes // 2 // (config.rows * config.line_bytes)
    yield from split_reduction_steps(
        job, load_piece, parts_of, param_addr, config, kernel_parts, most=most
    )
