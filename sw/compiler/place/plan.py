"""Decides which tensors stay on chip, and where everything on chip lies.

Everything is resident to begin with. While that does not fit, one tensor is moved to system
memory: of those alive where the demand is greatest, the one that relieves most for the traffic it
costs. The works that touch it are then cut (`tiling`), and their stripe buffers take what the
resident tensors leave free. Tensors are not windows of one that is moved to memory: where that is
so, they are placed again without.
"""

from __future__ import annotations

from dataclasses import dataclass

from celosia.errors import CompileError
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.place.alloc import Item, free_gaps, pack, place_in_gaps
from celosia.sw.compiler.place.memory_parts import StoredParts, stored_parts, with_parts
from celosia.sw.compiler.place.storage import (
    HomePlan,
    Storage,
    TensorTable,
    layout_tensors,
    plan_homes,
)
from celosia.sw.compiler.place.tiling import Tiling, tilings
from celosia.sw.compiler.place.views import Sharing
from celosia.sw.compiler.place.works import Work

__all__ = ["MemoryPlan", "WorkPlan", "plan_memory"]

MANY_UNITS = 256
"""More parts of a work than that cost more than what they leave on chip saves."""

COPY_LINES = 8
"""Buffer through which a RESHAPE copies a graph input to a graph output, in lines."""


@dataclass(frozen=True)
class WorkPlan:
    """A work, how it is cut, and the addresses of its stripe buffers.

    Attributes
    ----------
    tiling : Tiling or None
        None for a view, and for what is loaded packed.
    in_buffers : tuple of tuple of int
        Byte addresses of each input's buffers; empty for a resident input.
    out_buffers : tuple of int
        Likewise of the output.
    """

    work: Work
    tiling: Tiling | None
    in_buffers: tuple[tuple[int, ...], ...] = ()
    out_buffers: tuple[int, ...] = ()


@dataclass(frozen=True)
class MemoryPlan:
    """Where every tensor is.

    Attributes
    ----------
    addresses : dict of str to int
        Byte address on chip of each resident tensor.
    peak_bytes : int
        Greatest demand for activation SRAM.
    stored : dict of int to StoredParts
        By the work's index, of movements whose parts are stored where the result is in memory.
    """

    table: TensorTable
    home_plan: HomePlan
    addresses: dict[str, int]
    works: list[WorkPlan]
    peak_bytes: int
    stored: dict[int, StoredParts]


def plan_memory(
    graph: Graph,
    works: list[Work],
    config: NpuConfig,
    *,
    keep_tensors: bool,
    sharing: Sharing = Sharing.NONE,
) -> MemoryPlan:
    """Place all tensors.

    Parameters
    ----------
    graph : Graph
        Lowered.
    works : list of Work
        From `works_of`.
    config : NpuConfig
        The machine.
    keep_tensors : bool
        Also give every tensor a place in memory.
    sharing : Sharing
        What movements may do.

    Raises
    ------
    CompileError
        If a work does not fit however it is cut.
    """
    refused: frozenset[int] = frozenset()
    while True:
        table = layout_tensors(graph, works, config, sharing=sharing, refused=refused)
        planner = _Planner(graph, works, config, table, keep_tensors=keep_tensors, sharing=sharing)
        try:
            return planner.run()
        except _CannotShareError as error:
            refused |= error.works


class _CannotShareError(Exception):
    """Some tensors that movements share, or copy on chip, have to be in memory.

    Attributes
    ----------
    works : frozenset of int
        Indices of the movements.
    """

    def __init__(self, works: frozenset[int]) -> None:
        super().__init__(f"works {sorted(works)}")
        self.works = works


class _Planner:
    def __init__(
        self,
        graph: Graph,
        works: list[Work],
        config: NpuConfig,
        table: TensorTable,
        *,
        keep_tensors: bool,
        sharing: Sharing,
    ) -> None:
        self.graph = graph
        self.works = works
        self.config = config
        self.keep_tensors = keep_tensors
        self.sharing = sharing
        self.table = table
        self.packed = {w.output for w in works if w.kind.packed}
        self.tilings: dict[tuple[int, tuple[bool, ...]], list[Tiling]] = {}

    def run(self) -> MemoryPlan:
        # An input of the model that only the load engine reads need not be on chip.
        read = {
            self.table.tensors[name].chip
            for work in self.works
            if work.kind.placement is not Placement.LOADED
            for name in (*work.on_chip, work.output)
        }
        sources = {
            name for name in self.graph.inputs if name in self.table.tensors and name not in read
        }
        resident = {
            name
            for name, storage in self.table.storages.items()
            if storage.size_bytes <= self.config.act_bytes and name not in sources
        }
        resident -= {w.output for w in self.works if w.kind.placement is Placement.STORED}
        self._require_shared(set(self.table.storages) - resident - sources)
        while True:
            addresses = self._place(resident)
            if addresses is not None:
                return self._finish(resident, addresses)
            spilled = self._choose_spill(resident)
            self._require_shared({spilled})
            resident.remove(spilled)

    def _require_shared(self, spilled: set[str]) -> None:
        """Give up movements on chip of tensors that are to be in memory."""
        works = frozenset(
            index
            for index in self.table.moves
            if not spilled.isdisjoint(self._operands(self.works[index]))
        )
        if works:
            raise _CannotShareError(works)

    # Residency ------------------------------------------------------------------------------

    def _operands(self, work: Work) -> list[str]:
        return [self.table.tensors[name].chip for name in (*work.inputs, work.output)]

    def _tilings(self, work: Work, resident: set[str]) -> list[Tiling]:
        flags = tuple(storage in resident for storage in self._operands(work))
        key = (work.index, flags)
        if key not in self.tilings:
            self.tilings[key] = tilings(
                work,
                [self.table.tensors[name] for name in work.inputs],
                self.table.tensors[work.output],
                list(flags),
                self.config,
            )
        return self.tilings[key]

    def _least_buffers(self, work: Work, resident: set[str]) -> list[int]:
        """Return the sizes of the buffers of the cut that needs least, if it can be of few units.

        Else a tensor that just fits would leave room for buffers of a row or a pixel only.
        """
        if work.kind.placement is Placement.VIEW:
            return [COPY_LINES * self.config.line_bytes] if self._copies(work) else []
        if work.kind.packed or work.kind.placement is Placement.STORED:
            return []
        ways = self._tilings(work, resident)
        few = [tiling for tiling in ways if tiling.units <= MANY_UNITS]
        return min((tiling.buffer_sizes for tiling in few or ways), key=sum)

    def _copies(self, work: Work) -> bool:
        source, result = (self.table.tensors[n] for n in (work.inputs[0], work.output))
        return source.memory != result.memory

    def _merged(self, resident: set[str]) -> dict[str, str]:
        """Let elementwise results take the place of an operand that dies there."""
        target = {name: name for name in resident}
        for work in self.works:
            if not (work.kind.in_place or work.add is not None):
                continue
            output = self.table.tensors[work.output]
            storage = self.table.storages[output.chip]
            if storage.name not in resident or storage.first != work.index or storage.windows:
                continue
            operands = work.inputs[1:] if work.add is not None else work.inputs
            for name in operands:
                tensor = self.table.tensors[name]
                source = self.table.storages[tensor.chip]
                if (
                    source.name in resident
                    and not source.windows
                    and source.last == work.index
                    and source.name != storage.name
                    and target[storage.name] == storage.name
                    and (tensor.layout, tensor.height) == (output.layout, output.height)
                    and not (work.add is not None and tensor.chip == self._operands(work)[0])
                ):
                    target[storage.name] = source.name
                    break
        return target

    def _place(self, resident: set[str]) -> dict[str, int] | None:
        """Return the addresses of resident storages if they and the least buffers fit."""
        target = self._merged(resident)

        def root(name: str) -> str:
            while target[name] != name:
                name = target[name]
            return name

        groups: dict[str, list[Storage]] = {}
        for name in sorted(resident):
            groups.setdefault(root(name), []).append(self.table.storages[name])
        names = list(groups)
        items = [
            Item(
                max(s.size_bytes for s in groups[name]),
                min(s.first for s in groups[name]),
                max(s.last for s in groups[name]),
            )
            for name in names
        ]
        for work in self.works:
            for size in self._least_buffers(work, resident):
                items.append(Item(size, work.index, work.index))
        placed = pack(items, self.config.act_bytes)
        if placed is None:
            return None
        return {
            storage.name: address
            for name, address in zip(names, placed, strict=False)
            for storage in groups[name]
        }

    def _demand(self, resident: set[str]) -> list[int]:
        """Return the bytes wanted while each work runs."""
        return [
            sum(
                storage.size_bytes
                for storage in (self.table.storages[name] for name in resident)
                if storage.first <= work.index <= storage.last
            )
            + sum(self._least_buffers(work, resident))
            for work in self.works
        ]

    def _choose_spill(self, resident: set[str]) -> str:
        demand = self._demand(resident)
        worst = max(range(len(demand)), key=lambda k: demand[k])
        # Where the sum would fit but no placement was found, aim below the capacity.
        capacity = min(self.config.act_bytes, demand[worst] - self.config.line_bytes)
        alive = [
            self.table.storages[name]
            for name in sorted(resident)
            if self.table.storages[name].first <= worst <= self.table.storages[name].last
            and name not in self.packed
        ]
        if not alive:
            raise self._does_not_fit(self.works[worst], demand[worst])

        def excess(values: list[int]) -> int:
            return sum(max(0, value - capacity) for value in values)

        before = excess(demand)

        def merit(storage: Storage) -> float:
            relief = before - excess(self._demand(resident - {storage.name}))
            return relief / self._spill_cost_bytes(storage)

        return max(alive, key=merit).name

    def _spill_cost_bytes(self, storage: Storage) -> int:
        accesses = 0 if any(n in self.graph.inputs for n in storage.tensors) else 1
        for work in self.works:
            accesses += sum(name in storage.tensors for name in work.inputs)
        return storage.size_bytes * max(1, accesses)

    def _does_not_fit(self, work: Work, needed_bytes: int) -> CompileError:
        return CompileError(
            work.title,
            f"the smallest piece it can be cut into needs {needed_bytes} bytes of activation SRAM,"
            f" configuration {self.config.name!r} has {self.config.act_bytes}",
            "use a configuration with a larger act_bytes, or a narrower layer",
            op_index=work.op.origin.index,
        )

    # Result ---------------------------------------------------------------------------------

    def _finish(self, resident: set[str], storage_addresses: dict[str, int]) -> MemoryPlan:
        addresses = {
            name: storage_addresses[tensor.chip] + tensor.offset
            for name, tensor in self.table.tensors.items()
            if tensor.chip in resident
        }
        in_memory = {
            name
            for name, tensor in self.table.tensors.items()
            if name not in self.packed
            and (
                self.keep_tensors
                or tensor.chip not in resident
                or tensor.dense_memory
                or tensor.read_in_memory
            )
        }
        stored: dict[int, StoredParts] = {}
        if self.sharing is not Sharing.NONE:
            stored = stored_parts(self.graph, self.works, self.table, resident)
        in_memory -= {name for parts in stored.values() for name in parts.places}
        homes = with_parts(
            plan_homes(self.graph, self.works, self.table, self.config, in_memory),
            self.table,
            stored.values(),
        )
        plans = []
        peak = 0
        for work in self.works:
            taken = [
                (storage_addresses[name], storage_addresses[name] + storage.size_bytes)
                for name, storage in self.table.storages.items()
                if name in resident and storage.first <= work.index <= storage.last
            ]
            plan = self._plan_work(work, resident, taken)
            plans.append(plan)
            buffers = sum(plan.tiling.buffer_sizes) if plan.tiling else 0
            free = sum(end - start for start, end in free_gaps(taken, self.config.act_bytes))
            peak = max(peak, self.config.act_bytes - free + buffers)
        return MemoryPlan(self.table, homes, addresses, plans, peak, stored)

    def _plan_work(self, work: Work, resident: set[str], taken: list[tuple[int, int]]) -> WorkPlan:
        gaps = free_gaps(taken, self.config.act_bytes)
        if work.kind.placement is Placement.STORED and self._operands(work)[0] not in resident:
            raise CompileError(
                work.title,
                f"{work.inputs[0]!r} is not on chip as a whole",
                "use a configuration with a larger act_bytes",
            )
        if work.kind.packed or work.kind.placement is Placement.STORED:
            return WorkPlan(work, None)
        if work.kind.placement is Placement.VIEW:
            if not self._copies(work):
                return WorkPlan(work, None)
            copy = place_in_gaps([COPY_LINES * self.config.line_bytes], gaps)
            assert copy is not None, "the placement reserved the copy buffer"
            return WorkPlan(work, None, out_buffers=tuple(copy))
        for tiling in self._tilings(work, resident):
            placed = place_in_gaps(tiling.buffer_sizes, gaps)
            if placed is not None:
                return _with_addresses(work, tiling, placed)
        raise AssertionError("the placement reserved the least buffers")


def _with_addresses(work: Work, tiling: Tiling, placed: list[int]) -> WorkPlan:
    streamed = [index for index, size in enumerate((*tiling.in_bytes, tiling.out_bytes)) if size]
    buffers: list[list[int]] = [[] for _ in range(len(tiling.in_bytes) + 1)]
    for position, address in enumerate(placed):
        buffers[streamed[position % len(streamed)]].append(address)
    return WorkPlan(
        work,
        tiling,
        in_buffers=tuple(tuple(b) for b in buffers[:-1]),
        out_buffers=tuple(buffers[-1]),
    )
