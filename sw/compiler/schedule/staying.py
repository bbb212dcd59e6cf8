"""Which weights may stay on chip from run to run: ways to choose, of which the fastest is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, Conv, Load, Space
from celosia.sw.compiler.cost.engines import conv_tile_cycles
from celosia.sw.compiler.place.plan import MemoryPlan
from celosia.sw.compiler.schedule.residents import Resident

__all__ = ["Candidate", "candidates_of", "choices"]

LEAST_ROOM_PARTS = (2, 4, 8)
"""What is left for weights that do not stay: the memory divided by this, or what they need."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layer whose weights may stay: all its tiles, and what it is worth.

    Attributes
    ----------
    whole : Resident
        All of the layer.
    loaded_bytes : int
        Bytes of its weights that cross the bus in a run if it does not stay.
    busy_cycles : int
        What the array takes for it.
    more : bool
        It also has weights that do not stay: `ConvOp.more_weights`.
    """

    whole: Resident
    loaded_bytes: int
    busy_cycles: int
    more: bool = False


def candidates_of(
    plan: MemoryPlan, commands: Sequence[Command], layers: Sequence[int], config: NpuConfig
) -> list[Candidate]:
    """Return the layers whose weights may stay, in their order.

    Parameters
    ----------
    plan : MemoryPlan
        Where tensors are, and how works are cut.
    commands : sequence of Command
        Of a schedule in which nothing stays.
    layers : sequence of int
        The work that each is for.
    config : NpuConfig
        The machine.
    """
    loaded: dict[int, int] = {}
    busy: dict[int, int] = {}
    for command, layer in zip(commands, layers, strict=True):
        if isinstance(command, Load) and command.space == Space.WGT:
            loaded[layer] = loaded.get(layer, 0) + command.row_bytes * command.n1
        elif isinstance(command, Conv):
            cycles = command.n_oc * sum(conv_tile_cycles(command, config))
            busy[layer] = busy.get(layer, 0) + cycles
    found = []
    for work_plan in plan.works:
        index, tiling = work_plan.work.index, work_plan.tiling
        if tiling is None or tiling.mapping is None:
            continue
        whole = Resident(
            layer=index,
            tiles=max(end for _, end in tiling.groups),
            tile_bytes=tiling.mapping.tile_weight_bytes(config),
        )
        if loaded.get(index):
            found.append(
                Candidate(
                    whole=whole,
                    loaded_bytes=loaded[index],
                    busy_cycles=busy[index],
                    more=bool(tiling.mapping.op.more_weights),
                )
            )
    return found


def choices(
    candidates: Sequence[Candidate], word_cycles: float, *, other_bytes: int, config: NpuConfig
) -> Iterator[tuple[Resident, ...]]:
    """Yield what may stay, to be compared by predicted cycles.

    If not all fits, layers for which the bus takes longest beside the array stay first. How much
    room the others' weights are worth is what the comparison is for.

    Parameters
    ----------
    candidates : sequence of Candidate
        Layers whose weights may stay.
    word_cycles : float
        Cycles of a bus word in a long transfer.
    other_bytes : int
        Weights that are loaded in a run whatever stays.
    config : NpuConfig
        The machine.
    """
    total = sum(one.whole.size_bytes for one in candidates)
    others = bool(other_bytes) or any(one.more for one in candidates)
    if not others and total <= config.wgt_bytes:
        if candidates:
            yield tuple(one.whole for one in candidates)
        return

    def excess(one: Candidate) -> float:
        """Cycles that the array would wait for each byte."""
        bus = one.loaded_bytes * word_cycles / config.bus_bytes
        return (bus - one.busy_cycles) / one.whole.size_bytes

    def saved(one: Candidate) -> float:
        return one.loaded_bytes / one.whole.size_bytes

    largest = max((one.whole.tile_bytes for one in candidates), default=0)
    seen: set[tuple[Resident, ...]] = set()
    for worth in (excess, saved):
        ordered = sorted(candidates, key=worth, reverse=True)
        for parts in LEAST_ROOM_PARTS:
            room = max(2 * largest, config.wgt_bytes // parts)
            if others:
                room = max(room, config.wgt_bytes // 2)
            chosen = _filled(ordered, config.wgt_bytes - room)
            if chosen and chosen not in seen:
                seen.add(chosen)
                yield chosen


def _filled(ordered: Sequence[Candidate], room_bytes: int) -> tuple[Resident, ...]:
    """Return what stays of candidates in the order of their worth."""
    chosen = []
    for one in ordered:
        tiles = min(one.whole.tiles, room_bytes // one.whole.tile_bytes)
        if tiles > 0:
            chosen.append(replace(one.whole, tiles=tiles))
            room_bytes -= chosen[-1].size_bytes
    return tuple(sorted(chosen, key=lambda one: one.layer))
