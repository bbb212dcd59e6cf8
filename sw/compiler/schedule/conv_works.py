"""The steps of works that are convolutions: their weights and their commands, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from celosia.hw.contract.isa import Load
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.place.layout import Slab, transfer_step
from celosia.sw.compiler.place.mapping import shared_requantisation
from celosia.sw.compiler.place.parts import KernelPart, part_positions
from celosia.sw.compiler.place.plan import WorkPlan
from celosia.sw.compiler.place.tiling import Tiling
from celosia.sw.compiler.place.works import Work
from celosia.sw.compiler.schedule.chunks import Chunk, ChunkLoader, WeightedLayer
from celosia.sw.compiler.schedule.conv import conv_steps
from celosia.sw.compiler.schedule.conv_commands import ConvJob
from celosia.sw.compiler.schedule.on_chip import OnChip
from celosia.sw.compiler.schedule.overlap import Edges
from celosia.sw.compiler.schedule.phases import PhasesJob, phase_steps, split_tile, tile_by_tile
from celosia.sw.compiler.steps import Step

__all__ = ["ConvWorks"]


class ConvWorks:
    """Schedules convolutions.

    Parameters
    ----------
    on_chip : OnChip
        Where tensors are.
    chunks : ChunkLoader
        Loads weights.
    ramp : tuple of int
        As of `Manner`.

    Attributes
    ----------
    weight_bytes : list of int
        As of `Schedule`.
    """

    def __init__(self, on_chip: OnChip, chunks: ChunkLoader, *, ramp: tuple[int, ...]) -> None:
        self.on_chip, self.chunks = on_chip, chunks
        self.plan, self.config = on_chip.plan, on_chip.config
        weighted = [p.work.index for p in self.plan.works if p.work.kind.map is not None]
        self._ramped = frozenset(weighted[turn] for turn in ramp if turn < len(weighted))
        self._last_weighted = max(weighted, default=-1)
        self.weight_bytes = [0] * len(self.plan.works)

    def kept(self, work: Work, tiling: Tiling, group: Range) -> bool:
        """Whether a group's weights stay on chip for all stripes."""
        return (
            tiling.mapping is not None
            and not tiling.parts
            and self.chunks.fits_together(self._layer(work, tiling), group)
        )

    def cut(
        self, work: Work, tiling: Tiling, group: Range, stripes: int, parts: int
    ) -> list[Chunk] | None:
        """Cut a group's weights into what is loaded together.

        Parameters
        ----------
        work, tiling, group
            What they belong to.
        stripes : int
            Parts of the output that are computed with them, one after the other.
        parts : int
            At least so many chunks, as far as there are tiles.

        Returns
        -------
        list of Chunk or None
            None if the reduction is split, tile by tile. Empty if there are no weights.
        """
        if tiling.mapping is None:
            return []
        if tiling.parts:
            return None
        return self.chunks.cut(
            self._layer(work, tiling),
            group,
            parts=parts,
            taper=work.index == self._last_weighted and stripes == 1,
            ramp=work.index in self._ramped,
        )

    def reserve(self, work: Work, tiling: Tiling, group: Range) -> None:
        """Keep room for the weights of a group, which stay while its stripes are computed."""
        self.chunks.reserve(self._layer(work, tiling), group)

    def convolve(
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
        edges: Edges,
        then: Callable[[Range], None] | None,
    ) -> None:
        """Compute a part of a convolution's output.

        Parameters
        ----------
        work_plan : WorkPlan
            The convolution.
        sources, target : Slab
            Its operands on chip, and where the output goes.
        rows, columns, group : (int, int)
            Output rows and columns, and channel tiles, to compute.
        chunks : list of Chunk or None
            From `cut`.
        load : bool
            Whether the chunks' weights are to be loaded.
        edges : Edges
            Where it is to overlap with other layers.
        then : callable, optional
            Called with channel tiles as soon as they are computed.
        """
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
            self.on_chip.steps.extend(
                tile_by_tile(job(group), layer, self.chunks, self.config, parts)
            )
            self.weight_bytes[work.index] = self.chunks.wgt_bytes
            if then is not None:
                then(group)
            return
        for number, chunk in enumerate(chunks):
            weights = [self.chunks.weight_parts(layer, t, None) for t in range(*chunk.tiles)]
            if any(len(part) > 1 for part in weights):
                self.on_chip.steps.extend(self.chunks.load_section(layer, chunk))
                for turn, tile in enumerate(range(*chunk.tiles)):
                    block = turn * layer.parameter_tile_bytes(self.config)
                    self.on_chip.steps.extend(
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
                    self.on_chip.steps.extend(self.chunks.load(layer, chunk))
                self.on_chip.steps.extend(
                    conv_steps(
                        job(chunk.tiles),
                        chunk.wgt_addr,
                        chunk.param_addr,
                        self.config,
                        edges.of_chunk(number, len(chunks)),
                    )
                )
            if then is not None:
                then(chunk.tiles)
            self.weight_bytes[work.index] = max(
                self.weight_bytes[work.index], self.chunks.chunk_bytes(layer, chunk)
            )

    def phases(
        self, work: Work, tiling: Tiling, source: Slab, target: Slab, rows: Range, group: Range
    ) -> None:
        """Compute some rows of an operator that is several convolutions (`PhasesOp`)."""
        mappings = tiling.phases
        assert mappings is not None, "it is several convolutions"
        height = self.plan.table.tensors[work.inputs[0]].height
        job = PhasesJob(source, target, height, rows, group, work.index)
        self.on_chip.steps.extend(phase_steps(mappings, job, self.chunks, self.config))
        self.weight_bytes[work.index] = min(
            self.chunks.wgt_bytes,
            (group[1] - group[0]) * max(m.tile_weight_bytes(self.config) for m in mappings.each),
        )

    def _layer(self, work: Work, tiling: Tiling) -> WeightedLayer:
        mapping = tiling.mapping
        assert mapping is not None, "the array computes it"
        shared = work.add is None and shared_requantisation(mapping.op)
        return WeightedLayer(work.index, mapping, tiling.in_layouts[0].pixel_pitch, shared)

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
