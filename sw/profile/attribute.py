"""Where the cycles of a run went: each one is laid to one layer and to one reason.

Layer. A cycle belongs to the first layer, in the program's order, that has a command which is not
complete. That is what a layer adds to the time at which all layers before it are done, and what the
compiler predicts. What the machine does ahead for later layers costs them nothing then.

Reason. The first of these that holds:

==============  =================================================================================
array           the array takes a window
weights         the array has a command, and the next pass's weights are still being shifted in
accumulators    the array has a command, and the vector engine has not emptied a half for it
weights_bus     the array's next command waits for a LOAD of weights or parameters
activations     the array's next command waits for activations: for the vector engine that makes
                them or for a LOAD (of several tokens the one that comes last counts)
start           the array's command starts, drains, or takes up its tokens
vector          the array has no command, the vector engine runs one
dma             neither has one that runs, a LOAD or STORE runs
idle            nothing runs: fetch, dispatch, tokens
==============  =================================================================================

Cycles before the first sample (the doorbell's own register access) are ``idle`` of the first layer;
those after the last command (`End`, the interrupt) are a line of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import ProgramError
from celosia.hw.contract.isa import Command, Engine, Load, Space
from celosia.hw.contract.trace import TRACE_STATES
from celosia.sw.program.segments import LayerInfo, NpuSegment

__all__ = [
    "LayerProfile",
    "Reason",
    "attribute_cycles",
    "command_layers",
    "engine_commands",
    "state_of",
]

Ints = npt.NDArray[np.int64]

LEAD_OUT_CYCLES = 1
"""Samples between the end of the program and the interrupt, which the counters leave out."""
MOST_MISSED_CYCLES = 16
"""Of the doorbell's access, before the first sample. The first command takes longer to fetch."""


class Reason(StrEnum):
    """What a cycle went on; see the module's text."""

    ARRAY = "array"
    WEIGHTS = "weights"
    ACCUMULATORS = "accumulators"
    WEIGHTS_BUS = "weights_bus"
    ACTIVATIONS = "activations"
    START = "start"
    VECTOR = "vector"
    DMA = "dma"
    IDLE = "idle"


REASONS = tuple(Reason)


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """Cycles of one layer.

    Attributes
    ----------
    layer : LayerInfo or None
        None for what comes after the last command.
    cycles : int
        All of them.
    reasons : dict of Reason to int
        The same by reason; all reasons are there.
    """

    layer: LayerInfo | None
    cycles: int
    reasons: dict[Reason, int]


def engine_commands(segment: NpuSegment) -> list[Command]:
    """Return the commands of a segment, `End` excluded."""
    return [command for command in segment.decode() if command.engine is not None]


def command_layers(segment: NpuSegment) -> Ints:
    """Return the layer of each command, `End` excluded, as the compiler has noted it.

    Raises
    ------
    ProgramError
        If the segment does not say.
    """
    layers = np.array(segment.command_layers, np.int64)[:-1]
    if not len(layers) or (layers < 0).any():
        raise ProgramError(
            f"program {segment.name!r}",
            "it does not say which layers its commands are for",
            "take a program that the compiler made",
        )
    return layers


def attribute_cycles(
    segment: NpuSegment, samples: npt.NDArray[np.void], total_cycles: int
) -> list[LayerProfile]:
    """Lay every cycle of a run to a layer and a reason.

    Parameters
    ----------
    segment : NpuSegment
        That was run.
    samples : ndarray of celosia.sim.rtl.rtl.SAMPLE_DTYPE, shape [runs]
        From the simulator.
    total_cycles : int
        From the counter ``total``; what the entries of the result add up to.

    Returns
    -------
    list of LayerProfile
        One entry a layer, in order, and one for the end of the program.
    """
    commands = engine_commands(segment)
    cycles = samples["cycles"].astype(np.int64)
    ends = np.cumsum(cycles)
    done = _completion(samples, ends, len(commands))
    layers = command_layers(segment)
    layer_done = np.zeros(len(segment.layers), np.int64)
    np.maximum.at(layer_done, layers, done)
    # A run of samples never goes beyond the completion of a command: a busy bit falls there.
    owner = np.searchsorted(np.maximum.accumulate(layer_done), ends - cycles, side="right")
    reason = _reasons(samples, _waits(commands, done))

    table = np.zeros((len(segment.layers) + 1, len(REASONS)), np.int64)
    np.add.at(table, (owner, reason), cycles)
    idle = REASONS.index(Reason.IDLE)
    table[-1, idle] -= LEAD_OUT_CYCLES
    missed = total_cycles - int(table.sum())
    assert 0 <= missed <= MOST_MISSED_CYCLES, f"{missed} of {total_cycles} cycles are not sampled"
    table[0, idle] += missed
    entries: list[LayerInfo | None] = [*segment.layers, None]
    return [
        LayerProfile(
            layer=layer,
            cycles=int(row.sum()),
            reasons={reason: int(count) for reason, count in zip(REASONS, row, strict=True)},
        )
        for layer, row in zip(entries, table, strict=True)
    ]


def state_of(samples: npt.NDArray[np.void], name: str) -> npt.NDArray[np.bool_]:
    """Return in which samples a state of the trace port, of `TRACE_STATES`, was there."""
    return (samples["state"] >> TRACE_STATES.index(name) & 1).astype(bool)


def _completion(samples: npt.NDArray[np.void], ends: Ints, count: int) -> Ints:
    """Return when each command was complete, in cycles from the first sample."""
    done = np.full(count, -1, np.int64)
    for engine in Engine:
        busy = state_of(samples, f"{engine.name.lower()}_busy")
        np.maximum.at(done, samples["tags"][busy, engine].astype(np.int64), ends[busy])
    assert (done >= 0).all(), "every command has run"
    return done


def _waits(commands: Sequence[Command], done: Ints) -> npt.NDArray[np.int64]:
    """Return the reason, by index, for which each command has to wait before it starts.

    Of the tokens that a command takes the one that is given last decides. The n-th wait of a pair
    of engines takes the n-th signal.
    """
    reasons = np.full(len(commands), REASONS.index(Reason.START), np.int64)
    latest = np.full(len(commands), -1, np.int64)
    for giver in Engine:
        for taker in Engine:
            signals = _indices(commands, giver, lambda c, t=taker: c.signal >> t & 1)
            waits = _indices(commands, taker, lambda c, g=giver: c.wait >> g & 1)
            for wait, signal in zip(waits, signals, strict=True):
                if done[signal] > latest[wait]:
                    latest[wait] = done[signal]
                    reasons[wait] = REASONS.index(_wait_reason(commands[signal]))
    return reasons


def _indices(commands: Sequence[Command], engine: Engine, chosen: Any) -> list[int]:
    return [i for i, command in enumerate(commands) if command.engine is engine and chosen(command)]


def _wait_reason(giver: Command) -> Reason:
    if isinstance(giver, Load) and giver.space in (Space.WGT, Space.PARAM):
        return Reason.WEIGHTS_BUS
    return Reason.ACTIVATIONS


def _reasons(samples: npt.NDArray[np.void], waits: npt.NDArray[np.int64]) -> Ints:
    def state(name: str) -> npt.NDArray[np.bool_]:
        return state_of(samples, name)

    array_busy = state("array_busy")
    waiting = state("array_active") & ~array_busy
    tags = np.minimum(samples["tags"][:, Engine.ARRAY], len(waits) - 1)
    conditions = [
        (state("array_stream"), Reason.ARRAY),
        (array_busy & state("array_wait_weights"), Reason.WEIGHTS),
        (array_busy & state("array_wait_acc"), Reason.ACCUMULATORS),
        (waiting, None),
        (array_busy, Reason.START),
        (state("vector_busy"), Reason.VECTOR),
        (state("load_busy") | state("store_busy"), Reason.DMA),
    ]
    return np.select(
        [condition for condition, _ in conditions],
        [waits[tags] if why is None else REASONS.index(why) for _, why in conditions],
        default=REASONS.index(Reason.IDLE),
    )
