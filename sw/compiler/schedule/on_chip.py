"""Where tensors and their parts are on chip while the works run, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Store
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.place.layout import ActLayout, Grid, Slab, transfer_step
from celosia.sw.compiler.place.plan import MemoryPlan, WorkPlan
from celosia.sw.compiler.steps import Step

__all__ = ["OnChip"]


class OnChip:
    """The activation memory as the works leave it, and the steps that bring it there.

    Parameters
    ----------
    graph : Graph
        Lowered.
    plan : MemoryPlan
        From `plan_memory`.
    config : NpuConfig
        The machine.

    Attributes
    ----------
    steps : list of Step
        Of the works so far; who schedules one adds its steps.
    """

    def __init__(self, graph: Graph, plan: MemoryPlan, config: NpuConfig) -> None:
        self.graph, self.plan, self.config = graph, plan, config
        self.steps: list[Step] = []
        self._loaded_rows: dict[str, int] = {}
        self._loaders: dict[str, Callable[[Range], None]] = {}

    def postpone(self, name: str, loader: Callable[[Range], None]) -> None:
        """Let a resident tensor be loaded as its rows are needed, as a graph input is."""
        self._loaders[name] = loader

    def _comes_by_rows(self, name: str) -> bool:
        return name in self.graph.inputs or name in self._loaders

    def is_postponed(self, name: str) -> bool:
        """Whether a tensor that is no graph input is loaded as its rows are needed."""
        return name in self._loaders

    def waits(self, name: str) -> bool:
        """Whether a tensor that is loaded has a place on chip, and nothing of it is there yet."""
        return (
            self._comes_by_rows(name)
            and name in self.plan.addresses
            and name not in self._loaded_rows
        )

    def whole(self, name: str) -> Slab:
        """Return the slab of a resident tensor."""
        tensor = self.plan.table.tensors[name]
        base = self.plan.addresses[name]
        layout, line = tensor.layout, self.config.line_bytes
        grid = tensor.grid
        if grid is None and layout.pixel_pitch % line == 0:
            grid = Grid(layout.row_pitch, layout.pixel_pitch, line)
        return Slab(
            base=base,
            y_first=0,
            y_end=tensor.height,
            channel_first=0,
            layout=layout,
            grid=grid and replace(grid, base=base - tensor.offset),
        )

    def transfer(self, kind: type[Load] | type[Store], slab: Slab, name: str, layer: int) -> None:
        """Load or store what is in a slab, all of a tensor's home or a part."""
        self.steps.append(transfer_step(kind, slab, self.plan.home_plan.homes[name], layer))

    def load_graph_input(self, name: str, layer: int, end: int | None = None) -> None:
        """Load a resident graph input before its first use, or what is missing of it up to a row.

        Parameters
        ----------
        name : str
            A resident tensor; nothing happens unless it is a graph input, a view of one, or a
            tensor that has been postponed.
        layer : int
            The work that needs it.
        end : int, optional
            The first row that need not be there yet; by default all rows are loaded.
        """
        view = self.plan.table.tensors[name]
        storage = view.chip
        if not self._comes_by_rows(storage):
            return
        whole = self.whole(storage)
        first = self._loaded_rows.get(storage, 0)
        if end is None:
            end = whole.y_end
        elif name != storage:
            # Rows of the view, of which the tensor that it views has more or fewer.
            rows = ceil_div(view.layout.size_bytes(end), whole.layout.row_pitch)
            end = min(rows, whole.y_end)
        if end > first:
            self._loaded_rows[storage] = end
            if storage in self._loaders:
                self._loaders[storage]((first, end))
            else:
                self.transfer(Load, whole.rows(first, end), storage, layer)

    def source(
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
            self.load_graph_input(name, work.index, None if last else needed[1])
            return self.whole(name).rows(*needed)
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
        self.transfer(Load, slab, name, work.index)
        return slab

    def target(
        self, work_plan: WorkPlan, rows: Range, columns: Range, group: Range, buffer: int
    ) -> Slab:
        """Return where a part of the output is made on chip: in the tensor, or in a buffer."""
        work, tiling = work_plan.work, work_plan.tiling
        assert tiling is not None
        name = work.output
        if name in self.plan.addresses:
            return self.whole(name).rows(*rows)
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
