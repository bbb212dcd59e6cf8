"""The commands of a convolution: `Conv` and the `Vector` that empties its accumulator tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADDRESS_MASK, Command, Conv, Mode, Vector, VectorOp
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, split
from celosia.sw.compiler.ir import AddOp, ConvOp
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.limits import field_limit, most
from celosia.sw.compiler.place.mapping import (
    LONG_KERNEL,
    ConvMapping,
    conv_axes,
    shared_requantisation,
)
from celosia.sw.compiler.place.parts import KernelPart
from celosia.sw.compiler.schedule.bounds import conv_limit, fitted_conv
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["ConvJob", "conv_steps", "split_reduction_steps", "summed_steps"]

TILE_OVERHEAD_CYCLES = 8
"""Guess of what starting an accumulator tile costs; only used to choose the size of tiles."""
MAX_PASSES = min(most(Conv, name) for name in ("n_ky", "n_kx", "n_ic"))
"""Passes of a piece of a split reduction, whichever loop they are in."""
MAX_KY_ROWS = most(Conv, "ky_rows")
"""Rows from kernel row to kernel row; where they are further apart, each is a command."""
REQUANT_ADD_CYCLES = 4
"""Cycles of the vector engine for a vector of REQUANT_ADD; REQUANT takes one."""


@dataclass(frozen=True, kw_only=True)
class ConvJob:
    """A part of a convolution whose operands are on chip.

    Attributes
    ----------
    mapping, add
        The convolution and its passes, and the ADD fused to it.
    source, target, other : Slab
        Input, output and the ADD's other operand.
    in_size, out_size : (int, int)
        Rows and columns of the input and of the output, as a whole.
    rows, columns, tiles : (int, int)
        Output rows, columns and channel tiles to compute.
    layer : int
        Index of the work.
    """

    mapping: ConvMapping
    add: AddOp | None
    source: Slab
    target: Slab
    other: Slab | None
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    rows: Range
    columns: Range
    tiles: Range
    layer: int

    @property
    def op(self) -> ConvOp:
        """The operator."""
        return self.mapping.op


@dataclass(frozen=True)
class _Block:
    """A rectangle of outputs as the engines see it: lines of vectors (swapped: columns)."""

    conv: Conv
    line_first: int
    line_end: int
    first: int
    end: int


def conv_steps(job: ConvJob, wgt_addr: int, param_addr: int, config: NpuConfig) -> Iterator[Step]:
    """Yield the commands; weights and parameters of the job's tiles are loaded.

    Parameters
    ----------
    job : ConvJob
        What to compute.
    wgt_addr, param_addr : int
        Byte addresses of the weights and parameters of the first channel tile.
    config : NpuConfig
        The machine.
    """
    n_oc = job.tiles[1] - job.tiles[0]
    weights = Footprint(
        Place.WGT, wgt_addr, wgt_addr + n_oc * job.mapping.tile_weight_bytes(config)
    )
    for block in _blocks(job, config):
        fitted = fitted_conv(block.conv, config)
        conv = replace(fitted, wgt_addr=wgt_addr // config.line_bytes)
        yield _conv_step(job, conv, weights)
        yield _vector_step(job, block, param_addr, config)


def split_reduction_steps(
    job: ConvJob,
    load_piece: Callable[[Range, int], tuple[list[Step], int]],
    parts_of: Callable[[Range], list[int]],
    param_addr: int,
    config: NpuConfig,
    parts: Sequence[tuple[KernelPart, Callable[[Range, Range], tuple[Step, Slab]]]] = (),
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
    """
    assert job.tiles[1] - job.tiles[0] == 1, "one tile of output channels at a time"
    matrix_bytes = config.rows * config.line_bytes
    # Half of the memory each, so that the next piece is loaded while one is used.
    most = min(max(1, config.wgt_bytes // 2 // matrix_bytes), MAX_PASSES)
    for block in _blocks(job, config):
        for lines in split(block.conv.out_h, block.conv.tile_rows):
            tile = _lines_of(block, lines)
            pieces = list(_summands(job, tile, parts, parts_of, most, config))
            for index, (load_input, part_job, passes, piece, weights) in enumerate(pieces):
                if load_input is not None:
                    yield load_input
                loads, address = load_piece(passes, weights)
                yield from loads
                conv = replace(
                    piece,
                    wgt_addr=address // config.line_bytes,
                    accumulate=int(index > 0),
                    hold=int(index < len(pieces) - 1),
                )
                size = (passes[1] - passes[0]) * matrix_bytes
                yield _conv_step(part_job, conv, Footprint(Place.WGT, address, address + size))
            yield _vector_step(job, tile, param_addr, config)


def _summands(
    job: ConvJob,
    tile: _Block,
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
    for passes, piece in _fitted_pieces(conv, most, config):
        yield None, job, passes, piece, 0
    # Weights that exceed eight bits are few: kernel row by kernel row most are left out.
    for passes, piece in _fitted_pieces(conv, max(1, min(most, conv.n_kx * conv.n_ic)), config):
        for weights in parts_of(passes)[1:]:
            yield None, job, passes, piece, weights


def _part_pieces(
    job: ConvJob,
    tile: _Block,
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
        conv = _conv(part_job, lines, along, config)
        # Channels of a part begin where its slab does; bytes of a packed row are counted on.
        ic = part.ic if mapping.packed else (0, part.ic[1] - part.ic[0])
        for ky in _turns(part.ky, part.kx != (0, mapping.n_kx) or part.ic != (0, mapping.n_ic)):
            for kx in _turns(part.kx, part.ic != (0, mapping.n_ic)):
                of_part = replace(_shifted(conv, ky, kx, ic), tile_rows=lines[1] - lines[0])
                begin = (ky[0] * mapping.n_kx + kx[0]) * mapping.n_ic + part.ic[0]
                for passes, piece in _fitted_pieces(of_part, most, config):
                    yield first, part_job, (begin + passes[0], begin + passes[1]), piece
                    first = None


def _turns(turns: Range, one_by_one: bool) -> Iterator[Range]:
    """Yield the turns of a loop of passes whose weights lie side by side."""
    if not one_by_one:
        yield turns
        return
    for turn in range(*turns):
        yield turn, turn + 1


def _fitted_pieces(conv: Conv, most: int, config: NpuConfig) -> Iterator[tuple[Range, Conv]]:
    """Cut the passes of a command into commands that exist."""
    for passes, piece in _pieces(conv, most):
        if not conv_limit(piece, config):
            yield passes, piece
            continue
        fitted = fitted_conv(piece, config)
        counts = piece.n_ky, piece.n_kx, piece.n_ic
        if not conv_limit(fitted, config) or max(counts) == 1:
            yield passes, fitted
            continue
        # Fewer passes reach less far.
        axis = next(axis for axis, count in enumerate(counts) if count > 1)
        turn_passes = prod(counts[axis + 1 :])
        for turn in range(counts[axis]):
            begin = passes[0] + turn * turn_passes
            ranges: list[Range] = [(0, count) for count in counts]
            ranges[axis] = (turn, turn + 1)
            one = _shifted(piece, *ranges)
            for inner, smaller in _fitted_pieces(one, most, config):
                yield (begin + inner[0], begin + inner[1]), smaller


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
    for block in _blocks(jobs[0], config):
        for lines in split(block.conv.out_h, block.conv.tile_rows):
            part = _lines_of(block, lines)
            for index, job in enumerate(jobs):
                loads, address = load(index)
                yield from loads
                conv = replace(
                    fitted_conv(part.conv, config),
                    wgt_addr=address // config.line_bytes,
                    accumulate=int(index > 0),
                    hold=int(index < len(jobs) - 1),
                )
                end = address + job.mapping.tile_weight_bytes(config)
                yield _conv_step(job, conv, Footprint(Place.WGT, address, end))
            yield _vector_step(jobs[0], part, param_addr, config)


def _lines_of(block: _Block, lines: Range) -> _Block:
    """Return some lines of a block, as one tile of the accumulator."""
    conv, height = block.conv, lines[1] - lines[0]
    tile = replace(
        conv,
        act_addr=(conv.act_addr + lines[0] * conv.step_y) & ADDRESS_MASK,
        y0=conv.y0 + lines[0] * conv.stride_y,
        out_h=height,
        tile_rows=height,
    )
    return _Block(
        tile, block.line_first + lines[0], block.line_first + lines[1], block.first, block.end
    )


def _pieces(conv: Conv, most: int) -> Iterator[tuple[Range, Conv]]:
    """Cut the passes of a command into commands of at most `most` passes, in order."""
    if conv.n_kx * conv.n_ic <= most and conv.ky_rows <= MAX_KY_ROWS:
        per_step = conv.n_kx * conv.n_ic
        for first, end in split(conv.n_ky, most // per_step):
            yield (first * per_step, end * per_step), _shifted(conv, ky=(first, end))
        return
    for ky in range(conv.n_ky):
        if conv.n_ic <= most:
            for kx in split(conv.n_kx, most // conv.n_ic):
                first = (ky * conv.n_kx + kx[0]) * conv.n_ic
                passes = (first, first + (kx[1] - kx[0]) * conv.n_ic)
                yield passes, _shifted(conv, ky=(ky, ky + 1), kx=kx)
            continue
        for kx_one in range(conv.n_kx):
            for ic in split(conv.n_ic, most):
                first = (ky * conv.n_kx + kx_one) * conv.n_ic
                yield (
                    (first + ic[0], first + ic[1]),
                    _shifted(conv, ky=(ky, ky + 1), kx=(kx_one, kx_one + 1), ic=ic),
                )


def _shifted(conv: Conv, ky: Range, kx: Range | None = None, ic: Range | None = None) -> Conv:
    kx = kx or (0, conv.n_kx)
    ic = ic or (0, conv.n_ic)
    along_row = kx[0] * conv.step_kx + ic[0] * conv.step_ic
    return replace(
        conv,
        act_addr=(conv.act_addr + ky[0] * conv.step_ky + along_row) & ADDRESS_MASK,
        y0=conv.y0 + ky[0] * conv.ky_rows,
        ky_rows=min(conv.ky_rows, MAX_KY_ROWS) if ky[1] - ky[0] == 1 else conv.ky_rows,
        x0=conv.x0 + along_row,
        n_ky=ky[1] - ky[0],
        n_kx=kx[1] - kx[0],
        n_ic=ic[1] - ic[0],
    )


def _blocks(job: ConvJob, config: NpuConfig) -> Iterator[_Block]:
    """Yield the job's rectangles: as wide as a tile of the accumulator and a command allow."""
    lines, along = job.rows, job.columns
    if job.mapping.swapped:
        lines, along = along, lines
    width = along[1] - along[0]
    width = ceil_div(width, ceil_div(width, config.acc_depth))
    for first, end in split(along[1] - along[0], width):
        yield from _fitting_blocks(job, lines, (first + along[0], end + along[0]), config)


def _fitting_blocks(
    job: ConvJob, lines: Range, along: Range, config: NpuConfig
) -> Iterator[_Block]:
    """Yield a rectangle, or its halves if no command has room for it."""
    height, width = lines[1] - lines[0], along[1] - along[0]
    block = _Block(_conv(job, lines, along, config), *lines, *along)
    drained = _vector_step(job, block, 0, config).command
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
    ones = (_shifted(conv, (ky, ky + 1), (kx, kx + 1), (ic, ic + 1)) for ky, kx, ic in passes)
    return not any(conv_limit(fitted_conv(one, config), config) for one in ones)


def _only_across(conv: Conv, drained: Command, config: NpuConfig) -> bool:
    """Whether fewer lines would not help: along them it is that a command is too large."""
    line = replace(conv, out_h=1, tile_rows=1, n_ky=1, n_kx=1, n_ic=1, y0=0, in_h=1)
    assert isinstance(drained, Vector), "it empties the accumulator"
    one = replace(drained, out_h=1, tile_rows=1, d_y=0, b_y=0)
    return bool(conv_limit(fitted_conv(line, config), config) or field_limit(one))


def _conv(job: ConvJob, lines: Range, along: Range, config: NpuConfig) -> Conv:
    if job.mapping.mode == Mode.WINDOW:
        return _window_conv(job, lines, along, config)
    return _depthwise_conv(job, lines, along, config)


def _window_conv(job: ConvJob, rows: Range, columns: Range, config: NpuConfig) -> Conv:
    op, source, mapping = job.op, job.source, job.mapping
    layout = source.layout
    y0 = rows[0] * op.stride_h - op.pad_top
    x0 = columns[0] * op.stride_w - op.pad_left
    out_w = columns[1] - columns[0]
    return Conv(
        mode=int(Mode.WINDOW),
        zero_point=op.input_zero_point,
        act_addr=source.address(y0, x0) & ADDRESS_MASK,
        y0=y0,
        x0=x0 * layout.pixel_pitch,
        in_h=source.y_end,
        row_bytes=source.x_end * layout.pixel_pitch,
        row_pitch=layout.row_pitch,
        out_w=out_w,
        out_h=rows[1] - rows[0],
        tile_rows=_tile_rows(job, rows[1] - rows[0], out_w, out_w, config),
        row_len=out_w,
        extra=0,
        stride_x=1,
        stride_y=op.stride_h,
        step_x=op.stride_w * layout.pixel_pitch,
        step_y=op.stride_h * layout.row_pitch,
        n_ky=mapping.n_ky,
        ky_rows=mapping.ky_rows,
        step_ky=mapping.ky_rows * layout.row_pitch,
        n_kx=mapping.n_kx,
        step_kx=op.dilation_w * layout.pixel_pitch,
        n_ic=mapping.n_ic,
        step_ic=config.line_bytes,
        n_oc=job.tiles[1] - job.tiles[0],
        step_oc=0,
    )


def _depthwise_conv(job: ConvJob, lines: Range, along: Range, config: NpuConfig) -> Conv:
    op, source, mapping = job.op, job.source, job.mapping
    layout = source.layout
    axes = conv_axes(op, job.in_size, job.out_size)
    if mapping.swapped:
        line_axis, stream_axis = axes[1], axes[0]
        line_pitch, stream_pitch = layout.pixel_pitch, layout.row_pitch
        in_lines, in_stream = source.x_end, source.y_end
    else:
        line_axis, stream_axis = axes
        line_pitch, stream_pitch = layout.row_pitch, layout.pixel_pitch
        in_lines, in_stream = source.y_end, source.x_end
    line0 = lines[0] * line_axis.stride - line_axis.pad_before
    stream0 = along[0] * stream_axis.stride - stream_axis.pad_before
    y0, x0 = (stream0, line0) if mapping.swapped else (line0, stream0)
    out_w = along[1] - along[0]
    row_len, extra = stream_axis.stream(along[0], out_w)
    if stream_axis.kernel > LONG_KERNEL or not mapping.fits_command:
        # A pass streams what its own taps need.
        row_len, extra = (out_w - 1) * stream_axis.stride + config.rows, 0
    return Conv(
        mode=int(mapping.mode),
        zero_point=op.input_zero_point,
        act_addr=source.address(y0, x0, job.tiles[0] * config.line_bytes) & ADDRESS_MASK,
        y0=line0,
        x0=stream0 * stream_pitch,
        in_h=in_lines,
        row_bytes=in_stream * stream_pitch,
        row_pitch=line_pitch,
        out_w=out_w,
        out_h=lines[1] - lines[0],
        tile_rows=_tile_rows(job, lines[1] - lines[0], out_w, row_len, config),
        row_len=row_len,
        extra=extra,
        stride_x=stream_axis.stride,
        stride_y=line_axis.stride,
        step_x=stream_pitch,
        step_y=line_axis.stride * line_pitch,
        n_ky=mapping.n_ky,
        ky_rows=mapping.ky_rows,
        step_ky=mapping.ky_rows * line_pitch,
        n_kx=mapping.n_kx,
        step_kx=config.rows * stream_pitch,
        n_ic=1,
        step_ic=0,
        n_oc=job.tiles[1] - job.tiles[0],
        step_oc=config.line_bytes,
    )


def _tile_rows(job: ConvJob, out_h: int, out_w: int, row_len: int, config: NpuConfig) -> int:
    """Choose the rows of an accumulator tile.

    Large tiles mean few starts; but when the array is done, the vector engine still has the last
    tile to empty, which small tiles make short.
    """
    most = min(out_h, config.acc_depth // out_w)
    vector_cycles = (1 if job.add is None else REQUANT_ADD_CYCLES) * config.vector_beats
    n_oc = job.tiles[1] - job.tiles[0]
    passes = job.mapping.passes

    def cost(rows: int) -> float:
        count = ceil_div(out_h, rows)
        stream = max(rows * row_len, config.min_pass_cycles) * passes
        drain = rows * out_w * vector_cycles
        return n_oc * count * (max(stream, drain) + TILE_OVERHEAD_CYCLES) + drain

    heights = {ceil_div(out_h, count) for count in range(ceil_div(out_h, most), out_h + 1)}
    return min((rows for rows in heights if rows <= most), key=lambda rows: (cost(rows), -rows))


def _conv_step(job: ConvJob, conv: Conv, weights: Footprint) -> Step:
    return Step(command=conv, reads=(job.source.footprint, weights), writes=(), layer=job.layer)


def _vector_step(job: ConvJob, block: _Block, param_addr: int, config: NpuConfig) -> Step:
    op, conv, line = job.op, block.conv, config.line_bytes
    n_oc = conv.n_oc
    fields: dict[str, int] = {
        "op": int(VectorOp.REQUANT),
        "rounding": int(op.rounding),
        "n_oc": n_oc,
        "out_h": conv.out_h,
        "out_w": conv.out_w,
        "tile_rows": conv.tile_rows,
        "param_addr": param_addr // line,
        "zero_a": op.output_zero_point,
        "act_min": op.act_min,
        "act_max": op.act_max,
    }
    fields |= _without_idle(_operand("d", job, job.target, block, line), conv)
    if job.add is None and shared_requantisation(op):
        fields |= {"shared": 1, "mult_a": int(op.multiplier[0]), "shift_a": -int(op.shift[0])}
    param_bytes = n_oc * Vector(shared=fields.get("shared", 0)).block_lines * line
    reads = [Footprint(Place.PARAM, param_addr, param_addr + param_bytes)]
    if job.add is not None:
        assert job.other is not None, "a fused ADD has another operand"
        fields |= _fused_add(op, job.add) | _without_idle(
            _operand("b", job, job.other, block, line), conv
        )
        reads.append(job.other.footprint)
    return Step(
        command=Vector(**fields),
        reads=tuple(reads),
        writes=(job.target.footprint,),
        layer=job.layer,
    )


def _operand(name: str, job: ConvJob, slab: Slab, block: _Block, line: int) -> dict[str, int]:
    layout = slab.layout
    y, x = block.line_first, block.first
    pitch_y, pitch_x = layout.row_pitch, layout.pixel_pitch
    if job.mapping.swapped:
        y, x = x, y
        pitch_y, pitch_x = pitch_x, pitch_y
    return {
        f"{name}_addr": slab.address(y, x, job.tiles[0] * line) // line,
        f"{name}_y": pitch_y // line,
        f"{name}_x": pitch_x // line,
    }


def _without_idle(fields: dict[str, int], conv: Conv) -> dict[str, int]:
    """Leave out distances that are never gone and for which the fields have no room."""
    counts = {"x": conv.out_w, "y": conv.out_h}
    return {
        name: 0 if counts.get(name[-1]) == 1 and value > most(Vector, name) else value
        for name, value in fields.items()
    }


def _fused_add(op: ConvOp, add: AddOp) -> dict[str, int]:
    # Addition commutes: the convolution's result is always operand A of the command.
    first = add.input_a == op.output
    mine = (add.zero_point_a, add.multiplier_a, add.shift_a)
    others = (add.zero_point_b, add.multiplier_b, add.shift_b)
    if not first:
        mine, others = others, mine
    assert mine[0] == op.output_zero_point, "the ADD's zero point is its operand's"
    return {
        "op": int(VectorOp.REQUANT_ADD),
        "mid_min": op.act_min,
        "mid_max": op.act_max,
        "zero_b": others[0],
        "zero_out": add.zero_point_out,
        "act_min": add.act_min,
        "act_max": add.act_max,
        "mult_a": mine[1],
        "shift_a": -mine[2],
        "mult_b": others[1],
        "shift_b": -others[2],
        "mult_o": add.multiplier_out,
        "shift_o": -add.shift_out,
    }
