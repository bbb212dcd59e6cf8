"""What the machine has done in a run: events, and how much its nets have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.sim.rtl.activity import Activity, Memory, Structure

__all__ = ["Activities", "Events", "MemoryUse", "count_events", "product_changes"]

CORE = "npu/component/core"
GRID = f"{CORE}/array/grid"
ACCUMULATOR = f"{CORE}/array/accumulator"
WEIGHT_LINES = 2
"""Lines of weights that a request reads, one of each bank."""
VECTOR_ADDS = 3
"""Sums of a lane: of the operands, of the first rounding, of the second with the zero point."""
VECTOR_BITS = 32
ACT_SEGMENTS = 3
"""Lines that the array may read in a cycle."""


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Accesses to a memory, whose banks are alike.

    Attributes
    ----------
    width_bits, bank_bytes : int
        Of a word, and of a bank.
    reads, writes : float
        Words. A write of some of a word's bytes counts as that part of a word.
    """

    width_bits: int
    bank_bytes: int
    reads: float
    writes: float


@dataclass(frozen=True, kw_only=True)
class Activities:
    """Changes of bits, over those that uniformly random operands would cause: 1 is as random.

    Attributes
    ----------
    products : float
        Of the array's multipliers.
    sums : float
        Of the adders between the rows.
    accumulated : float
        Of what is written to the accumulator.
    vector : float
        Of the products of the vector engine's lanes.
    """

    products: float
    sums: float
    accumulated: float
    vector: float


@dataclass(frozen=True, kw_only=True)
class Events:
    """What happened in a run.

    Attributes
    ----------
    cycles : int
        From the doorbell to the end.
    multiplies : int
        Of the array: every multiplier in every cycle in which it takes a window, zeros of the
        padding and rows and columns without weights included.
    adds : int
        Of the array: sums between its rows.
    accumulations : int
        Sums of 32 bits that the accumulator adds.
    act, weights, params, accumulator : MemoryUse
    vector_multiplies : int
        Of the lanes.
    bus_words : int
        Words to and from system memory: tensors, weights, parameters, commands.
    bus_bits : int
        Of a word.
    register_bits : int
        All flip-flops.
    changed_bits : int
        How often their contents have changed.
    clocked_bits : int
        How often a clock edge came to one of them, where the clock of a part that has nothing to
        do stands still.
    small_memory_bits : int
        Bits of queues, tables and buffers, whose accesses are not counted.
    sum_bits : int
        Width of a sum between the rows.
    activities : Activities
    """

    cycles: int
    multiplies: int
    adds: int
    accumulations: int
    act: MemoryUse
    weights: MemoryUse
    params: MemoryUse
    accumulator: MemoryUse
    vector_multiplies: int
    bus_words: int
    bus_bits: int
    register_bits: int
    changed_bits: int
    clocked_bits: int
    small_memory_bits: int
    sum_bits: int
    activities: Activities


@cache
def product_changes() -> float:
    """Return how many of 16 bits change between products of uniformly random int8, on average."""
    values = np.arange(-128, 128, dtype=np.int32)
    products = (values[:, None] * values[None, :]).ravel() & 0xFFFF
    ones = [(products >> bit & 1).mean() for bit in range(16)]
    return float(sum(2 * share * (1 - share) for share in ones))


def count_events(
    config: NpuConfig, activity: Activity, structure: Structure, counters: Mapping[str, int]
) -> Events:
    """Gather the events of a run.

    Parameters
    ----------
    config : NpuConfig
        The machine.
    activity : Activity
        Of the run.
    structure : Structure
        Of the machine.
    counters : mapping of str to int
        Its performance counters.

    Raises
    ------
    BuildError
        If the machine is not made as the others, as one of firmware is.
    """
    cells = config.rows * config.cols
    windows = counters["array_busy"]
    banks = {
        name: [memory for memory in structure.memories if memory.path.startswith(f"{CORE}/{part}")]
        for name, part in {
            "act": "act/",
            "weights": "wgt/",
            "params": "param",
            "accumulator": "array/accumulator/",
        }.items()
    }
    high = activity.high_cycles

    def use(name: str, reads: float) -> MemoryUse:
        alike: list[Memory] = banks[name]
        return MemoryUse(
            width_bits=alike[0].width_bits,
            bank_bytes=alike[0].size_bytes,
            reads=reads,
            writes=sum(_writes(activity, memory) for memory in alike),
        )

    # Of the vector engine's requests some are refused, and repeated.
    act_reads = (
        sum(high(f"{CORE}/act/array__bank__{segment}") for segment in range(ACT_SEGMENTS))
        + high(f"{CORE}/act/vector__bank")
        - counters["vector_wait_act"]
        + _stored(activity)
    )
    accumulator = use("accumulator", high(f"{ACCUMULATOR}/tag", bit=0) + high(f"{CORE}/acc__req"))
    copies = len(banks["accumulator"]) if _mirrored(banks["accumulator"]) else 1
    accumulations = round(accumulator.writes / copies) * config.cols
    issued = high(f"{CORE}/vector/pipeline/issue") * config.vector_lanes
    sums = list(activity.matching(f"{GRID}/sum_\\d+_\\d+"))
    sum_bits = len(activity.high[sums[0]])
    # The first row has nothing to add to.
    multiplies, adds = windows * cells, windows * (cells - config.cols)
    small = set(structure.memories) - {memory for found in banks.values() for memory in found}
    clocks = {"sync": counters["total"], "reset": 0}
    clocks |= {
        register.clock: high(f"npu/enable_{register.clock}")
        for register in structure.registers
        if register.clock not in clocks
    }
    return Events(
        cycles=counters["total"],
        multiplies=multiplies,
        adds=adds,
        accumulations=accumulations,
        act=use("act", act_reads),
        weights=use("weights", WEIGHT_LINES * high(f"{CORE}/wgt/read__req")),
        params=use("params", high(f"{CORE}/param__req")),
        accumulator=accumulator,
        vector_multiplies=issued,
        bus_words=counters["bus_read"] + counters["bus_write"],
        bus_bits=config.bus_bits,
        register_bits=sum(register.width_bits for register in structure.registers),
        changed_bits=activity.changes_of(register.path for register in structure.registers),
        clocked_bits=sum(
            register.width_bits * clocks[register.clock] for register in structure.registers
        ),
        small_memory_bits=sum(memory.width_bits * memory.depth for memory in small),
        sum_bits=sum_bits,
        activities=Activities(
            products=_share(
                activity.changes_of(activity.matching(f"{GRID}/product_\\d+_\\d+")),
                multiplies * product_changes(),
            ),
            sums=_share(activity.changes_of(sums), multiplies * sum_bits / 2),
            accumulated=_share(
                activity.changes_of([f"{ACCUMULATOR}/new"]), accumulations * VECTOR_BITS / 2
            ),
            vector=_share(
                activity.changes_of(
                    activity.matching(f"{CORE}/vector/pipeline/lane_\\d+/multiplier/t")
                ),
                issued * VECTOR_BITS / 2,
            ),
        ),
    )


def _share(changes: int, reference: float) -> float:
    return changes / reference if reference else 0.0


def _writes(activity: Activity, memory: Memory) -> float:
    """Return the words that were written: each bit of the enable is for a part of one."""
    bits = activity.high[f"{memory.path}/write__en"]
    return sum(bits) / len(bits)


def _stored(activity: Activity) -> float:
    """Return the lines that the store engine reads, one or two for each granted window."""
    asked = activity.high_cycles(f"{CORE}/act/store__req")
    if not asked:
        return 0.0
    granted = activity.high_cycles(f"{CORE}/act/store__gnt")
    # The banks keep their last value where nothing is asked for: at most two of a window.
    lines = activity.high_cycles(f"{CORE}/act/store__banks") / activity.cycles
    return granted * max(1.0, min(2.0, lines))


def _mirrored(memories: list[Memory]) -> bool:
    """Whether the accumulator's memories hold the same, one for each reader."""
    return all(memory.path.rsplit("/", 1)[-1].startswith("of_") for memory in memories)
