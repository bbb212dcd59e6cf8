"""Which tensors share bytes, how each is laid out, and where it lives in system memory.

A RESHAPE moves no byte when its two tensors have the same bytes in the same places. On chip that is
so when both are whole lines without gaps (or the same image); in memory it is always so once both
are dense. A RESHAPE whose tensors differ on chip therefore goes through memory.

Other tensors are windows of a larger one, and so share its storage too (`views`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Region
from celosia.sw.compiler.arithmetic.whole import round_up
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.place.layout import ActLayout, Grid, MemoryHome, act_layout
from celosia.sw.compiler.place.views import MovePlan, Sharing, share
from celosia.sw.compiler.place.works import Work

__all__ = ["HomePlan", "Storage", "TensorLayout", "TensorTable", "layout_tensors", "plan_homes"]

COLUMNS_GAIN = 0.95
"""A larger pixel pitch takes memory: it has to save this much of the positions streamed."""
PACKED_PIXELS = 2
"""So many pixels of a packed tensor fit on chip."""
MEMORY_ALIGNMENT_BYTES = 16
"""Tensors in memory start at multiples of the widest bus word."""


@dataclass(frozen=True)
class TensorLayout:
    """One tensor of the graph: its image, its bytes on chip, and the groups it shares bytes with.

    Attributes
    ----------
    height, layout
        Rows, and their place on chip.
    chip : str
        Name of the storage on chip.
    memory : str
        Name of the storage in memory.
    dense_memory : bool
        Whether its pixels follow one another there without padding.
    read_in_memory : bool
        Whether an operator takes it from there.
    offset : int
        Bytes from the beginning of the storage on chip.
    grid : Grid or None
        The pixels of the storage on chip, if tensors are windows of it.
    """

    name: str
    height: int
    layout: ActLayout
    chip: str
    memory: str
    dense_memory: bool
    read_in_memory: bool
    offset: int = 0
    grid: Grid | None = None

    @property
    def chip_bytes(self) -> int:
        """Bytes on chip."""
        return self.layout.size_bytes(self.height)


@dataclass(frozen=True)
class Storage:
    """Tensors that share bytes on chip, and the works between which they are alive.

    Attributes
    ----------
    windows : bool
        Whether tensors are windows of others.
    """

    name: str
    tensors: tuple[str, ...]
    size_bytes: int
    first: int
    last: int
    windows: bool = False


@dataclass(frozen=True)
class TensorTable:
    """All tensors that the works touch.

    Attributes
    ----------
    tensors : dict of str to TensorLayout
        By name.
    storages : dict of str to Storage
        On-chip storages by name.
    moves : dict of int to MovePlan
        How movements are done, by the work's index; the others are loaded as a whole.
    """

    tensors: dict[str, TensorLayout]
    storages: dict[str, Storage]
    moves: dict[int, MovePlan]


@dataclass(frozen=True)
class HomePlan:
    """Where tensors are in system memory.

    Attributes
    ----------
    homes : dict of str to MemoryHome
        By tensor, for those that have one.
    io_bytes, scratch_bytes : int
        Sizes of the two regions.
    """

    homes: dict[str, MemoryHome]
    io_bytes: int
    scratch_bytes: int


def layout_tensors(
    graph: Graph,
    works: list[Work],
    config: NpuConfig,
    *,
    sharing: Sharing = Sharing.NONE,
    refused: frozenset[int] = frozenset(),
) -> TensorTable:
    """Decide layouts and which tensors share storage.

    Parameters
    ----------
    graph : Graph
        Lowered.
    works : list of Work
        From `works_of`.
    config : NpuConfig
        The machine.
    sharing : Sharing
        What movements may do.
    refused : frozenset of int
        Indices of works whose movement goes through memory nevertheless.
    """
    names = list(dict.fromkeys([*graph.inputs, *(n for w in works for n in (*w.inputs, w.output))]))
    consumers: dict[str, list[Work]] = {name: [] for name in names}
    producer: dict[str, int] = {}
    for work in works:
        producer[work.output] = work.index
        for name in work.inputs:
            consumers[name].append(work)
    from_memory = {work.inputs[place] for work in works for place in work.in_memory}
    reshapes = [work for work in works if work.kind.placement is Placement.VIEW]
    odd = {name for name in names if _wants_odd_rows(graph, name, consumers[name], config)}
    columns = {name for name in names if _wants_odd_pixels(graph, name, consumers[name], config)}
    odd -= columns
    for work in reshapes:
        # Views of one another have no gaps; rows of an even number of lines use mode TAPS then.
        odd -= {work.inputs[0], work.output}
        columns -= {work.inputs[0], work.output}
    packed = {
        name
        for name in graph.inputs
        if _may_pack(name, consumers[name], graph)
        # A pixel that does not fit is summed up in parts of whole lines.
        and PACKED_PIXELS * graph.hwc(name)[2] <= config.act_bytes
    }
    packed |= {work.output for work in works if work.kind.packed}

    joined = {name: _joined_bytes(graph, name, consumers[name], config) for name in packed}

    def natural(name: str, odd_rows: bool) -> ActLayout:
        _, width, channels = graph.hwc(name)
        return act_layout(
            width,
            channels,
            config.line_bytes,
            packed=name in packed,
            odd_rows=odd_rows,
            odd_pixels=name in columns,
            joined_bytes=joined.get(name, 0),
            element_bytes=graph.tensors[name].element_bytes,
        )

    layouts = {name: natural(name, name in odd) for name in names}
    chip = {name: name for name in names}
    memory = {name: name for name in names}
    dense: set[str] = set()
    same = []
    variables = {variable.after for variable in graph.state}
    holding = set(variables)
    """Storages in memory that hold a variable's value after the run."""
    for work in reshapes:
        source, result = work.inputs[0], work.output
        root = _root(memory, source)
        both_io = root in graph.inputs and result in graph.outputs
        if both_io:
            continue
        if root in holding and result in variables:
            # Each variable has a place of its own.
            dense |= {source, result}
            continue
        if result in variables:
            holding.add(root)
        memory[result] = source
        if _same_bytes(graph, layouts, source, result):
            chip[result] = source
            same.append((source, result))
        else:
            dense |= {source, result}
    views = share(graph, works, config, same, natural, odd, sharing=sharing, refused=refused)
    # What the load engine brings into another form, it reads by the byte.
    for work in works:
        if work.kind.placement is Placement.LOADED:
            move = views.moves.get(work.index)
            if move is None:
                dense |= set(work.inputs)
            elif move.loaded is not None:
                dense |= set(move.loaded.sources)
    # Density is a property of the whole storage: all of its views are dense or none.
    dense_roots = {_root(memory, name) for name in dense}
    tensors = {}
    for name in names:
        tensors[name] = TensorLayout(
            name=name,
            height=graph.hwc(name)[0],
            layout=layouts[name],
            chip=_root(chip, name),
            memory=_root(memory, name),
            dense_memory=_root(memory, name) in dense_roots,
            read_in_memory=name in from_memory,
        )
    for name, seat in views.seats.items():
        whole = views.seats[seat.root].layout
        tensors[name] = replace(
            tensors[name],
            layout=seat.layout,
            chip=seat.root,
            offset=seat.offset,
            grid=Grid(whole.row_pitch, whole.pixel_pitch, config.line_bytes),
        )
    storages = {}
    for root in dict.fromkeys(t.chip for t in tensors.values()):
        members = tuple(name for name in names if tensors[name].chip == root)
        windows = tensors[root].grid is not None
        born = [producer[name] for name in members if name in producer]
        used = [work.index for name in members for work in consumers[name] if name in work.on_chip]
        first = min([*born, *used], default=0)
        if root not in producer:
            first = min(used, default=0)
        sizes = [tensors[n].chip_bytes for n in ((root,) if windows else members)]
        storages[root] = Storage(
            name=root,
            tensors=members,
            size_bytes=round_up(max(sizes), config.line_bytes),
            first=first,
            last=max([*born, *used], default=0),
            windows=windows,
        )
    return TensorTable(tensors, storages, views.moves)


def plan_homes(
    graph: Graph, works: list[Work], table: TensorTable, config: NpuConfig, in_memory: set[str]
) -> HomePlan:
    """Give every tensor of `in_memory`, and the graph's inputs and outputs, a place in memory.

    Parameters
    ----------
    in_memory : set of str
        Tensors that have to be in memory.

    Returns
    -------
    HomePlan
        Inputs and outputs dense in region IO, the others in SCRATCH without reuse. A variable's
        value before the run comes first in IO, and its value after the run is at the same place of
        SCRATCH: the device exchanges the two regions from run to run.
    """
    names = [n for n in table.tensors if n in in_memory]
    homes: dict[str, MemoryHome] = {}
    offsets: dict[str, tuple[Region, int, bool]] = {}
    sizes = {Region.IO: 0, Region.SCRATCH: 0}

    def place(name: str, region: Region, *, dense: bool) -> None:
        tensor = table.tensors[name]
        if tensor.memory not in offsets:
            dense = dense or tensor.dense_memory
            offsets[tensor.memory] = (region, sizes[region], dense)
            views = [t for t in table.tensors.values() if t.memory == tensor.memory]
            size = max(
                t.height * t.layout.width * _pixel_pitch(t, config, dense=dense) for t in views
            )
            sizes[region] += round_up(size, MEMORY_ALIGNMENT_BYTES)
        region, offset, dense = offsets[tensor.memory]
        homes[name] = MemoryHome(
            region=region,
            offset=offset,
            width=tensor.layout.width,
            pixel_bytes=tensor.layout.pixel_bytes,
            pixel_pitch=_pixel_pitch(tensor, config, dense=dense),
        )

    for variable in graph.state:
        sizes[Region.IO] = sizes[Region.SCRATCH] = max(sizes.values())
        place(variable.before, Region.IO, dense=True)
        place(variable.after, Region.SCRATCH, dense=True)
    for name in dict.fromkeys([*graph.inputs, *graph.outputs]):
        if name in table.tensors:
            place(name, Region.IO, dense=True)
    for name in names:
        place(name, Region.SCRATCH, dense=False)
    # Views of a tensor in memory are in memory too.
    for name, tensor in table.tensors.items():
        if tensor.memory in offsets:
            place(name, Region.SCRATCH, dense=False)
    return HomePlan(homes, sizes[Region.IO], sizes[Region.SCRATCH])


def _pixel_pitch(tensor: TensorLayout, config: NpuConfig, *, dense: bool) -> int:
    pixel_bytes = tensor.layout.pixel_bytes
    return pixel_bytes if dense else round_up(pixel_bytes, config.line_bytes)


def _root(parents: dict[str, str], name: str) -> str:
    while parents[name] != name:
        name = parents[name]
    return name


def _same_bytes(graph: Graph, layouts: dict[str, ActLayout], source: str, result: str) -> bool:
    if graph.hwc(source) == graph.hwc(result):
        return layouts[source] == layouts[result]
    return all(
        layouts[name].is_dense and layouts[name].pixel_pitch == layouts[name].pixel_bytes
        for name in (source, result)
    )


def _wants_odd_rows(graph: Graph, name: str, consumers: list[Work], config: NpuConfig) -> bool:
    """Whether a reader gains from rows of an odd number of lines."""
    return graph.hwc(name)[1] > 1 and any(
        (wishes := work.kind.input_layout) is not None
        and name == work.inputs[0]
        and wishes.odd_rows(work.op, config)
        for work in consumers
    )


def _wants_odd_pixels(graph: Graph, name: str, consumers: list[Work], config: NpuConfig) -> bool:
    """Whether readers gain, taken together, by streaming along the columns.

    Every row of a stream pays for its padding, so the longer axis should stream. Other readers and
    the writer do not mind the larger pitch, but memory does.
    """
    height, width, _ = graph.hwc(name)
    if width == 1 or name in graph.inputs or name in graph.outputs:
        return False
    rows_cost = columns_cost = 0.0
    for work in consumers:
        wishes = work.kind.input_layout
        if wishes is None or name != work.inputs[0]:
            continue
        out_size = graph.hwc(work.op.output)[:2]
        costs = wishes.stream_costs(work.op, (height, width), out_size, config)
        rows_cost += costs[0]
        columns_cost += costs[1]
    return columns_cost < COLUMNS_GAIN * rows_cost


def _joined_bytes(graph: Graph, name: str, consumers: list[Work], config: NpuConfig) -> int:
    """Return the bytes of the kernel rows that readers of a loaded tensor would join; 0: none."""
    wanted = {
        wishes.joined_bytes(work.op, graph.hwc(name)[2], config)
        for work in consumers
        if (wishes := work.kind.input_layout) is not None
    }
    return wanted.pop() if name in graph.inputs and len(wanted) == 1 else 0


def _may_pack(name: str, consumers: list[Work], graph: Graph) -> bool:
    """Whether all readers can read pixels that follow one another without padding."""
    return (
        name not in graph.outputs
        and bool(consumers)
        and all(
            (wishes := work.kind.input_layout) is not None
            and wishes.reads_packed(work.op)
            and work.inputs.count(name) == 1
            and work.inputs[0] == name
            for work in consumers
        )
    )
