"""The commands of a rectangle of a convolution's outputs: `Conv`, and `Vector` behind it.

Both see outputs as lines of vectors, which are rows, or columns where the mapping swaps them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADDRESS_MASK, Conv, Mode, Vector, VectorOp
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.compiler.ir import AddOp, ConvOp
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.limits import most
from celosia.sw.compiler.place.mapping import (
    ConvMapping,
    conv_axes,
    shared_requantisation,
)
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["Block", "ConvJob", "conv_command", "conv_step", "vector_step"]

TILE_OVERHEAD_CYCLES = 8
"""Guess of what starting an accumulator tile costs; only used to choose the size of tiles."""
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

    @property
    def shared(self) -> bool:
        """Whether parameter blocks are biases only; see `Vector.shared`."""
        return self.add is None and shared_requantisation(self.op)

    def parameter_bytes(self, config: NpuConfig) -> int:
        """Bytes of the parameters of a tile of output channels."""
        return Vector(shared=int(self.shared)).block_lines * config.line_bytes


@dataclass(frozen=True)
class Block:
    """A rectangle of outputs as the engines see it: lines of vectors (swapped: columns).

    Attributes
    ----------
    conv : Conv
        Its command, without the weights' address.
    line_first, line_end : int
        Its lines, of the output's.
    first, end : int
        Its vectors in each of them, of the output's.
    """

    conv: Conv
    line_first: int
    line_end: int
    first: int
    end: int


def conv_command(job: ConvJob, lines: Range, along: Range, config: NpuConfig) -> Conv:
    """Return the command of some lines of outputs and a part of them, without its weights' address.

    Its fields may be larger than they have room for: what is computed of it is cut.
    """
    if job.mapping.mode == Mode.JOINED:
        return _joined_conv(job, _window_conv(job, lines, along, config))
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


def _joined_conv(job: ConvJob, conv: Conv) -> Conv:
    """Return the command whose passes take bytes of two kernel rows."""
    mapping = job.mapping
    row_bytes, pitch = mapping.reach_bytes, job.source.layout.row_pitch
    return replace(
        conv,
        mode=int(Mode.JOINED),
        row_pitch=pitch - row_bytes,
        step_ky=pitch,
        step_kx=row_bytes,
        step_ic=mapping.run_bytes,
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
        # Behind a kernel's last row a pass has rows without weights: none of them is read.
        needed = kind_of(op).rows(op, job.in_size[0], lines)
        in_lines, in_stream = min(needed[1], source.y_end), source.x_end
    line0 = lines[0] * line_axis.stride - line_axis.pad_before
    stream0 = along[0] * stream_axis.stride - stream_axis.pad_before
    y0, x0 = (stream0, line0) if mapping.swapped else (line0, stream0)
    out_w = along[1] - along[0]
    row_len, extra = stream_axis.of_pass(along[0], out_w, config.rows)
    if not mapping.fits_command:
        # Each pass has commands of its own.
        row_len, extra = stream_axis.of_taps(out_w, config.rows), 0
    phases = mapping.phases
    if phases > 1:
        row_len, extra = out_w - 1 + ceil_div(stream_axis.kernel, phases), 0
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
        stride_x=stream_axis.stride // phases,
        stride_y=line_axis.stride,
        step_x=phases * stream_pitch,
        step_y=line_axis.stride * line_pitch,
        n_ky=mapping.n_ky,
        ky_rows=mapping.ky_rows,
        step_ky=mapping.ky_rows * line_pitch,
        n_kx=mapping.n_kx,
        step_kx=stream_pitch if phases > 1 else config.rows * stream_pitch,
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


def conv_step(
    job: ConvJob,
    conv: Conv,
    weights: Footprint,
    block: Block | None = None,
    depth: Range | None = None,
) -> Step:
    """Return the step of a command of a job that reads these weights.

    Parameters
    ----------
    job : ConvJob
    conv : Conv
        The command.
    weights : Footprint
        What it reads of them.
    block : Block, optional
        Its outputs; by default all of the job's.
    depth : (int, int), optional
        Lines of a pixel's channels that it reads; by default all.
    """
    source = job.source
    if source.grid is not None:
        line = source.grid.line_bytes
        if not Mode(conv.mode).windows:
            source = source.channels(job.tiles[0] * line, job.tiles[1] * line)
        elif depth is not None and not job.mapping.packed:
            source = source.channels(depth[0] * line, depth[1] * line)
        if block is not None and not job.mapping.swapped:
            kind = kind_of(job.op)
            rows = kind.rows(job.op, job.in_size[0], (block.line_first, block.line_end))
            source = source.rows(max(rows[0], source.y_first), min(rows[1], source.y_end))
    return Step(command=conv, reads=(source.footprint, weights), writes=(), layer=job.layer)


def vector_step(job: ConvJob, block: Block, param_addr: int, config: NpuConfig) -> Step:
    """Return the command that empties a block's accumulator tiles.

    Parameters
    ----------
    job, block
        What is computed.
    param_addr : int
        Byte address of the parameters of the job's first channel tile.
    config : NpuConfig
        The machine.
    """
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
    if job.shared:
        fields |= {"shared": 1, "mult_a": int(op.multiplier[0]), "shift_a": -int(op.shift[0])}
    param_bytes = n_oc * Vector(shared=fields.get("shared", 0)).block_lines * line
    reads = [Footprint(Place.PARAM, param_addr, param_addr + param_bytes)]
    if job.add is not None:
        assert job.other is not None, "a fused ADD has another operand"
        fields |= _fused_add(op, job.add) | _without_idle(
            _operand("b", job, job.other, block, line), conv
        )
        reads.append(_part_of(job.other, job, block))
    return Step(
        command=Vector(**fields),
        reads=tuple(reads),
        writes=(_part_of(job.target, job, block),),
        layer=job.layer,
    )


def _part_of(slab: Slab, job: ConvJob, block: Block) -> Footprint:
    """Return what a block has of a slab with the output's pixels."""
    if slab.grid is None:
        return slab.footprint
    line = slab.grid.line_bytes
    part = slab.channels(job.tiles[0] * line, job.tiles[1] * line)
    if not job.mapping.swapped:
        part = part.rows(block.line_first, block.line_end)
    return part.footprint


def _operand(name: str, job: ConvJob, slab: Slab, block: Block, line: int) -> dict[str, int]:
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
