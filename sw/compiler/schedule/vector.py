"""The commands of operators that only the vector engine works for: ADD, pools, tables, softmax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Softmax, Vector, VectorOp
from celosia.sw.compiler.ir import AddOp, PoolOp, SoftmaxOp
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["VectorJob", "add_step", "pool_steps", "softmax_steps", "table_step"]

Range = tuple[int, int]


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


def add_step(op: AddOp, job: VectorJob, config: NpuConfig) -> Step:
    """Return the command of an ADD."""
    a, b = job.sources if len(job.sources) == 2 else job.sources * 2
    fields = {
        "op": int(VectorOp.ADD),
        "zero_a": op.zero_point_a,
        "zero_b": op.zero_point_b,
        "zero_out": op.zero_point_out,
        "act_min": op.act_min,
        "act_max": op.act_max,
        "mult_a": op.multiplier_a,
        "shift_a": -op.shift_a,
        "mult_b": op.multiplier_b,
        "shift_b": -op.shift_b,
        "mult_o": op.multiplier_out,
        "shift_o": -op.shift_out,
    }
    assert op.left_shift == 20, "the vector engine shifts operands by 20 bits"
    return _elementwise(job, {"a": a, "b": b}, fields, config)


def table_step(job: VectorJob, config: NpuConfig) -> Step:
    """Return the command of a table look-up; the table is loaded."""
    fields = {"op": int(VectorOp.TABLE)}
    return _elementwise(job, {"a": job.sources[0]}, fields, config, table=True)


def _elementwise(
    job: VectorJob,
    operands: dict[str, Slab],
    fields: dict[str, int],
    config: NpuConfig,
    *,
    table: bool = False,
) -> Step:
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
        reads.append(Footprint(Place.TABLE, 0, 256 * line))
    return Step(
        command=command, reads=tuple(reads), writes=(job.target.footprint,), layer=job.layer
    )


@dataclass(frozen=True)
class _Clipped:
    """Outputs ``first`` to ``end - 1`` along an axis, whose windows have `taps` pixels inside the
    image, the first window's from `start` on."""

    first: int
    end: int
    start: int
    taps: int


def pool_steps(op: PoolOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    """Yield the commands of a pooling: one for the interior and some for each clipped border."""
    source, line = job.sources[0], config.line_bytes
    in_w = source.layout.width
    for y in _clip(job.rows, op.kernel_h, op.stride_h, op.pad_top, job.in_height):
        for x in _clip((0, job.width), op.kernel_w, op.stride_w, op.pad_left, in_w):
            fields = {
                "op": int(VectorOp.AVERAGE if op.kind == "avg" else VectorOp.MAX),
                "n_oc": job.tiles[1] - job.tiles[0],
                "out_h": y.end - y.first,
                "out_w": x.end - x.first,
                "n_ky": y.taps,
                "n_kx": x.taps,
                "a_addr": source.address(y.start, x.start, job.tiles[0] * line) // line,
                "a_y": op.stride_h * source.layout.row_pitch // line,
                "a_x": op.stride_w * source.layout.pixel_pitch // line,
                "a_ky": source.layout.row_pitch // line,
                "a_kx": source.layout.pixel_pitch // line,
                "d_addr": job.target.address(y.first, x.first, job.tiles[0] * line) // line,
                "d_y": job.target.layout.row_pitch // line,
                "d_x": job.target.layout.pixel_pitch // line,
                "act_min": op.act_min,
                "act_max": op.act_max,
            }
            if op.kind == "avg":
                fields |= _reciprocal(y.taps * x.taps)
            # Steps that are never taken may not fit their fields.
            if fields["out_h"] == 1:
                fields |= {"a_y": 0, "d_y": 0}
            if fields["out_w"] == 1:
                fields |= {"a_x": 0, "d_x": 0}
            yield Step(
                command=Vector(**fields),
                reads=(source.footprint,),
                writes=(job.target.footprint,),
                layer=job.layer,
            )


def _clip(outputs: Range, kernel: int, stride: int, pad_before: int, size: int) -> list[_Clipped]:
    """Group outputs whose windows have the same number of pixels inside, and equal steps."""
    groups: list[_Clipped] = []
    for index in range(*outputs):
        start = index * stride - pad_before
        first, end = max(0, start), min(size, start + kernel)
        last = groups[-1] if groups else None
        if (
            last is not None
            and last.taps == end - first
            and last.start + (index - last.first) * stride == first
        ):
            groups[-1] = _Clipped(last.first, index + 1, last.start, last.taps)
        else:
            groups.append(_Clipped(index, index + 1, first, end - first))
    return groups


def _reciprocal(count: int) -> dict[str, int]:
    """Return how AVERAGE divides by `count` (docs/arithmetic.md)."""
    shift = (count - 1).bit_length()
    return {
        "half": count // 2,
        "mult_o": -(-(1 << (30 + shift)) // count),
        "shift_o": shift,
    }


def softmax_steps(op: SoftmaxOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    """Yield the commands of a softmax; the exponentials are loaded."""
    source, target, line = job.sources[0], job.target, config.line_bytes
    table = Footprint(Place.TABLE, 0, 256 * line)
    height = job.rows[1] - job.rows[0]
    if job.width == 1 or (source.layout.is_dense and target.layout.is_dense):
        # Pixels at equal distances all over the image: one command.
        starts, count = [(job.rows[0], 0)], height * job.width
    else:
        starts, count = [(y, 0) for y in range(*job.rows)], job.width
    column = job.width == 1
    for y, x in starts:
        command = Softmax(
            channels=op.channels,
            n_rows=count,
            a_addr=source.address(y, x) // line,
            a_y=(source.layout.row_pitch if column else source.layout.pixel_pitch) // line,
            d_addr=target.address(y, x) // line,
            d_y=(target.layout.row_pitch if column else target.layout.pixel_pitch) // line,
        )
        yield Step(
            command=command,
            reads=(source.footprint, table),
            writes=(target.footprint,),
            layer=job.layer,
        )
