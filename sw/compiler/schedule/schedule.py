"""Turns placed works into steps, in an order that is right when they run one after the other.

For each group of output channels and each stripe of rows: load what has to be loaded, compute,
store what has to be stored. Loads are moved ahead later (`prefetch`), and what may overlap is
decided by tokens (`tokens`). What a work takes depends on the engine: `load_works`, `conv_works`,
`vector_works`; where its operands are, `on_chip` knows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Store
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, split
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.ops.npu.job import MatrixJob
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.place.layout import Slab
from celosia.sw.compiler.place.plan import MemoryPlan, WorkPlan
from celosia.sw.compiler.place.tiling import Tiling
from celosia.sw.compiler.place.works import Work
from celosia.sw.compiler.schedule.chunks import ChunkLoader
from celosia.sw.compiler.schedule.constants import ConstantPool
from celosia.sw.compiler.schedule.conv_works import ConvWorks
from celosia.sw.compiler.schedule.load_works import LoadWorks
from celosia.sw.compiler.schedule.on_chip import OnChip
from celosia.sw.compiler.schedule.overlap import LEAST_VECTORS, Edges
from celosia.sw.compiler.schedule.residents import Resident
from celosia.sw.compiler.schedule.vector_works import VectorWorks
from celosia.sw.compiler.steps import Step

__all__ = ["Manner", "Schedule", "schedule_works"]

INPUT_STRIPE_CYCLES = 400
"""A graph input whose load takes longer is loaded in parts, to begin with the first ones."""
FINE_STRIPE_CYCLES = 60
"""The same of `Manner.fine`."""
MAX_INPUT_STRIPES = 8
POSTPONED_STRIPES = 3
"""Parts that another form of a graph input is loaded in: each takes several commands."""
POOL_CHUNKS = 8
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
    setup : list of Step
        Loads of weights that stay on chip from run to run; they run once, before everything else.
    """

    steps: list[Step]
    constants: bytes
    weight_bytes: list[int]
    setup: list[Step]


@dataclass(frozen=True)
class Manner:
    """What may be done in one way or another; which is faster depends on the model.

    Attributes
    ----------
    weight_chunks : int
        A part of a layer whose weights are loaded together takes at most the weight memory
        divided by this (a tile of output channels at least). Many small parts keep the bus busy
        where weights come slower than they are used; few large ones take fewer commands.
    overlap : bool
        A convolution begins while the outputs of the one before it are still being finished; that
        takes more commands.
    least : int
        Vectors that a tile of the accumulator must have for its layer to overlap.
    postpone : bool
        A graph input that is loaded in another form comes in parts, to begin with the first ones.
    fine : bool
        A graph input comes in more and smaller parts than else.
    ramp : tuple of int
        Layers with weights, counted from 0, whose first chunks of weights are small: those at the
        beginning, as nothing before them gives the bus time.
    ahead : int
        Loads that may stand before a command that does not need them, as far as the queue has room.
        With many of them the first commands of the other engines are fetched late.
    residents : tuple of Resident
        Weights that stay on chip from run to run.
    """

    weight_chunks: int = 2
    overlap: bool = False
    least: int = LEAST_VECTORS
    postpone: bool = False
    fine: bool = False
    ramp: tuple[int, ...] = ()
    ahead: int = 15
    residents: tuple[Resident, ...] = ()


def schedule_works(
    graph: Graph,
    plan: MemoryPlan,
    config: NpuConfig,
    manner: Manner = Manner(),
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
    manner : Manner
        How.
    """
    return _Scheduler(graph, plan, config, manner).run()


class _Scheduler:
    def __init__(self, graph: Graph, plan: MemoryPlan, config: NpuConfig, manner: Manner) -> None:
        self.manner = manner
        self.graph = graph
        self.plan = plan
        self.config = config
        self.pool = ConstantPool(config.bus_bytes)
        self.chunks = ChunkLoader(config, self.pool, manner.weight_chunks, manner.residents)
        self.on_chip = OnChip(graph, plan, config)
        self.loads = LoadWorks(self.on_chip, self.pool)
        self.convs = ConvWorks(self.on_chip, self.chunks, ramp=manner.ramp)
        self.vectors = VectorWorks(self.on_chip, self.pool)
        self._edges = self._find_edges()

    def _find_edges(self) -> dict[int, Edges]:
        """Return, by their indices, where works overlap with neighbours.

        A neighbour is what is more than another view of a tensor.
        """
        works = [
            work_plan
            for work_plan in self.plan.works
            if work_plan.work.kind.placement is not Placement.VIEW
        ]
        seams = [self._can_overlap(*pair) for pair in pairwise([None, *works, None])]
        return {
            work_plan.work.index: Edges(head, tail, self.manner.least)
            for work_plan, (head, tail) in zip(works, pairwise(seams), strict=True)
        }

    def run(self) -> Schedule:
        done_early: set[int] = set()
        works = self.plan.works
        for work_plan, successor in zip(works, [*works[1:], None], strict=True):
            if work_plan.work.index in done_early:
                continue
            placement = work_plan.work.kind.placement
            if placement is Placement.VIEW:
                self.loads.view(work_plan)
            elif placement is Placement.LOADED and self._can_postpone(work_plan, successor):
                self.loads.postpone(work_plan.work)
            elif placement is Placement.LOADED:
                self.loads.load(work_plan)
            elif placement is Placement.STORED:
                self.loads.store(work_plan.work)
            elif successor is not None and self._can_interleave(work_plan, successor):
                edges = replace(self._edges[work_plan.work.index], tail=False)
                self._work(work_plan, edges, pool=successor.work)
                done_early.add(successor.work.index)
            else:
                self._work(work_plan, self._edges[work_plan.work.index])
        return Schedule(
            self.on_chip.steps, self.pool.data, self.convs.weight_bytes, self.chunks.setup
        )

    def _input_stripes(self, work: Work, tiling: Tiling) -> tuple[Range, ...]:
        """Return the stripes of a work; more than one if its resident input is yet to be loaded.

        A convolution can begin with the first rows of a graph input while the others arrive, if
        its weights stay for all stripes.
        """
        name = work.inputs[0]
        tensor = self.plan.table.tensors[name]
        if (
            not self.on_chip.waits(name)
            or len(tiling.stripes) * len(tiling.columns) > 1
            or not self.convs.kept(work, tiling, tiling.groups[0])
        ):
            return tiling.stripes
        rows = tiling.stripes[0][1]
        cycles = tensor.height * tensor.layout.row_pitch // self.config.bus_bytes
        least = FINE_STRIPE_CYCLES if self.manner.fine else INPUT_STRIPE_CYCLES
        count = min(rows, MAX_INPUT_STRIPES, max(1, cycles // least))
        if self.on_chip.is_postponed(name):
            count = min(rows, POSTPONED_STRIPES)
        return split(rows, ceil_div(rows, count))

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
                self.on_chip.whole(pool.output).footprint.overlaps(
                    self.on_chip.whole(name).footprint
                )
                for name in operands[:-1]
            )
        )

    def _can_overlap(self, work_plan: WorkPlan | None, successor: WorkPlan | None) -> bool:
        """Whether a work is a convolution that can begin before the one ahead of it has ended."""
        if not self.manner.overlap or work_plan is None or successor is None:
            return False
        tilings = work_plan.tiling, successor.tiling
        if any(tiling is None or tiling.mapping is None for tiling in tilings):
            return False
        tensors = self.plan.table.tensors
        ours, theirs = tensors[work_plan.work.output], tensors[successor.work.inputs[0]]
        shared = (ours.chip, ours.offset) == (theirs.chip, theirs.offset)
        return shared and work_plan.work.output in self.plan.addresses

    def _can_postpone(self, work_plan: WorkPlan, successor: WorkPlan | None) -> bool:
        """Whether a loaded tensor's rows can come while the next work, a convolution, runs."""
        work = work_plan.work
        return (
            self.manner.postpone
            and successor is not None
            and successor.tiling is not None
            and successor.tiling.mapping is not None
            and work_plan.tiling is None
            and work.index not in self.plan.table.moves
            and work.index not in self.plan.stored
            and work.output in self.plan.addresses
            and work.output not in self.plan.home_plan.homes
            and self.plan.table.tensors[work.output].chip == work.output
            and all(name in self.graph.inputs for name in work.inputs)
            and successor.work.inputs[0] == work.output
        )

    def _work(self, work_plan: WorkPlan, edges: Edges, pool: Work | None = None) -> None:
        work, tiling = work_plan.work, work_plan.tiling
        assert tiling is not None, "this kind of work is not cut"
        if not work.kind.table_per_tile(work.op):
            self.vectors.load_table(work, tile=0)
        stripes = self._input_stripes(work, tiling)
        pieces = list(product(stripes, tiling.columns))
        if len(stripes) == len(tiling.stripes):
            for name in work.on_chip:
                if name in self.plan.addresses:
                    self.on_chip.load_graph_input(name, work.index)
        parts = 1 if pool is None else POOL_CHUNKS
        unit = 0
        for group in tiling.groups:
            kept = self.convs.kept(work, tiling, group)
            chunks = self.convs.cut(work, tiling, group, len(pieces), parts)
            if kept and len(pieces) > 1:
                self.convs.reserve(work, tiling, group)
            for index, (rows, columns) in enumerate(pieces):
                buffer = unit % tiling.buffers
                sources = [
                    self.on_chip.source(work_plan, operand, rows, columns, group, buffer)
                    for operand in range(len(work.inputs))
                    if operand not in work.in_memory
                ]
                target = self.on_chip.target(work_plan, rows, columns, group, buffer)
                if tiling.mapping is not None:
                    load = index == 0 or not kept
                    self.convs.convolve(
                        work_plan,
                        sources,
                        target,
                        rows,
                        columns,
                        group,
                        chunks,
                        load=load,
                        edges=edges.of_chunk(unit, len(pieces) * len(tiling.groups)),
                        then=None if pool is None else partial(self._pool_part, pool, target),
                    )
                elif tiling.phases is not None:
                    self.convs.phases(work, tiling, sources[0], target, rows, group)
                elif work.kind.multiply is not None:
                    self._multiply(work, sources[0], target, rows, group)
                else:
                    self.vectors.compute(work, sources, target, rows, columns, group)
                if work.output in self.plan.home_plan.homes:
                    self.on_chip.transfer(Store, target, work.output, work.index)
                unit += 1
        if pool is not None and pool.output in self.plan.home_plan.homes:
            self.on_chip.transfer(Store, self.on_chip.whole(pool.output), pool.output, pool.index)

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
        self.on_chip.steps.extend(work.kind.multiply(work.op, job, self.chunks))

    def _pool_part(self, pool: Work, source: Slab, tiles: Range) -> None:
        """Pool some channel tiles of a convolution's output."""
        target = self.on_chip.whole(pool.output)
        rows, columns = (target.y_first, target.y_end), (target.x_first, target.x_end)
        self.vectors.compute(pool, [source], target, rows, columns, tiles)
