"""The steps of a convolution: of a whole one, of one whose sum takes several, of a sum of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv
from celosia.sw.compiler.arithmetic.whole import Range, split
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.parts import KernelPart
from celosia.sw.compiler.schedule.blocks import blocks_of, lines_of
from celosia.sw.compiler.schedule.bounds import fitted_conv
from celosia.sw.compiler.schedule.conv_commands import (
    Block,
    ConvJob,
    conv_command,
    conv_step,
    vector_step,
)
from celosia.sw.compiler.schedule.overlap import Edges, Unit, units_of
from celosia.sw.compiler.schedule.pieces import MAX_PASSES, fitted_pieces, shifted
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["conv_steps", "split_reduction_steps", "summed_steps"]


def conv_steps(
    job: ConvJob,
    wgt_addr: int,
    param_addr: int,
    config: NpuConfig,
    edges: Edges = Edges(),  # noqa: B008 - frozen
) -> Iterator[Step]:
    """Yield the commands; weights and parameters of the job's tiles are loaded.

    Parameters
    ----------
    job : ConvJob
        What to compute.
    wgt_addr, param_addr : int
        Byte addresses of the weights and parameters of the first channel tile.
    config : NpuConfig
        The machine.
    edges : Edges
        Where it is to overlap with other layers.
    """
    tile_bytes, block_bytes = job.mapping.tile_weight_bytes(config), job.parameter_bytes(config)
    blocks = list(blocks_of(job, config))
    for number, block in enumerate(blocks):
        of_block = edges.of_chunk(number, len(blocks))
        for unit in units_of(job, block, of_block, config):
            before = unit.job.tiles[0] - job.tiles[0]
            yield from _unit_steps(unit, wgt_addr + before * tile_bytes, config)
            yield vector_step(unit.job, unit.block, param_addr + before * block_bytes, config)


def _unit_steps(unit: Unit, wgt_addr: int, config: NpuConfig) -> Iterator[Step]:
    """Yield what fills the accumulator for a unit: one command, or one for each of its depths."""
    job, conv = unit.job, unit.block.conv
    matrix_bytes = config.rows * config.line_bytes
    for index, depth in enumerate(unit.depths):
        # A convolution that is cut has its passes one behind the other along the depth alone.
        address = wgt_addr + depth[0] * matrix_bytes
        passes = conv.n_oc * conv.n_ky * conv.n_kx * (depth[1] - depth[0])
        part = conv if len(unit.depths) == 1 else shifted(conv, (0, conv.n_ky), ic=depth)
        command = _summand(fitted_conv(part, config), address, index, len(unit.depths), config)
        weights = Footprint(Place.WGT, address, address + passes * matrix_bytes)
        yield conv_step(job, command, weights, unit.block, depth)


def _summand(conv: Conv, wgt_addr: int, index: int, count: int, config: NpuConfig) -> Conv:
    """Return the command of one of several parts of a sum: where its weights are, what it keeps."""
    return replace(
        conv,
        wgt_addr=wgt_addr // config.line_bytes,
        accumulate=int(index > 0),
        hold=int(index < count - 1),
    )


def split_reduction_steps(
    job: ConvJob,
    load_piece: Callable[[Range, int], tuple[list[Step], int]],
    parts_of: Callable[[Range], list[int]],
    param_addr: int,
    config: NpuConfig,
    parts: Sequence[tuple[KernelPart, Callable[[Range, Range], tuple[Step, Slab]]]] = (),
    *,
    most: int,
) -> Iterator[Step]:
    """Yield the commands of one channel tile whose sum takes several: of its passes too many for
    the weight memory or a command, or with weights of more than eight bits.

    Parameters
    ----------
    job : ConvJob
        What to compute, one channel tile.
    load_piece : callable
        Returns the loads of a range of passes, and of one part of their weights
        (`ConvOp.weight_parts`), and the byte address of these.
    parts_of : callable
        Which parts of the weights a range of passes has.
    param_addr : int
        Byte address of the tile's parameters.
    config : NpuConfig
        The machine.
    parts : sequence of (KernelPart, callable)
        Parts of the kernel whose input is loaded one after the other, if the job's source is not
        on chip. The callable returns the load of what some output rows and columns need, and where
        it goes.
    most : int
        Passes whose weights there is room for at a time.
    """
    assert job.tiles[1] - job.tiles[0] == 1, "one tile of output channels at a time"
    matrix_bytes = config.rows * config.line_bytes
    most = min(max(1, most), MAX_PASSES)
    for block in blocks_of(job, config):
        for lines in split(block.conv.out_h, block.conv.tile_rows):
            tile = lines_of(block, lines)
            pieces = list(_summands(job, tile, parts, parts_of, most, config))
            for index, (load_input, part_job, passes, piece, weights) in enumerate(pieces):
                if load_input is not None:
                    yield load_input
                loads, address = load_piece(passes, weights)
                yield from loads
                conv = _summand(piece, address, index, len(pieces), config)
                size = (passes[1] - passes[0]) * matrix_bytes
                yield conv_step(part_job, conv, Footprint(Place.WGT, address, address + size))
            yield vector_step(job, tile, param_addr, config)


def _summands(
    job: ConvJob,
    tile: Block,
    parts: Sequence[tuple[KernelPart, Callable[[Range, Range], tuple[Step, Slab]]]],
    parts_of: Callable[[Range], list[int]],
    most: int,
    config: NpuConfig,
) -> Iterator[tuple[Step | None, ConvJob, Range, Conv, int]]:
    """Yield what the sum of some lines is made of, with the number of each weights' part."""
    if parts:
        for load_input, part_job, passes, piece in _part_pieces(job, tile, parts, most, config):
            for weights in parts_of(passes):
                yield (load_input if weights == 0 else None), part_job, passes, piece, weights
        return
    conv = tile.conv
    for passes, piece in fitted_pieces(conv, most, config):
        yield None, job, passes, piece, 0
    # Weights that exceed eight bits are few: kernel row by kernel row most are left out.
    for passes, piece in fitted_pieces(conv, max(1, min(most, conv.n_kx * conv.n_ic)), config):
        for weights in parts_of(passes)[1:]:
            yield None, job, passes, piece, weights


def _part_pieces(
    job: ConvJob,
    tile: Block,
    parts: Sequence[tuple[KernelPart, Callable[[Range, Range], tuple[Step, Slab]]]],
    most: int,
    config: NpuConfig,
) -> Iterator[tuple[Step | None, ConvJob, Range, Conv]]:
    """Yield the load of a part's input before its first piece, what it computes, and the pieces."""
    mapping = job.mapping
    lines, along = (tile.line_first, tile.line_end), (tile.first, tile.end)
    rows, columns = (along, lines) if mapping.swapped else (lines, along)
    for part, load_input in parts:
        load, source = load_input(rows, columns)
        first: Step | None = load
        part_job = replace(job, source=source)
        conv = conv_command(part_job, lines, along, config)
        # Channels of a part begin where its slab does; bytes of a packed row are counted on.
        ic = part.ic if mapping.packed else (0, part.ic[1] - part.ic[0])
        for ky in _turns(part.ky, part.kx != (0, mapping.n_kx) or part.ic != (0, mapping.n_ic)):
            for kx in _turns(part.kx, part.ic != (0, mapping.n_ic)):
                of_part = replace(shifted(conv, ky, kx, ic), tile_rows=lines[1] - lines[0])
                begin = (ky[0] * mapping.n_kx + kx[0]) * mapping.n_ic + part.ic[0]
                for passes, piece in fitted_pieces(of_part, most, config):
                    yield first, part_job, (begin + passes[0], begin + passes[1]), piece
                    first = None


def _turns(turns: Range, one_by_one: bool) -> Iterator[Range]:
    """Yield the turns of a loop of passes whose weights lie side by side."""
    if not one_by_one:
        yield turns
        return
    for turn in range(*turns):
        yield turn, turn + 1


def summed_steps(
    jobs: Sequence[ConvJob],
    load: Callable[[int], tuple[list[Step], int]],
    param_addr: int,
    config: NpuConfig,
) -> Iterator[Step]:
    """Yield the commands of one channel tile of a sum of convolutions of one geometry.

    Parameters
    ----------
    jobs : sequence of ConvJob
        What is added; the first one's parameters requantise the sum.
    load : callable
        Returns the load of the weights of a job, by its number, if they are not there yet, and
        their byte address.
    param_addr : int
        Byte address of the tile's parameters.
    config : NpuConfig
        The machine.
    """
    for block in blocks_of(jobs[0], config):
        for lines in split(block.conv.out_h, block.conv.tile_rows):
            part = lines_of(block, lines)
            for index, job in enumerate(jobs):
                loads, address = load(index)
                yield from loads
                fitted = fitted_conv(part.conv, config)
                conv = _summand(fitted, address, index, len(jobs), config)
                end = address + job.mapping.tile_weight_bytes(config)
                yield conv_step(job, conv, Footprint(Place.WGT, address, end))
            yield vector_step(jobs[0], part, param_addr, config)
