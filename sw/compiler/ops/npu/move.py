"""Movements of elements: `MoveOp`, which the load engine does from system memory.

The inputs are dense in memory, the output is on chip: a run of bytes is one turn of a `Load`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from celosia.hw.contract.isa import Load, Region, Space
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.arithmetic.whole import split
from celosia.sw.compiler.ir import Graph, MoveOp
from celosia.sw.compiler.ops.npu.job import LoadJob
from celosia.sw.compiler.ops.npu.kind import Kind, Placement, same_positions
from celosia.sw.compiler.place.limits import most
from celosia.sw.compiler.schedule.constants import ConstantPool
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["MOVE"]

MOST_INNER, MOST_OUTER = most(Load, "n1"), most(Load, "n2")

MOST_BOXES = 1 << 12
"""Parts of a movement of several samples, of which each takes a command at least."""

Loop = tuple[int, int, int]
"""Turns, bytes from turn to turn in memory, and on chip."""


def _verify(graph: Graph, op: MoveOp) -> str | None:
    height, width, channels = graph.hwc(op.output)
    for name in op.sources:
        if graph.tensors[name].scale != graph.tensors[op.output].scale:
            return f"{name!r} has another scale than {op.output!r}"
        if graph.tensors[name].zero_point != graph.tensors[op.output].zero_point:
            return f"{name!r} has another zero point than {op.output!r}"
    covered = 0
    for box in op.boxes:
        covered += box.height * box.width * box.channels
        inside = box.y + (box.height - 1) * box.stride_y < height
        inside = inside and box.x + (box.width - 1) * box.stride_x < width
        if not inside or box.c + box.channels > channels:
            return f"{box} is outside of {height}x{width}x{channels}"
        if not 0 <= box.source <= len(op.sources):
            return f"source {box.source} of {len(op.sources)}"
        size = (
            graph.tensors[op.sources[box.source]].elements
            if box.source < len(op.sources)
            else len(op.constants)
        )
        low, high = box.span
        if low < 0 or high >= size:
            return f"{box} is outside of a source of {size} elements"
    elements = graph.tensors[op.output].elements
    return None if covered == elements else f"{covered} of {elements} elements"


def _load(op: MoveOp, job: LoadJob, constants: ConstantPool) -> Iterator[Step]:
    fixed = 0
    if op.constants:
        fixed, _ = constants.place(("move", job.layer), lambda: op.constants)
    for whole in op.boxes:
        box = whole.part(job.rows, job.columns, job.channels)
        if box is None:
            continue
        if box.source < len(op.sources):
            home = job.homes[box.source]
            region, base = home.region, home.offset
            place = Place.of_region(region)
            end = base + home.size_bytes(job.images[box.source][0])
            reads: tuple[Footprint, ...] = (Footprint(place, base, end),)
        else:
            region, base, reads = Region.CONST, fixed, ()
        for offset, target, run, loops in _runs(box, job):
            (n1, mem1, chip1), (n2, mem2, chip2) = loops
            command = Load(
                region=int(region),
                space=int(Space.ACT),
                mem_addr=base + offset,
                sram_addr=target,
                row_bytes=run,
                n1=n1,
                mem_stride1=mem1,
                sram_stride1=chip1,
                n2=n2,
                mem_stride2=mem2,
                sram_stride2=chip2,
            )
            yield Step(
                command=command, reads=reads, writes=(job.target.footprint,), layer=job.layer
            )


def _runs(box: Box, job: LoadJob) -> Iterator[tuple[int, int, int, tuple[Loop, Loop]]]:
    """Yield byte of the source, address on chip, bytes of a run and two loops for each command."""
    layout = job.target.layout
    loops: list[Loop] = [
        (box.channels, box.step_c, 1),
        (box.width, box.step_x, box.stride_x * layout.pixel_pitch),
        (box.height, box.step_y, box.stride_y * layout.row_pitch),
    ]
    run = 1
    # What is side by side in both places is one run.
    while loops and (loops[0][0] == 1 or loops[0][1:] == (run, run)):
        run *= loops.pop(0)[0]
    loops = _joined([loop for loop in loops if loop[0] > 1])
    target = job.target.address(box.y, box.x, box.c)
    yield from _commands(box.offset, target, run, loops)


def _joined(loops: list[Loop]) -> list[Loop]:
    """Make one loop of two where the second goes on as the first does."""
    joined: list[Loop] = []
    for count, memory, chip in loops:
        if joined:
            turns, inner_memory, inner_chip = joined[-1]
            if (memory, chip) == (turns * inner_memory, turns * inner_chip):
                joined[-1] = (turns * count, inner_memory, inner_chip)
                continue
        joined.append((count, memory, chip))
    return joined


def _commands(
    offset: int, target: int, run: int, loops: list[Loop]
) -> Iterator[tuple[int, int, int, tuple[Loop, Loop]]]:
    """Yield commands: of more than two loops, or more turns than they count, several."""
    ordered = sorted(loops, reverse=True)
    if len(ordered) > 2:
        count, memory, chip = ordered[-1]
        for turn in range(count):
            yield from _commands(offset + turn * memory, target + turn * chip, run, ordered[:-1])
        return
    inner, outer = (*ordered, (1, 0, 0), (1, 0, 0))[:2]
    for first1, end1 in split(inner[0], MOST_INNER):
        for first2, end2 in split(outer[0], MOST_OUTER):
            yield (
                offset + first1 * inner[1] + first2 * outer[1],
                target + first1 * inner[2] + first2 * outer[2],
                run,
                ((end1 - first1, *inner[1:]), (end2 - first2, *outer[1:])),
            )


def _stack(graph: Graph, op: MoveOp, samples: int) -> MoveOp | None:
    if samples * len(op.boxes) > MOST_BOXES:
        return None
    height = graph.hwc(op.output)[0]
    sizes = [graph.tensors[name].elements for name in op.sources]
    sizes.append(0)  # the constants are those of all samples
    boxes = tuple(
        replace(box, y=box.y + sample * height, offset=box.offset + sample * sizes[box.source])
        for sample in range(samples)
        for box in op.boxes
    )
    return replace(op, boxes=boxes)


MOVE = Kind(
    op=MoveOp,
    where="load engine",
    verify=_verify,
    channelwise=lambda graph, op: False,
    placement=Placement.LOADED,
    columns=same_positions,
    load=_load,
    stack=_stack,
    movement=lambda op: op,
    reason=lambda op: f"load engine, {len(op.boxes)} parts",
)
