"""The steps of works that compute nothing: views, movements by the load engine, and stores."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from celosia.hw.contract.isa import Load, Store
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.compiler.ir import NpuOp
from celosia.sw.compiler.ops.npu.job import LoadJob
from celosia.sw.compiler.place.layout import Slab, transfer_step
from celosia.sw.compiler.place.plan import COPY_LINES, WorkPlan
from celosia.sw.compiler.place.views import MovePlan
from celosia.sw.compiler.place.works import Work
from celosia.sw.compiler.schedule.constants import ConstantPool
from celosia.sw.compiler.schedule.copy import copy_steps
from celosia.sw.compiler.schedule.line_copy import line_copy_step
from celosia.sw.compiler.schedule.on_chip import OnChip

__all__ = ["LoadWorks"]


class LoadWorks:
    """Schedules works that the load engine and the store engine do.

    Parameters
    ----------
    on_chip : OnChip
        Where tensors are.
    pool : ConstantPool
        What is loaded beside tensors.
    """

    def __init__(self, on_chip: OnChip, pool: ConstantPool) -> None:
        self.on_chip, self.pool = on_chip, pool
        self.graph, self.plan, self.config = on_chip.graph, on_chip.plan, on_chip.config

    def view(self, work_plan: WorkPlan) -> None:
        """Give a view its place: that of its source, another to load it to, or one in memory."""
        work = work_plan.work
        source, result = (self.plan.table.tensors[name] for name in (work.inputs[0], work.output))
        if source.memory != result.memory:
            self._copy(work, work_plan.out_buffers[0])
        if result.name not in self.plan.addresses:
            return
        if (source.chip, source.offset) == (result.chip, result.offset):
            # A view of a graph input is loaded with it.
            self.on_chip.load_graph_input(result.name, work.index)
        else:
            self.on_chip.transfer(Load, self.on_chip.whole(result.name), result.name, work.index)

    def load(self, work_plan: WorkPlan) -> None:
        """Make a tensor of others in another form: in place, by copies on chip and by loads."""
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
                self.on_chip.whole(work.output)
                if tiling is None
                else self.on_chip.target(work_plan, rows, columns, group, buffer)
            )
            channels = group[0] * line, min(group[1] * line, output.layout.channels)
            self._load_boxes(work, left or work.op, target, rows, columns, channels)
            if left is not None:
                for box in left.boxes:
                    self._store_part(box, target, work)
            elif work.output in self.plan.home_plan.homes:
                self.on_chip.transfer(Store, target, work.output, work.index)

    def postpone(self, work: Work) -> None:
        """Let a work's output be loaded as its rows are needed."""
        whole = self.on_chip.whole(work.output)
        columns, channels = (0, whole.x_end), (0, whole.layout.channels)

        def loader(rows: Range) -> None:
            self._load_boxes(work, work.op, whole.rows(*rows), rows, columns, channels)

        self.on_chip.postpone(work.output, loader)

    def store(self, work: Work) -> None:
        """Store rows and columns of a tensor that is on chip."""
        assert work.kind.part is not None, "the store engine makes its output"
        y, x = work.kind.part(work.op)
        rows, columns, _ = self.graph.hwc(work.output)
        whole = self.on_chip.whole(work.inputs[0])
        part = replace(
            whole,
            base=whole.address(y, x),
            y_first=0,
            y_end=rows,
            layout=replace(whole.layout, width=columns),
        )
        self.on_chip.transfer(Store, part, work.output, work.index)

    def _copy(self, work: Work, buffer: int) -> None:
        """Copy a graph input to a graph output of another shape."""
        homes = self.plan.home_plan.homes
        source, target = homes[work.inputs[0]], homes[work.output]
        total_bytes = source.size_bytes(self.plan.table.tensors[work.inputs[0]].height)
        place = buffer, COPY_LINES * self.config.line_bytes
        self.on_chip.steps.extend(copy_steps(source, target, total_bytes, place, work.index))

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
        self.on_chip.steps.extend(work.kind.load(op, job, self.pool))

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
        self.on_chip.steps.append(transfer_step(Store, part, home, work.index))

    def _move_on_chip(self, work: Work, move: MovePlan) -> None:
        """Copy what a movement does not share, and load what cannot be copied."""
        target = self.on_chip.whole(work.output)
        places = {
            name: self.on_chip.whole(name) for name in work.inputs if name in self.plan.addresses
        }
        for box in move.copied:
            name = work.inputs[box.source]
            image = self.graph.hwc(name)
            self.on_chip.steps.append(
                line_copy_step(box, places[name], image, target, work.index, self.config)
            )
        if move.loaded is not None:
            columns, channels = (0, target.x_end), (0, target.layout.channels)
            self._load_boxes(work, move.loaded, target, (0, target.y_end), columns, channels)
        if work.output in self.plan.home_plan.homes:
            self.on_chip.transfer(Store, target, work.output, work.index)
