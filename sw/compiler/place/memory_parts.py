"""Parts of a tensor in system memory that are stored where the whole is.

What a concatenation joins, or a PAD surrounds, is stored at once into the result's home, if the
result does not fit on chip: it is not loaded and stored again. Parts are as wide as the result: in
memory, rows follow one another without gaps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.ir import Graph, MoveOp
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.place.storage import HomePlan, TensorTable
from celosia.sw.compiler.place.views import with_boxes
from celosia.sw.compiler.place.windows import Window, part_of
from celosia.sw.compiler.place.works import Work

__all__ = ["StoredParts", "stored_parts", "with_parts"]


@dataclass(frozen=True, kw_only=True)
class StoredParts:
    """How a movement is done whose result is in memory.

    Attributes
    ----------
    whole : str
        The result.
    places : dict of str to Window
        Where the sources are in it that are stored there.
    left : MoveOp or None
        What the load engine brings, and is stored part by part.
    """

    whole: str
    places: dict[str, Window]
    left: MoveOp | None = field(compare=False)

    @property
    def describe(self) -> str:
        """Say it in words, for reports."""
        text = "stored in place"
        return text if self.left is None else f"{text}; load engine, {len(self.left.boxes)} parts"


def stored_parts(
    graph: Graph, works: list[Work], table: TensorTable, resident: set[str]
) -> dict[int, StoredParts]:
    """Return the movements whose parts are stored in place, by the work's index.

    Parameters
    ----------
    graph, works
        Lowered, and its works.
    table : TensorTable
        Their tensors.
    resident : set of str
        Storages on chip.
    """
    io = {*graph.inputs, *graph.outputs}
    alone = Counter(tensor.memory for tensor in table.tensors.values())
    readers: Counter[str] = Counter()
    for work in works:
        if work.kind.placement is Placement.LOADED:
            move = table.moves.get(work.index)
            readers.update(work.inputs if move is None else _sources(move.loaded))
    taken: set[str] = set()
    found: dict[int, StoredParts] = {}
    for work in works:
        whole = table.tensors[work.output]
        if (
            work.kind.movement is None
            or work.index in table.moves
            or whole.chip in resident
            or alone[whole.memory] > 1
            or whole.name in taken
        ):
            continue
        op = work.kind.movement(work.op)
        places: dict[str, Window] = {}
        left: list[Box] = []
        for box in op.boxes:
            name = op.sources[box.source] if box.source < len(op.sources) else ""
            window = part_of(box, graph.hwc(name)) if name else None
            if (
                window is not None
                and _storable(box, whole.layout.width)
                and name not in {*io, *taken, *places}
                # The array takes pixels of whole lines from there.
                and not table.tensors[name].read_in_memory
                and alone[table.tensors[name].memory] == 1
                and readers[name] == 1
            ):
                places[name] = window
            else:
                left.append(box)
        if any(name in places for name in _sources(with_boxes(op, left))):
            continue
        if not places or not all(_storable(box, whole.layout.width) for box in left):
            continue
        taken |= {*places, whole.name}
        found[work.index] = StoredParts(
            whole=whole.name, places=places, left=with_boxes(op, left) if left else None
        )
    return found


def _sources(op: MoveOp | None) -> tuple[str, ...]:
    return () if op is None else op.sources


def _storable(box: Box, width: int) -> bool:
    """Whether a part can be stored by itself: rows as wide as the result."""
    return (box.x, box.width, box.stride_x, box.stride_y) == (0, width, 1, 1)


def with_parts(homes: HomePlan, table: TensorTable, stored: Iterable[StoredParts]) -> HomePlan:
    """Return the homes with those of the parts."""
    found = dict(homes.homes)
    for parts in stored:
        home = found[parts.whole]
        for name, window in parts.places.items():
            layout = table.tensors[name].layout
            found[name] = replace(
                home,
                offset=home.offset + window.y * home.row_pitch + window.c * layout.element_bytes,
                pixel_bytes=layout.pixel_bytes,
                own_bytes=layout.pixel_bytes,
            )
    return replace(homes, homes=found)
