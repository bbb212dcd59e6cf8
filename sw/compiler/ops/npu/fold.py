"""Loads of a graph input folded: `FoldOp`, which the load engine does.

`celosia.sw.compiler.passes.fold_input` says what folding is and when it pays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from celosia.hw.contract.isa import Load, Region, Space
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.compiler.ir import Graph, NpuOp
from celosia.sw.compiler.ops.npu.checks import is_int8
from celosia.sw.compiler.ops.npu.job import LoadJob
from celosia.sw.compiler.ops.npu.kind import Kind, Placement
from celosia.sw.compiler.schedule.constants import ConstantPool
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["FOLD", "FoldOp", "Folding", "Run", "fold_runs"]


@dataclass(frozen=True)
class Folding:
    """The parameters R, F and P, and the size of the result."""

    rows: int
    row_step: int
    pixels: int
    height: int
    width: int
    channels: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the folded image."""
        return self.height * self.width * self.channels


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldOp(NpuOp):
    """Loads a graph input folded.

    Attributes
    ----------
    input : str
        The graph input, in memory.
    folding : Folding
        How.
    pad_top, pad_left, zero_point : int
        Padding of the convolution.
    """

    input: str
    folding: Folding
    pad_top: int
    pad_left: int
    zero_point: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True)
class Run:
    """A strided transfer: `height` times `count` runs of `size_bytes`.

    Attributes
    ----------
    source : int
        Byte of the first run in the dense image; its steps follow from the folding.
    target : int
        Byte of the first run in the folded image.
    """

    source: int
    target: int
    size_bytes: int
    count: int
    height: int


def fold_runs(op: FoldOp, image: tuple[int, int, int], rows: Range | None = None) -> Iterator[Run]:
    """Yield the transfers of a fold; what they leave out is padding.

    Parameters
    ----------
    op : FoldOp
        The fold.
    image : tuple of int
        Height, width and channels of the input.
    rows : (int, int), optional
        Folded rows to load; by default all.
    """
    folding = op.folding
    height, width, channels = image
    begin, limit = rows or (0, folding.height)
    for r in range(folding.rows):
        # Folded rows whose image row s * F - pad_top + r exists.
        first = max(begin, ceil_div(op.pad_top - r, folding.row_step))
        end = min(limit, ceil_div(height + op.pad_top - r, folding.row_step))
        if first >= end:
            continue
        y = first * folding.row_step - op.pad_top + r
        for j_first, j_end, p_first, p_end in _columns(folding, op.pad_left, width):
            x = j_first * folding.pixels - op.pad_left + p_first
            place = (first * folding.width + j_first) * folding.channels
            yield Run(
                source=(y * width + x) * channels,
                target=place + (r * folding.pixels + p_first) * channels,
                size_bytes=(p_end - p_first) * channels,
                count=j_end - j_first,
                height=end - first,
            )


def _columns(folding: Folding, pad_left: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield ranges of folded pixels with the range of their P pixels that is in the image."""
    last: tuple[int, int, int, int] | None = None
    for j in range(folding.width):
        start = j * folding.pixels - pad_left
        p_first, p_end = max(0, -start), min(folding.pixels, width - start)
        if p_first >= p_end:
            continue
        if last is not None and last[2:] == (p_first, p_end):
            last = (last[0], j + 1, p_first, p_end)
            continue
        if last is not None:
            yield last
        last = (j, j + 1, p_first, p_end)
    if last is not None:
        yield last


def _load(op: FoldOp, job: LoadJob, constants: ConstantPool) -> Iterator[Step]:
    """Yield the commands: the target filled with the zero point, then the image."""
    (image,), (home,), target, layer = job.images, job.homes, job.target, job.layer
    size_bytes = op.folding.size_bytes
    fill_offset, _ = constants.place(
        ("fill", layer), lambda: bytes([op.zero_point & 0xFF]) * size_bytes
    )
    folding, channels = op.folding, image[2]
    pitch = folding.width * folding.channels
    fill = Load(
        region=int(Region.CONST),
        space=int(Space.ACT),
        mem_addr=fill_offset,
        sram_addr=target.base,
        row_bytes=(job.rows[1] - job.rows[0]) * pitch,
    )
    yield Step(command=fill, reads=(), writes=(target.footprint,), layer=layer)
    row_bytes = image[1] * channels
    place = Place.of_region(home.region)
    memory = Footprint(place, home.offset, home.offset + image[0] * row_bytes)
    for run in fold_runs(op, image, job.rows):
        command = Load(
            region=int(home.region),
            space=int(Space.ACT),
            mem_addr=home.offset + run.source,
            sram_addr=target.base + run.target - job.rows[0] * pitch,
            row_bytes=run.size_bytes,
            n1=run.count,
            mem_stride1=folding.pixels * channels,
            sram_stride1=folding.channels,
            n2=run.height,
            mem_stride2=folding.row_step * row_bytes,
            sram_stride2=pitch,
        )
        yield Step(command=command, reads=(memory,), writes=(target.footprint,), layer=layer)


def _verify(graph: Graph, op: FoldOp) -> str | None:
    folding = op.folding
    size = (folding.height, folding.width, folding.channels)
    if size != graph.hwc(op.output):
        return f"folds to {size}, output is {graph.hwc(op.output)}"
    if op.input not in graph.inputs:
        return f"{op.input!r} is no input of the model"
    return None if is_int8(op.zero_point) else "a zero point is out of range"


FOLD = Kind(
    op=FoldOp,
    where="load engine",
    verify=_verify,
    channelwise=lambda graph, op: False,
    placement=Placement.LOADED,
    packed=True,
    load=_load,
    reason=lambda op: f"loaded folded, {op.folding.rows} rows x {op.folding.pixels} pixels",
)
