"""From the cycles of layers to those of a network on several arrays.

Layers run one after the other, with a barrier between them: a layer begins when all arrays are done
with the one before it, what it reads of another array's activation memory has come, and its weights
are there. Weights cross the bus once for all arrays, in the order of the layers, as far ahead as
the weight memories have room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.report.arrays.cut import needed_region, reads_all
from celosia.sw.report.arrays.measure import Network, SplitCycles
from celosia.sw.report.arrays.split import ONE, Region

__all__ = ["BARRIER_CYCLES", "Cycles", "best_choice", "exchanged_lines", "network_cycles"]

BARRIER_CYCLES = 4
"""From the last array's last result to the first command of the next layer beyond what it takes on
one array: a register on the way to where the tokens of all arrays meet, and one on the way back."""
LATENCY_CYCLES = 8
"""Of system memory, from the last word's request to its arrival."""

Lines = dict[tuple[int, tuple[str, ...]], int]
"""By layer and the splits of what it reads and of itself."""
LONGEST_RUN = 3
"""Of layers whose split is changed together in search of a better choice."""

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """What a network takes, and what it goes on; the parts add up to `total`.

    Attributes
    ----------
    total : int
        Cycles of an inference.
    ideal : float
        With all multipliers busy all the time.
    array : float
        More than that because one array is not always busy with the whole layer: an arrays'-th of
        what it takes more.
    cut : float
        More than an arrays'-th of that on average: each piece begins and drains, has rows of its
        neighbour's in its windows, passes that are too short for the weights of the next one.
    uneven : float
        Arrays wait for the one with the largest piece, or have none.
    exchange : int
        Lines that an array needs of another one's activation memory, one a cycle.
    barrier : int
        Cycles of the barriers.
    bus : int
        All arrays wait for weights.
    start : int
        From the doorbell to the first command, and to the interrupt.
    """

    total: int
    ideal: float
    array: float
    cut: float
    uneven: float
    exchange: int
    barrier: int
    bus: int
    start: int


def network_cycles(
    network: Network,
    choice: Sequence[str],
    config: NpuConfig,
    *,
    arrays: int,
    start_cycles: int,
    resident: bool = False,
    lines: Lines | None = None,
) -> Cycles:
    """Return the cycles of a network.

    Parameters
    ----------
    network : Network
        Measured.
    choice : sequence of str
        The split of each layer, by name.
    config : NpuConfig
        Of an array.
    arrays : int
        How many there are.
    start_cycles : int
        What a program without a command takes.
    resident : bool
        Whether all weights are on chip already.
    lines : dict, optional
        Keeps what `exchanged_lines` said.
    """
    known: Lines = {} if lines is None else lines
    barrier = 0 if arrays == 1 else BARRIER_CYCLES
    timeline = _Timeline(config.wgt_bytes, resident=resident)
    waited = exchanged = barriers = 0
    own = cut = uneven = 0.0
    for index, count in units(network, choice):
        chosen = (network.splits if count == 1 else network.pairs)[index][choice[index]]
        key = index, tuple(choice[i] for i in (*_producers(network, index), index))
        if key not in known:
            known[key] = exchanged_lines(network, index, choice, config)
        moved = known[key]
        held = barrier if index else 0
        waited += timeline.run(chosen, moved + held)
        exchanged += moved
        barriers += held
        alone = sum(splits[ONE.name].cycles for splits in network.splits[index : index + count])
        own += alone / arrays
        cut += chosen.mean_cycles - alone / arrays
        uneven += chosen.cycles - chosen.mean_cycles
    ideal = network.macs / (arrays * config.macs_per_cycle)
    return Cycles(
        total=timeline.now + start_cycles,
        ideal=ideal,
        array=own - ideal,
        cut=cut,
        uneven=uneven,
        exchange=exchanged,
        barrier=barriers,
        bus=waited,
        start=start_cycles,
    )


def units(network: Network, choice: Sequence[str]) -> list[tuple[int, int]]:
    """Return what runs in one go: first layer and number of layers, so that most cycles are saved.

    Two layers do if they are split the same way and were measured as a pair.
    """
    # The best division of the first n layers: cycles, and the units.
    best: list[tuple[int, list[tuple[int, int]]]] = [(0, [])]
    for index, name in enumerate(choice):
        cycles, before = best[index]
        alone = network.splits[index][name].cycles
        ways = [(cycles + BARRIER_CYCLES + alone, [*before, (index, 1)])]
        if index and choice[index - 1] == name and name in network.pairs[index - 1]:
            cycles, before = best[index - 1]
            pair = network.pairs[index - 1][name].cycles
            ways.append((cycles + BARRIER_CYCLES + pair, [*before, (index - 1, 2)]))
        best.append(min(ways, key=lambda way: way[0]))
    return best[-1][1]


class _Timeline:
    """When the bus is free, and when the arrays are.

    Weights of a layer come in chunks of equal size, as many as its largest piece has lines of
    channels; a chunk needs room in the weight memory until it has been computed with.
    """

    def __init__(self, room_bytes: int, *, resident: bool) -> None:
        self.now = 0
        self._bus = 0.0
        self._room_bytes = room_bytes
        self._resident = resident
        self._chunks: list[tuple[int, float]] = []
        """Bytes, and when it has been computed with."""

    def run(self, layer: SplitCycles, delay_cycles: int) -> int:
        """Run a layer when the one before it is done, and some cycles later; return the wait."""
        stripes: dict[Range, tuple[int, int]] = {}
        size_bytes = 0
        for region, piece in zip(layer.regions, layer.pieces, strict=True):
            if region is not None and piece is not None:
                words, own_words = stripes.get(region.rows, (0, 0))
                stripes[region.rows] = (
                    words + piece.weight_words,
                    max(own_words, piece.bus_words),
                )
                size_bytes = max(size_bytes, piece.weight_bytes)
        words = max(words for words, _ in stripes.values())
        ready = self.now + delay_cycles
        time = float(ready)
        begin: float | None = None
        for _ in range(layer.chunks):
            there = self._load(words / layer.chunks, size_bytes // layer.chunks)
            time = max(time, _whole_cycles(there))
            begin = time if begin is None else begin
            time += layer.cycles / layer.chunks
            self._chunks[-1] = (size_bytes // layer.chunks, time)
        if own_words := sum(own for _, own in stripes.values()):
            assert begin is not None
            self._bus = max(self._bus, begin + own_words)
        self.now = _whole_cycles(time)
        return self.now - ready - layer.cycles

    def _load(self, words: float, size_bytes: int) -> float:
        """Return when a chunk of weights is there."""
        held = size_bytes
        free = 0.0
        for bytes_before, done in reversed(self._chunks):
            held += bytes_before
            if held > self._room_bytes:
                free = done
                break
        self._chunks.append((size_bytes, math.inf))
        if self._resident or not words:
            return 0 if self._resident else self._bus
        self._bus = max(self._bus, free) + words
        return self._bus + LATENCY_CYCLES


def _whole_cycles(cycles: float) -> int:
    """Return the next whole cycle; thirds of a layer add up to the layer."""
    return math.ceil(cycles - 1e-6)


def exchanged_lines(network: Network, index: int, choice: Sequence[str], config: NpuConfig) -> int:
    """Return the lines that the array that needs most gets from others before a layer.

    An array holds what it has computed. Arrays that compute channels of the same rows read the
    activations of a dense layer together, each line from the one that holds it: only what none of
    them holds has to come.
    """
    work = network.works[index]
    line = config.line_bytes
    regions = network.splits[index][choice[index]].regions
    lines = [0] * len(regions)
    producers = _producers(network, index)
    for place, name in enumerate(work.inputs):
        if name in network.graph.inputs:
            continue
        producer = producers.pop(0)
        height, width, channels = network.graph.hwc(name)
        shape = height, ceil_div(channels, line)
        holders = network.splits[producer][choice[producer]].regions
        held = [_bits(shape, region, line) for region in holders]
        held += [np.zeros(shape, np.bool_)] * (len(regions) - len(held))
        together = reads_all(network.graph, work, place)
        for array, region in enumerate(regions):
            if region is None:
                continue
            needed = _bits(shape, needed_region(network.graph, work, place, region), line)
            here = held[array].copy()
            for other, theirs in enumerate(regions):
                if together and theirs is not None and theirs.rows == region.rows:
                    here |= held[other]
            lines[array] += int((needed & ~here).sum()) * width
    return max(lines)


def _producers(network: Network, index: int) -> list[int]:
    """Return the layers whose outputs a layer reads."""
    names = [name for name in network.works[index].inputs if name not in network.graph.inputs]
    outputs = [work.output for work in network.works]
    return [outputs.index(name) for name in names]


def _bits(shape: tuple[int, int], region: Region | None, line: int) -> Bits:
    """Return which lines of a column of pixels belong to a region: [rows, lines of a pixel]."""
    bits = np.zeros(shape, np.bool_)
    if region is not None:
        (top, bottom), (first, end) = region.rows, region.channels
        bits[top:bottom, first // line : ceil_div(end, line)] = True
    return bits


def best_choice(
    network: Network,
    names: Sequence[str],
    config: NpuConfig,
    *,
    arrays: int,
    resident: bool = False,
) -> list[str]:
    """Return a split for each layer: no few layers can be changed so that the network gets faster.

    Parameters
    ----------
    names : sequence of str
        Splits to choose from.
    network, config, arrays, resident
        As of `network_cycles`.
    """
    known: Lines = {}

    def total(choice: Sequence[str], *, resident: bool = resident) -> int:
        return network_cycles(
            network,
            choice,
            config,
            arrays=arrays,
            start_cycles=0,
            resident=resident,
            lines=known,
        ).total

    fastest = [min(names, key=lambda name: splits[name].cycles) for splits in network.splits]
    starts = [fastest, *([name] * len(fastest) for name in names)]
    found = [_improved(start, names, partial(total, resident=True)) for start in starts]
    if not resident:
        # Where the bus decides, many choices are alike: begin with good ones without it as well.
        found = [_improved(start, names, total) for start in (*starts, *found)]
    return min(found, key=total)


def _improved(
    choice: list[str], names: Sequence[str], total: Callable[[Sequence[str]], int]
) -> list[str]:
    """Return a choice in which no run of up to three layers is better off with another split."""
    best = total(choice)
    while True:
        before = best
        for index in range(len(choice)):
            for span in range(1, LONGEST_RUN + 1):
                for name in names:
                    end = min(index + span, len(choice))
                    other = [*choice[:index], *[name] * (end - index), *choice[end:]]
                    if (cycles := total(other)) < best:
                        best, choice = cycles, other
        if best == before:
            return choice
