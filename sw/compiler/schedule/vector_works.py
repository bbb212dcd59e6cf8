"""The steps of works that the vector engine computes alone, and the tables that they read."""

from __future__ import annotations

from dataclasses import replace

from celosia.hw.contract.isa import Space
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ops.npu.job import VectorJob
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.works import Work
from celosia.sw.compiler.schedule.constants import ConstantPool, constant_load
from celosia.sw.compiler.schedule.on_chip import OnChip

__all__ = ["VectorWorks"]


class VectorWorks:
    """Schedules works of the vector engine.

    Parameters
    ----------
    on_chip : OnChip
        Where tensors are.
    pool : ConstantPool
        Where the tables go.
    """

    def __init__(self, on_chip: OnChip, pool: ConstantPool) -> None:
        self.on_chip, self.pool = on_chip, pool
        self.plan, self.config = on_chip.plan, on_chip.config
        self._table: bytes | None = None

    def load_table(self, work: Work, tile: int) -> None:
        """Load the table that a work reads for a channel tile, unless it is there."""
        if work.kind.table is None:
            return
        content = work.kind.table(work.op, self.config.line_bytes, tile)
        if content == self._table:
            return
        self._table = content
        offset, size = self.pool.place(("table", content), lambda: content)
        self.on_chip.steps.append(
            constant_load(Space.TABLE, 0, offset, size, work.index, self.config)
        )

    def compute(
        self,
        work: Work,
        sources: list[Slab],
        target: Slab,
        rows: Range,
        columns: Range,
        group: Range,
    ) -> None:
        """Compute some rows, columns and channel tiles of a work's output."""
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
            self.on_chip.steps.extend(steps(work.op, job, self.config))
            return
        for tile in range(*group):
            self.load_table(work, tile)
            self.on_chip.steps.extend(
                steps(work.op, replace(job, tiles=(tile, tile + 1)), self.config)
            )
