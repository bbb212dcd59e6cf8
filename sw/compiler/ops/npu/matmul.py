"""Products of matrices: `MatmulOp`, whose second operand the array takes from memory as weights.

::

    sum of (a - za) * (b - zb) = sum of a * b  +  sum of a * (-zb)  +  sum of (-za) * b  +  n za zb

Each sum of products is a `Conv` that goes on in the same accumulator tile (`hold`, `accumulate`):
the first has the matrix as weights, the second weights of -zb alone, the third reads nothing but
padding of value -za. The last term is in the bias. A zero point of 0 costs nothing, one of -128
two commands of half its value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADDRESS_MASK, Conv, Load, Mode, Region, Space, Vector, VectorOp
from celosia.sw.compiler.arithmetic.fixed import INT8_MAX
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, round_up, split
from celosia.sw.compiler.ir import Graph, MatmulOp
from celosia.sw.compiler.ops.npu.checks import bad_clamp, is_int8
from celosia.sw.compiler.ops.npu.job import MatrixJob
from celosia.sw.compiler.ops.npu.kind import Kind
from celosia.sw.compiler.ops.npu.window import with_clamp
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.limits import most
from celosia.sw.compiler.place.mapping import shared_requantisation
from celosia.sw.compiler.schedule.chunks import ChunkLoader
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["MATMUL"]

MAX_PASSES = most(Conv, "n_ic")
MAX_ROWS = most(Conv, "out_h")


def _verify(graph: Graph, op: MatmulOp) -> str | None:
    (height, width, depth), result = graph.hwc(op.input_a), graph.hwc(op.output)
    batches = len(op.a_batches)
    if (op.input_b is None) == (op.constant is None):
        return "it has no second operand, or two"
    if op.constant is not None:
        pixels, columns = op.constant.shape
    else:
        assert op.input_b is not None
        b_height, b_width, columns = graph.hwc(op.input_b)
        pixels = b_height * b_width
    if depth != op.depth or columns != op.cout or result[2] != op.cout:
        return f"{depth} times {op.depth}, {columns} columns for {op.cout}, output {result}"
    if len(op.b_batches) != batches or result[0] * result[1] != batches * op.rows:
        return f"{batches} batches of {op.rows} rows for an output of {result}"
    for what, all_pixels, each, chosen in (
        ("A", height * width, op.rows, op.a_batches),
        ("B", pixels, op.depth, op.b_batches),
    ):
        if all_pixels % each or not 0 <= min(chosen) <= max(chosen) < all_pixels // each:
            return f"{what}: matrices of {each} pixels in {all_pixels}, taken are {chosen}"
    if (op.width_a, op.width) != (width, result[1]) or {width, result[1]} - {1, op.rows}:
        return f"matrices of {op.rows} rows in images of {width} and {result[1]} columns"
    for field in (op.multiplier, op.shift):
        if field.shape != op.bias.shape:
            return f"{field.shape} and {op.bias.shape} channels"
    if np.any(op.multiplier < 0) or np.any(op.shift < -31) or np.any(op.shift > 30):
        return "a multiplier or shift is out of range"
    if not all(map(is_int8, (op.zero_point_a, op.zero_point_b, op.output_zero_point))):
        return "a zero point is out of range"
    return bad_clamp(op.act_min, op.act_max)


def _rows(op: MatmulOp, height: int, rows: Range) -> Range:
    first, end = rows[0] * op.width, rows[1] * op.width
    batches = op.a_batches[first // op.rows : ceil_div(end, op.rows)]
    if len(batches) == 1:
        # Some rows of one matrix.
        offset = (batches[0] - first // op.rows) * op.rows
        pixels = first + offset, end + offset
    else:
        pixels = min(batches) * op.rows, (max(batches) + 1) * op.rows
    return pixels[0] // op.width_a, ceil_div(pixels[1], op.width_a)


# Commands ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sum:
    """One sum of products: what is multiplied with what.

    `padding`: it reads padding of this value instead of A. `weight`: its weights have this value,
    instead of being B.
    """

    padding: int | None = None
    weight: int | None = None


def _sums(op: MatmulOp) -> list[_Sum]:
    return [
        _Sum(),
        *(_Sum(weight=value) for value in _halves(-op.zero_point_b)),
        *(_Sum(padding=value) for value in _halves(-op.zero_point_a)),
    ]


def _halves(value: int) -> list[int]:
    """Return int8 values that add up to one from -127 to 128; those of 128 are equal."""
    if value == 0:
        return []
    return [value] if value <= INT8_MAX else [value // 2] * 2


def folded_bias(op: MatmulOp) -> MatmulOp:
    """Copy an operator with the product of the zero points in its bias."""
    product = op.depth * op.zero_point_a * op.zero_point_b
    bias = (op.bias.astype(np.int64) + product).astype(np.int32)  # wraps, as the accumulator does
    return replace(op, bias=bias)


def _steps(op: MatmulOp, job: MatrixJob, loader: ChunkLoader) -> Iterator[Step]:
    return _Product(folded_bias(op), job, loader).steps()


class _Product:
    """The commands of one part of a product."""

    def __init__(self, op: MatmulOp, job: MatrixJob, loader: ChunkLoader) -> None:
        self.op, self.job, self.loader = op, job, loader
        self.config: NpuConfig = loader.config
        self.sums = _sums(op)
        self.shared = shared_requantisation(op)
        self.matrix_bytes = self.config.rows * self.config.line_bytes
        self.passes = ceil_div(op.depth, self.config.rows)
        self.block_bytes = Vector(shared=self.shared).block_lines * self.config.line_bytes
        constant = any(one.weight is not None for one in self.sums)
        # Half of the memory each, so that the next part is loaded while one is used.
        capacity = loader.wgt_bytes // 2 // self.matrix_bytes
        self.most = min(max(1, capacity // (2 if constant else 1)), MAX_PASSES)
        self.pieces = list(split(self.passes, self.most))
        self.chunk = 1
        if len(self.pieces) == 1:
            blocks = self.config.param_bytes // 2 // self.block_bytes
            self.chunk = max(1, min(capacity // self.passes - constant, blocks))

    def steps(self) -> Iterator[Step]:
        tiles = self.job.tiles
        for batch, rows in self._batches():
            for part in split(tiles[1] - tiles[0], self.chunk):
                chunk = part[0] + tiles[0], part[1] + tiles[0]
                load, param_addr = self.loader.load_blocks(
                    self.job.layer, self.op, chunk, shared=self.shared
                )
                yield load
                if len(self.pieces) == 1:
                    yield from self._whole(batch, rows, chunk, param_addr)
                else:
                    yield from self._in_pieces(batch, rows, chunk, param_addr)

    def _batches(self) -> Iterator[tuple[int, Range]]:
        """Yield each batch of the job and which rows of its matrix."""
        width, rows = self.job.target.layout.width, self.op.rows
        first, end = (row * width for row in self.job.rows)
        for batch in range(first // rows, ceil_div(end, rows)):
            yield batch, (max(first - batch * rows, 0), min(end - batch * rows, rows))

    def _tiles_of(self, rows: Range) -> Iterator[Range]:
        """Yield the rows of each accumulator tile."""
        most_rows = min(self.config.acc_depth, MAX_ROWS)
        count = rows[1] - rows[0]
        for first, end in split(count, ceil_div(count, ceil_div(count, most_rows))):
            yield first + rows[0], end + rows[0]

    def _whole(self, batch: int, rows: Range, chunk: Range, param_addr: int) -> Iterator[Step]:
        """Yield the commands of channel tiles whose weights are on chip together."""
        everything = (0, self.passes)
        loads, weights = self._load(batch, chunk, everything)
        yield from loads
        tile_bytes = self.passes * self.matrix_bytes
        count = chunk[1] - chunk[0]
        together = len(self.sums) == 1
        for some in self._tiles_of(rows):
            for tile in [(0, count)] if together else [(t, t + 1) for t in range(count)]:
                here = chunk[0] + tile[0], chunk[0] + tile[1]
                for index, one in enumerate(self.sums):
                    last = index == len(self.sums) - 1
                    block = count if one.weight is not None else tile[0]
                    address = weights + block * tile_bytes
                    yield self._conv(
                        batch, some, everything, one, address, here, first=index == 0, last=last
                    )
                yield self._vector(batch, some, here, param_addr + tile[0] * self.block_bytes)

    def _in_pieces(self, batch: int, rows: Range, chunk: Range, param_addr: int) -> Iterator[Step]:
        """Yield the commands of one channel tile whose weights come piece by piece."""
        for some in self._tiles_of(rows):
            for piece in self.pieces:
                loads, weights = self._load(batch, chunk, piece)
                yield from loads
                size = (piece[1] - piece[0]) * self.matrix_bytes
                for index, one in enumerate(self.sums):
                    last = index == len(self.sums) - 1 and piece == self.pieces[-1]
                    address = weights + (size if one.weight is not None else 0)
                    first = index == 0 and piece == self.pieces[0]
                    yield self._conv(
                        batch, some, piece, one, address, chunk, first=first, last=last
                    )
            yield self._vector(batch, some, chunk, param_addr)

    # Weights ------------------------------------------------------------------------------------

    def _load(self, batch: int, chunk: Range, piece: Range) -> tuple[list[Step], int]:
        """Return the loads of some passes of channel tiles and of constant weights behind them."""
        op, size, line = self.op, self.config.rows, self.config.line_bytes
        passes, count = piece[1] - piece[0], chunk[1] - chunk[0]
        tile_bytes = passes * self.matrix_bytes
        values = [one.weight for one in self.sums if one.weight is not None]
        address = self.loader.take_weights((count + bool(values)) * tile_bytes)
        first, end = piece[0] * size, min(piece[1] * size, op.depth)
        loads = [self._load_matrix(batch, chunk, (first, end), address, tile_bytes)]
        missing = passes * size - (end - first)
        if missing:
            at = address + (end - first) * line
            loads.append(self._fill(0, missing * line, count, at, tile_bytes))
        if values:
            at = address + count * tile_bytes
            loads.append(self._fill(values[0], self.matrix_bytes, passes, at, self.matrix_bytes))
        return loads, address

    def _load_matrix(
        self, batch: int, chunk: Range, rows: Range, address: int, tile_bytes: int
    ) -> Step:
        op, line, job = self.op, self.config.line_bytes, self.job
        reads: tuple[Footprint, ...] = ()
        if job.home is None:
            pitch = round_up(op.cout, line)
            region, base = Region.CONST, self._place_constant(pitch)
        else:
            pitch, region, base = job.home.pixel_pitch, job.home.region, job.home.offset
            end = base + job.home.size_bytes(job.home_height)
            reads = (Footprint(Place.of_region(region), base, end),)
        assert pitch % line == 0, "the second operand has pixels of whole lines"
        count, height = chunk[1] - chunk[0], rows[1] - rows[0]
        pixel = op.b_batches[batch] * op.depth + rows[0]
        run = {"row_bytes": line, "n1": height, "mem_stride1": pitch, "sram_stride1": line}
        if pitch == line:
            run = {"row_bytes": height * line}
        if count > 1:
            run |= {"n2": count, "mem_stride2": line, "sram_stride2": tile_bytes}
        command = Load(
            region=int(region),
            space=int(Space.WGT),
            mem_addr=base + pixel * pitch + chunk[0] * line,
            sram_addr=address,
            **run,
        )
        written = Footprint(Place.WGT, address, address + count * tile_bytes)
        return Step(command=command, reads=reads, writes=(written,), layer=job.layer)

    def _place_constant(self, pitch: int) -> int:
        """Return the offset of the constant operand, whose pixels are whole lines."""
        constant = self.op.constant
        assert constant is not None, "it has no home"

        def content() -> bytes:
            padded = np.zeros((constant.shape[0], pitch), np.int8)
            padded[:, : constant.shape[1]] = constant
            return padded.tobytes()

        return self.loader.pool.place(("matrix", self.job.layer), content)[0]

    def _fill(self, value: int, run: int, count: int, address: int, stride: int) -> Step:
        """Return the load of runs of one value."""
        content = bytes([value & 0xFF]) * run
        offset, _ = self.loader.pool.place(("value", value, run), lambda: content)
        command = Load(
            region=int(Region.CONST),
            space=int(Space.WGT),
            mem_addr=offset,
            sram_addr=address,
            row_bytes=run,
            n1=count,
            sram_stride1=stride,
        )
        written = Footprint(Place.WGT, address, address + (count - 1) * stride + run)
        return Step(command=command, reads=(), writes=(written,), layer=self.job.layer)

    # Sums ---------------------------------------------------------------------------------------

    def _conv(
        self,
        batch: int,
        rows: Range,
        piece: Range,
        one: _Sum,
        address: int,
        tiles: Range,
        *,
        first: bool,
        last: bool,
    ) -> Step:
        op, line, job = self.op, self.config.line_bytes, self.job
        pixel = op.a_batches[batch] * op.rows + rows[0]
        start, pitch = _pixel(job.source, pixel)
        at = piece[0] * line
        height, count = rows[1] - rows[0], tiles[1] - tiles[0]
        command = Conv(
            mode=int(Mode.WINDOW),
            accumulate=int(not first),
            hold=int(not last),
            # Bytes behind a pixel's channels are padding: they add nothing, whatever they hold.
            zero_point=one.padding or 0,
            act_addr=(start + at) & ADDRESS_MASK,
            x0=at,
            in_h=0 if one.padding is not None else height,
            row_bytes=op.depth,
            row_pitch=pitch,
            out_w=1,
            out_h=height,
            tile_rows=height,
            row_len=1,
            stride_x=1,
            stride_y=1,
            step_x=pitch,
            step_y=pitch,
            n_ky=1,
            ky_rows=1,
            step_ky=pitch,
            n_kx=1,
            step_kx=pitch,
            n_ic=piece[1] - piece[0],
            step_ic=line,
            n_oc=count,
            wgt_addr=address // line,
        )
        size = count * (piece[1] - piece[0]) * self.matrix_bytes
        weights = Footprint(Place.WGT, address, address + size)
        return Step(
            command=command, reads=(job.source.footprint, weights), writes=(), layer=job.layer
        )

    def _vector(self, batch: int, rows: Range, tiles: Range, param_addr: int) -> Step:
        op, line, job = self.op, self.config.line_bytes, self.job
        pixel = batch * op.rows + rows[0]
        channel = tiles[0] * line
        start, pitch = _pixel(job.target, pixel, channel)
        fields = {"shared": 1, "mult_a": int(op.multiplier[0]), "shift_a": -int(op.shift[0])}
        count = tiles[1] - tiles[0]
        command = Vector(
            op=int(VectorOp.REQUANT),
            rounding=int(op.rounding),
            n_oc=count,
            out_h=rows[1] - rows[0],
            out_w=1,
            tile_rows=rows[1] - rows[0],
            param_addr=param_addr // line,
            zero_a=op.output_zero_point,
            act_min=op.act_min,
            act_max=op.act_max,
            d_addr=start // line,
            d_y=pitch // line,
            d_x=pitch // line,
            **(fields if self.shared else {}),
        )
        blocks = Footprint(Place.PARAM, param_addr, param_addr + count * self.block_bytes)
        return Step(
            command=command,
            reads=(blocks,),
            writes=(job.target.footprint,),
            layer=job.layer,
        )


def _pixel(slab: Slab, pixel: int, channel: int | None = None) -> tuple[int, int]:
    """Return the byte address of a pixel, counted row by row, and the distance to the next."""
    layout = slab.layout
    y, x = divmod(pixel, layout.width)
    pitch = layout.row_pitch if layout.width == 1 else layout.pixel_pitch
    return slab.address(y, x, channel), pitch


MATMUL = Kind(
    op=MatmulOp,
    where="array",
    verify=_verify,
    channelwise=lambda graph, op: False,
    clamp=with_clamp,
    rows=_rows,
    multiply=_steps,
    in_memory=(1,),
    with_input=lambda op, place, name: replace(op, input_b=name),
    reason=lambda op: (
        f"{len(op.a_batches)} x {op.rows}x{op.depth} times {op.depth}x{op.cout},"
        f" {len(_sums(op))} sums"
    ),
)
