"""Turns placed works into steps, in an order that is right when they run one after the other.

For each group of output channels and each stripe of rows: load what has to be loaded, compute,
store what has to be stored. Loads are moved ahead later (`prefetch`), and what may overlap is
decided by tokens (`tokens`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Space, Store
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, split
from celosia.sw.compiler.ir import Graph, NpuOp
from celosia.sw.compiler.ops.npu.job import LoadJob, MatrixJob, VectorJob
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.place.layout import ActLayout, Slab, transfer_step
from celosia.sw.compiler.place.mapping import shared_requantisation
from celosia.sw.compiler.place.parts import KernelPart, part_positions
from celosia.sw.compiler.place.plan import COPY_LINES, MemoryPlan, WorkPlan
from celosia.sw.compiler.place.tiling import Tiling
from celosia.sw.compiler.place.views import MovePlan
from celosia.sw.compiler.place.works import Work
from celosia.sw.compiler.schedule.chunks import Chunk, ChunkLoader, WeightedLayer
from celosia.sw.compiler.schedule.constants import ConstantPool, constant_load
from celosia.sw.compiler.schedule.conv import conv_steps
from celosia.sw.compiler.schedule.conv_commands import ConvJob
from celosia.sw.compiler.schedule.copy import copy_steps
from celosia.sw.compiler.schedule.line_copy import line_copy_step
from celosia.sw.compiler.schedule.phases import PhasesJob, phase_steps, split_tile, tile_by_tile
from celosia.sw.compiler.steps import Step

__all__ = ["Schedule", "schedule_works"]

INPUT_STRIPE_CYCLES = 400
"""A graph input whose load takes longer is loaded in parts, to begin with the first ones."""
MAX_INPUT_STRIPES = 8
POOL_CHUNKS = 4
"""Parts of a convolution between which the pooling behind it is done."""


@dataclass(frozen=True)
class Schedule:
    """Steps in program order, and the constants they load.

    Attributes
    ----------
    steps : list of Step
        All commands but `End`.
    constants : bytes
        Region CONST.
    weight_bytes : list of int
        Bytes of the weights and parameters of each work on chip at a time.
    """

    steps: list[Step]
    constants: bytes
    weight_bytes: list[int]


def schedule_works(
    graph: Graph, plan: MemoryPlan, config: NpuConfig, *, weight_chunks: int = 2
) -> Schedule:
    """Return the steps of all works.

    Parameters
    ----------
    graph : Graph
        Lowered.
    plan : MemoryPlan
        From `plan_memory`.
    config : NpuConfig
        The machine.
    weight_chunks : int
        A part of a layer whose weights are loaded together takes at most the weight memory
        divided by this (a tile of output channels at least). Many small parts keep the bus busy
        where weights come slower than they are used; few large ones take fewer commands.
    """
    return _Scheduler(graph, plan, config, weight_chunks).run()


class _Scheduler:
    def __init__(
        self, graph: Graph, plan: MemoryPlan, config: NpuConfig, weight_chunks: int
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.config = config
        self.steps: list[Step] = []
        self.pool = ConstantPool(config.bus_bytes)
        self.chunks = ChunkLoader(config, self.pool, weight_chunks)
        weighted = [p.work.index for p in plan.works if p.work.kind.map is not None]
        self.last_weighted = max(weighted, default=-1)
        self.table: bytes | None = None
        self.loaded_rows: dict[str, int] = {}
        self.weight_bytes = [0] * len(plan.works)

    def run(self) -> Schedule:
        done_early: set[int] = set()
        for work_plan, successor in zip(self.plan.works, [*self.plan.works[1:], None], strict=True):
            if work_plan.work.index in done_early:
                continue
            placement = work_plan.work.kind.placement
            if placement is Placement.VIEW:
                self._view(work_plan)
            elif placement is Placement.LOADED:
                self._load_changed(work_plan)
            elif placement is Placement.STORED:
                self._store_window(work_plan.work)
            elif successor is not None and self._can_interleave(work_plan, successor):
                self._work(work_plan, pool=successor.work)
                done_early.add(successor.work.index)
            else:
                self._work(work_plan)
        return Schedule(self.steps, self.pool.data, self.weight_bytes)

    # Tensors --------------------------------------------------------------------------------

    def _whole(self, name: str) -> Slab:
        """Return the slab of a resident tensor."""
        tensor = self.plan.table.tensors[name]
        base = self.plan.addresses[name]
        grid = tensor.grid
        return Slab(
            base=base,
            y_first=0,
            y_end=tensor.height,
            channel_first=0,
            layout=tensor.layout,
            grid=grid and replace(grid, base=base - tensor.offset),
        )

    def _transfer(self, kind: type[Load] | type[Store], slab: Slab, name: str, layer: int) -> None:
        self.steps.append(transfer_step(kind, slab, self.plan.home_plan.homes[name], layer))

    def _load_graph_input(self, name: str, layer: int, end: int | None = None) -> None:
        """Load a resident graph input before its first use, or what is missing of it up to a row.

        Parameters
        ----------
        name : str
            A resident tensor; nothing happens unless it is a graph input or a view of one.
        layer : int
            The work that needs it.
        end : int, optional
            The first row that need not be there yet; by default all rows are loaded.
        """
        view = self.plan.table.tensors[name]
        storage = view.chip
        if storage not in self.graph.inputs:
            return
        whole = self._whole(storage)
        first = self.loaded_rows.get(storage, 0)
        if end is None:
            end = whole.y_end
        elif name != storage:
            # Rows of the view, of which the tensor that it views has more or fewer.
            rows = ceil_div(view.layout.size_bytes(end), whole.layout.row_pitch)
            end = min(rows, whole.y_end)
        if end > first:
            self.loaded_rows[storage] = end
            self._transfer(Load, whole.rows(first, end), storage, layer)

    def _input_stripes(self, work: Work, tiling: Tiling) -> tuple[Range, ...]:
        """Return the stripes of a work; more than one if its resident input is yet to be loaded.

        A convolution can begin with the first rows of a graph input while the others arrive, if
        its weights stay for all stripes.
        """
        name = work.inputs[0]
        tensor = self.plan.table.tensors[name]
        waits = name in self.graph.inputs and name in self.plan.addresses
        if (
            not waits
            or name in self.loaded_rows
            or len(tiling.stripes) * len(tiling.columns) > 1
            or not self._kept(work, tiling, tiling.groups[0])
        ):
            return tiling.stripes
        rows = tiling.stripes[0][1]
        cycles = tensor.height * tensor.layout.row_pitch // self.config.bus_bytes
        count = min(rows, MAX_INPUT_STRIPES, max(1, cycles // INPUT_STRIPE_CYCLES))
        return split(rows, ceil_div(rows, count))

    def _view(self, work_plan: WorkPlan) -> None:
        work = work_plan.work
        source, result = (self.plan.table.tensors[name] for name in (work.inputs[0], work.output))
        if source.memory != result.memory:
            self._copy(work, work_plan.out_buffers[0])
        if result.name not in self.plan.addresses:
            return
        if (source.chip, source.offset) == (result.chip, result.offset):
            # A view of a graph input is loaded with it.
            self._load_graph_input(result.name, work.index)
        else:
            self._transfer(Load, self._whole(result.name), result.name, work.index)

    def _copy(self, work: Work, buffer: int) -> None:
        """Copy a graph input to a graph output of another shape."""
        homes = self.plan.home_plan.homes
        source, target = homes[work.inputs[0]], homes[work.output]
        total_bytes = source.size_bytes(self.plan.table.tensors[work.inputs[0]].height)
        place = buffer, COPY_LINES * self.config.line_bytes
        self.steps.extend(copy_steps(source, target, total_bytes, place, work.index))

    def _load_changed(self, work_plan: WorkPlan) -> None:
        """Load tensors in another form."""
        work, tiling = work_plan.work, work_plan.tiling
        move = self.plan.table.moves.get(work.index)
        if move is not None:
            self._move_on_chip(work, move)
            return
        stored = self.plan.stored.get(work.index)
        left = None if stored is None else stored.left
        if stored is not None and left is None:
            return
        output = self.plan.table.tensors[work.output]
        tiles = (0, ceil_div(output.layout.channels, self.config.line_bytes))
        whole = (0, output.height), (0, output.layout.width), tiles
        units = (
            [whole]
            if tiling is None
            else list(product(tiling.stripes, tiling.columns, tiling.groups))
        )
        line = self.config.line_bytes // output.layout.element_bytes
        for unit, (rows, columns, group) in enumerate(units):
            buffer = 0 if tiling is None else unit % tiling.buffers
            target = (
                self._whole(work.output)
                if tiling is None
                else self._target(work_plan, rows, columns, group, buffer)
            )
            channels = group[0] * line, min(group[1] * line, output.layout.channels)
            self._load_boxes(work, left or work.op, target, rows, columns, channels)
            if left is not None:
                for box in left.boxes:
                    self._store_part(box, target, work)
            elif work.output in self.plan.home_plan.homes:
                self._transfer(Store, target, work.output, work.index)

    def _load_boxes(
        self, work: Work, op: NpuOp, target: Slab, rows: Range, columns: Range, channels: Range
    ) -> None:
        """Load a part of a work's output as an operator says: the work's own, or some of it."""
        assert work.kind.load is not None, "the load engine makes its output"
        job = LoadJob(
            images=tuple(self.graph.hwc(name) for name in op.inputs),
            homes=tuple(self.plan.home_plan.homes[name] for name in op.inputs),
            target=target,
            rows=rows,
            columns=columns,
            channels=channels,
            layer=work.index,
        )
        self.steps.extend(work.kind.load(op, job, self.pool))

    def _store_part(self, whole: Box, target: Slab, work: Work) -> None:
        """Store what of a part of the output is on chip: beside it are others, in memory only."""
        layout = target.layout
        box = whole.part(
            (target.y_first, target.y_end),
            (target.x_first, target.x_end),
            (target.channel_first, target.channel_first + layout.channels),
        )
        if box is None:
            return
        part = replace(
            target,
            base=target.address(box.y, box.x, box.c),
            y_first=box.y,
            y_end=box.y + box.height,
            x_first=box.x,
            channel_first=box.c,
            layout=replace(layout, width=box.width, channels=box.channels),
        )
        home = replace(
            self.plan.home_plan.homes[work.output],
            own_bytes=(box.c + box.channels) * target.layout.element_bytes,
        )
        self.steps.append(transfer_step(Store, part, home, work.index))

    def _move_on_chip(self, work: Work, move: MovePlan) -> None:
        """Copy what a movement does not share, and load what cannot be copied."""
        target = self._whole(work.output)
        places = {name: self._whole(name) for name in work.inputs if name in self.plan.addresses}
        for box in move.copied:
            name = work.inputs[box.source]
            image = self.graph.hwc(name)
            self.steps.append(
                line_copy_step(box, places[name], image, target, work.index, self.config)
            )
        if move.loaded is not None:
            columns, channels = (0, target.x_end), (0, target.layout.channels)
            self._load_boxes(work, move.loaded, target, (0, target.y_end), columns, channels)
        if work.output in self.plan.home_plan.homes:
            self._transfer(Store, target, work.output, work.index)

    def _store_window(self, work: Work) -> None:
        """Store rows and columns of a tensor that is on chip."""
        assert work.kind.part is not None, "the store engine makes its output"
        y, x = work.kind.part(work.op)
        rows, columns, _ = self.graph.hwc(work.output)
        whole = self._whole(work.inputs[0])
        part = replace(
            whole,
            base=whole.address(y, x),
            y_first=0,
            y_end=rows,
            layout=replace(whole.layout, width=columns),
        )
        self._transfer(Store, part, work.output, work.index)

    # Units ----------------------------------------------------------------------------------

    def _can_interleave(self, work_plan: WorkPlan, successor: WorkPlan) -> bool:
        """Whether the next work pools this convolution's channels as they are computed.

        The vector engine is idle most of the time while a convolution runs; pooling one tile of
        channels then costs nothing while the array computes the next.
        """
        tiling, pool = work_plan.tiling, successor.work
        operands = [*work_plan.work.inputs, work_plan.work.output, pool.output]
        return (
            pool.kind.behind_array
            and tiling is not None
            and tiling.mapping is not None
            and len(tiling.stripes) == len(tiling.columns) == len(tiling.groups) == 1
            and pool.inputs == (work_plan.work.output,)
            and all(name in self.plan.addresses for name in operands)
            and not any(
                self._whole(pool.output).footprint.overlaps(self._whole(name).footprint)
                for name in operands[:-1]
            )
        )

    def _work(self, work_plan: WorkPlan, pool: Work | None = None) -> None:
        work, tiling = work_plan.work, work_plan.tiling
        assert tiling is not None, "this kind of work is not cut"
        if not work.kind.table_per_tile(work.op):
            self._load_table(work, tile=0)
        stripes = self._input_stripes(work, tiling)
        pieces = list(product(stripes, tiling.columns))
        if len(stripes) == len(tiling.stripes):
            for name in work.on_chip:
                if name in self.plan.addresses:
                    self._load_graph_input(name, work.index)
        unit = 0
        for group in tiling.groups:
            kept = self._kept(work, tiling, group)
            chunks = self._cut(work, tiling, group, len(pieces), pool)
            if kept and len(pieces) > 1:
                self.chunks.reserve(self._layer(work, tiling), group)
            for index, (rows, columns) in enumerate(pieces):
                buffer = unit % tiling.buffers
                sources = [
                    self._source(work_plan, operand, rows, columns, group, buffer)
                    for operand in range(len(work.inputs))
                    if operand not in work.in_memory
                ]
                target = self._target(work_plan, rows, columns, group, buffer)
                if tiling.mapping is not None:
                    load = index == 0 or not kept
                    self._convolve(
                        work_plan,
                        sources,
                        target,
                        rows,
                        columns,
                        group,
                        chunks,
                        load=load,
                        pool=pool,
                    )
                elif tiling.phases is not None:
                    self._phases(work, tiling, sources[0], target, rows, group)
                elif work.kind.multiply is not None:
                    self._multiply(work, sources[0], target, rows, group)
                else:
                    self._vector(work, sources, target, rows, columns, group)
                if work.output in self.plan.home_plan.homes:
                    self._transfer(Store, target, work.output, work.index)
                unit += 1
        if pool is not None and pool.output in self.plan.home_plan.homes:
            self._transfer(Store, self._whole(pool.output), pool.output, pool.index)

    def _source(
        self,
        work_plan: WorkPlan,
        operand: int,
        rows: Range,
        columns: Range,
        group: Range,
        buffer: int,
    ) -> Slab:
        """Return an input's part on chip; loads it when the input is in memory."""
        work, tiling = work_plan.work, work_plan.tiling
        assert tiling is not None
        name = work.inputs[operand]
        tensor = self.plan.table.tensors[name]
        width = tensor.layout.width
        needed = work.input_rows(operand, tensor.height, rows)
        if name in self.plan.addresses:
            last = rows[1] == self.plan.table.tensors[work.output].height
            self._load_graph_input(name, work.index, None if last else needed[1])
            return self._whole(name).rows(*needed)
        # One channel is there for all groups.
        alone = (work.per_channel or operand > 0) and tensor.layout.channels > 1
        if operand == 0 and tiling.parts:
            # Loaded part by part; this is what the image would be.
            layout = replace(tiling.in_layouts[0], width=width)
            channel = group[0] * self.config.line_bytes if alone else 0
            return Slab(
                base=0, y_first=0, y_end=tensor.height, channel_first=channel, layout=layout
            )
        slab = self._streamed(
            tiling.in_layouts[operand],
            work_plan.in_buffers[operand][buffer],
            needed,
            (0, width) if len(tiling.columns) == 1 else work.input_columns(operand, width, columns),
            group if alone else None,
            tensor.layout.channels,
        )
        self._transfer(Load, slab, name, work.index)
        return slab

    def _target(
        self, work_plan: WorkPlan, rows: Range, columns: Range, group: Range, buffer: int
    ) -> Slab:
        work, tiling = work_plan.work, work_plan.tiling
        assert tiling is not None
        name = work.output
        if name in self.plan.addresses:
            return self._whole(name).rows(*rows)
        return self._streamed(
            tiling.out_layout,
            work_plan.out_buffers[buffer],
            rows,
            columns,
            group,
            self.plan.table.tensors[name].layout.channels,
        )

    def _streamed(
        self,
        layout: ActLayout,
        base: int,
        rows: Range,
        columns: Range,
        group: Range | None,
        channels: int,
    ) -> Slab:
        line = self.config.line_bytes
        first = 0 if group is None else group[0] * line
        if group is not None:
            # The last group may have fewer channels than the buffer's pixels have room for.
            channels = min(group[1] * line, channels) - first
        return Slab(
            base=base,
            y_first=rows[0],
            y_end=rows[1],
            channel_first=first,
            layout=replace(layout, channels=channels, width=columns[1] - columns[0]),
            x_first=columns[0],
        )

    # Vector works ---------------------------------------------------------------------------

    def _load_table(self, work: Work, tile: int) -> None:
        if work.kind.table is None:
            return
        content = work.kind.table(work.op, self.config.line_bytes, tile)
        if content == self.table:
            return
        self.table = content
        offset, size = self.pool.place(("table", content), lambda: content)
        self.steps.append(constant_load(Space.TABLE, 0, offset, size, work.index, self.config))

    def _vector(
        self,
        work: Work,
        sources: list[Slab],
        target: Slab,
        rows: Range,
        columns: Range,
        group: Range,
    ) -> None:
        steps = work.kind.steps
        assert steps is not None, f"no schedule for {type(work.op).__name__}"
        job = VectorJob(
            sources=tuple(sources),
            target=target,
            in_heights=tuple(self.plan.table.tensors[name].height for name in work.inputs),
            in_widths=tuple(self.plan.table.tensors[name].layout.width for name in work.inputs),
            rows=rows,
            columns=columns,
            tiles=group,
            layer=work.index,
        )
        if not work.kind.table_per_tile(work.op):
            self.steps.extend(steps(work.op, job, self.config))
            return
        for tile in range(*group):
            self._load_table(work, tile)
            self.steps.extend(steps(work.op, replace(job, tiles=(tile, tile + 1)), self.config))

    # Products of matrices -------------------------------------------------------------------

    def _multiply(self, work: Work, source: Slab, target: Slab, rows: Range, group: Range) -> None:
        assert work.kind.multiply is not None, "the array computes it"
        second = next((work.inputs[place] for place in work.in_memory), None)
        tensors = self.plan.table.tensors
        job = MatrixJob(
            source=source,
            target=target,
            home=None if second is None else self.plan.home_plan.homes[second],
            home_height=0 if second is None else tensors[second].height,
            rows=rows,
            tiles=group,
            layer=work.index,
        )
        self.steps.extend(work.kind.multiply(work.op, job, self.chunks))

    # Convolutions ---------------------------------------------------------------------------

    def _layer(self, work: Work, tiling: Tiling) -> WeightedLayer:
        mapping = tiling.mapping
        assert mapping is not None, "the array computes it"
        shared = work.add is None and shared_requantisation(mapping.op)
        return WeightedLayer(work.index, mapping, tiling.in_layouts[0].pixel_pitch, shared)

    def _kept(self, work: Work, tiling: Tiling, group: Range) -> bool:
        """Whether a group's weights stay on chip for all stripes."""
        return (
            tiling.mapping is not None
            and not tiling.parts
            and self.chunks.fits_together(self._layer(work, tiling), group)
        )

    def _cut(
        self, work: Work, tiling: Tiling, group: Range, stripes: int, pool: Work | None
    ) -> list[Chunk] | None:
        if tiling.mapping is None:
            return []
        if tiling.parts:
            return None
        return self.chunks.cut(
            self._layer(work, tiling),
            group,
            parts=1 if pool is None else POOL_CHUNKS,
            taper=work.index == self.last_weighted and stripes == 1,
        )

    def _convolve(
        self,
        work_plan: WorkPlan,
        sources: list[Slab],
        target: Slab,
        rows: Range,
        columns: Range,
        group: Range,
        chunks: list[Chunk] | None,
        *,
        load: bool,
        pool: Work | None,
    ) -> None:
        work, tiling = work_plan.work, work_plan.tiling
        assert tiling is not None, "it is cut"
        mapping = tiling.mapping
        assert mapping is not None, "the array computes it"
        source, output = (self.plan.table.tensors[n] for n in (work.inputs[0], work.output))
        layer = self._layer(work, tiling)

        def job(tiles: Range) -> ConvJob:
            return ConvJob(
                mapping=mapping,
                add=work.add,
                source=sources[0],
                target=target,
                other=sources[1] if work.add is not None else None,
                in_size=(source.height, source.layout.width),
                out_size=(output.height, output.layout.width),
                rows=rows,
                columns=columns,
                tiles=tiles,
                layer=work.index,
            )

        if chunks is None:
            # Split reductions are slow enough for a pooling behind them not to matter.
            parts = [
                (part, partial(self._load_part, work_plan, part, index=index))
                for index, part in enumerate(tiling.parts)
            ]
            self.steps.extend(tile_by_tile(job(group), layer, self.chunks, self.config, parts))
            self.weight_bytes[work.index] = self.config.wgt_bytes
            if pool is not None:
                self._pool_part(pool, target, group)
            return
        for chunk in chunks:
            weights = [self.chunks.weight_parts(layer, t, None) for t in range(*chunk.tiles)]
            if any(len(part) > 1 for part in weights):
                self.steps.extend(self.chunks.load_section(layer, chunk))
                for number, tile in enumerate(range(*chunk.tiles)):
                    block = number * layer.parameter_tile_bytes(self.config)
                    self.steps.extend(
                        split_tile(
                            job((tile, tile + 1)),
                            layer,
                            self.chunks,
                            chunk.param_addr + block,
                            self.config,
                        )
                    )
            else:
                if load:
                    self.steps.extend(self.chunks.load(layer, chunk))
                self.steps.extend(
                    conv_steps(job(chunk.tiles), chunk.wgt_addr, chunk.param_addr, self.config)
                )
            if pool is not None:
                self._pool_part(pool, target, chunk.tiles)
            self.weight_bytes[work.index] = max(
                self.weight_bytes[work.index], self.chunks.chunk_bytes(layer, chunk)
            )

    def _phases(
        self, work: Work, tiling: Tiling, source: Slab, target: Slab, rows: Range, group: Range
    ) -> None:
        mappings = tiling.phases
        assert mappings is not None, "it is several convolutions"
        height = self.plan.table.tensors[work.inputs[0]].height
        job = PhasesJob(source, target, height, rows, group, work.index)
        self.steps.extend(phase_steps(mappings, job, self.chunks, self.config))
        self.weight_bytes[work.index] = min(
            self.config.wgt_bytes,
            (group[1] - group[0]) * max(m.tile_weight_bytes(self.config) for m in mappings.each),
        )

    def _load_part(
        self,
        work_plan: WorkPlan,
        part: KernelPart,
        tiles: Range,
        rows: Range,
        columns: Range,
        *,
        index: int,
    ) -> tuple[Step, Slab]:
        """Return the load of what a part of the kernel needs for some outputs, and where it is."""
        work, tiling = work_plan.work, work_plan.tiling
        assert tiling is not None, "it is cut"
        assert tiling.mapping is not None, "the array computes it"
        op = tiling.mapping.op
        name = work.inputs[0]
        tensor = self.plan.table.tensors[name]
        buffers = work_plan.in_buffers[0]
        layout = tiling.in_layouts[0]
        line = self.config.line_bytes
        channels = part.channels
        if op.depthwise:
            channels = tiles[0] * line, min(tiles[1] * line, tensor.layout.channels)
            layout = replace(layout, channels=channels[1] - channels[0])
        elif layout.pixel_pitch % line == 0:
            layout = replace(layout, channels=channels[1] - channels[0])
        y, x = part_positions(op, part, (tensor.height, tensor.layout.width), rows, columns)
        slab = Slab(
            base=buffers[index % len(buffers)],
            y_first=y[0],
            y_end=y[1],
            channel_first=channels[0],
            layout=replace(layout, width=x[1] - x[0]),
            x_first=x[0],
        )
        return transfer_step(Load, slab, self.plan.home_plan.homes[name], work.index), slab

    def _pool_part(self, pool: Work, source: Slab, tiles: Range) -> None:
        target = self._whole(pool.output)
        rows, columns = (target.y_first, target.y_end), (target.x_first, target.x_end)
        self._vector(pool, [source], target, rows, columns, tiles)
