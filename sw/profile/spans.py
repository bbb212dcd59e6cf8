"""When each command of a segment was with its engine: measured on the RTL, or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, Conv, Engine, Transfer
from celosia.hw.contract.trace import TRACE_STATES
from celosia.sw.compiler.cost.engines import (
    conv_tile_cycles,
    conv_tile_positions,
    pass_count,
    predict,
)
from celosia.sw.compiler.cost.times import CommandTimes, MemoryTiming
from celosia.sw.profile.attribute import LEAD_OUT_CYCLES, command_layers, engine_commands, state_of
from celosia.sw.program.segments import NpuSegment

__all__ = ["CommandSpan", "command_bytes", "measured_spans", "predicted_samples", "spans_of"]

SAMPLE = np.dtype([("tags", np.uint16, 4), ("state", np.uint32), ("cycles", np.uint32)])
"""As ``celosia.sim.rtl.rtl.SAMPLE_DTYPE``, which needs a simulator's library."""
_BIT = {name: 1 << index for index, name in enumerate(TRACE_STATES)}


@dataclass(frozen=True, kw_only=True)
class CommandSpan:
    """One command of a segment, and its time.

    Attributes
    ----------
    index : int
        In the segment; its tag.
    engine : Engine
        That runs it.
    kind : str
        Name of its opcode.
    layer : int
        Index of its layer in the segment.
    start, end : int
        Cycles from the segment's begin: the command has its tokens, is complete.
    moved_bytes : int
        What it moves over the bus.
    """

    index: int
    engine: Engine
    kind: str
    layer: int
    start: int
    end: int
    moved_bytes: int


def command_bytes(command: Command) -> int:
    """Return the bytes that a command moves over the bus; 0 if it is no transfer."""
    if not isinstance(command, Transfer):
        return 0
    return command.n1 * command.n2 * command.row_bytes


def spans_of(segment: NpuSegment, times: Sequence[CommandTimes]) -> list[CommandSpan]:
    """Return the commands of a segment with these times, one entry a command but `End`."""
    spans = []
    layers = command_layers(segment)
    for index, (command, layer, time) in enumerate(
        zip(engine_commands(segment), layers, times, strict=True)
    ):
        engine = command.engine
        assert engine is not None
        spans.append(
            CommandSpan(
                index=index,
                engine=engine,
                kind=command.OPCODE.name,
                layer=int(layer),
                start=time.start,
                end=time.end,
                moved_bytes=command_bytes(command),
            )
        )
    return spans


def measured_spans(segment: NpuSegment, samples: npt.NDArray[np.void]) -> list[CommandSpan]:
    """Return the commands of a segment as the simulator's trace shows them.

    Parameters
    ----------
    segment : NpuSegment
        That was run.
    samples : ndarray of celosia.sim.rtl.rtl.SAMPLE_DTYPE, shape [runs]
        From the simulator.
    """
    ends = np.cumsum(samples["cycles"].astype(np.int64))
    starts = ends - samples["cycles"]
    count = len(engine_commands(segment))
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.zeros(count, np.int64)
    for engine in Engine:
        busy = state_of(samples, f"{engine.name.lower()}_busy")
        tags = samples["tags"][busy, engine].astype(np.int64)
        np.minimum.at(first, tags, starts[busy])
        np.maximum.at(last, tags, ends[busy])
    times = [CommandTimes(int(begin), int(end)) for begin, end in zip(first, last, strict=True)]
    return spans_of(segment, times)


def predicted_samples(
    segment: NpuSegment, config: NpuConfig, memory: MemoryTiming | None = None
) -> tuple[npt.NDArray[np.void], list[CommandSpan], int]:
    """Return what the trace port would show if the prediction came true.

    Within a command of the array the windows come first, then the cycles in which weights are
    shifted in, then those in which it waits for the vector engine.

    Parameters
    ----------
    segment : NpuSegment
        With its commands' layers.
    config : NpuConfig
        The machine.
    memory : MemoryTiming, optional
        System memory; by default the one that programs are made for.

    Returns
    -------
    samples : ndarray, shape [runs]
        With the fields of ``celosia.sim.rtl.rtl.SAMPLE_DTYPE``.
    spans : list of CommandSpan
    cycles : int
        From the doorbell to the interrupt.
    """
    commands = engine_commands(segment)
    prediction = predict(commands, config, memory=memory)
    events: list[tuple[int, int, Engine, int, int]] = []  # begin, end, engine, state, tag
    free = dict.fromkeys(Engine, 0)
    for tag, (command, time) in enumerate(zip(commands, prediction.commands, strict=True)):
        engine = command.engine
        assert engine is not None
        name = engine.name.lower()
        active, busy = _BIT[f"{name}_active"], _BIT[f"{name}_busy"]
        # Firmware runs one command after the other: none of them waits while another runs.
        if free[engine] < time.start and not config.firmware:
            events.append((free[engine], time.start, engine, active, tag))
        at = time.start
        for state, cycles in _parts(command, config, time.end - time.start):
            events.append((at, at + cycles, engine, active | busy | state, tag))
            at += cycles
        free[engine] = max(free[engine], time.end)
    total = prediction.cycles + LEAD_OUT_CYCLES
    edges = np.unique([0, total, *(edge for event in events for edge in event[:2])])
    samples = np.zeros(len(edges) - 1, SAMPLE)
    samples["cycles"] = np.diff(edges)
    for begin, end, engine, state, tag in events:
        some = slice(*np.searchsorted(edges, (begin, end)))
        samples["state"][some] |= state
        samples["tags"][some, engine] = tag
    return samples, spans_of(segment, prediction.commands), prediction.cycles


def _parts(command: Command, config: NpuConfig, cycles: int) -> list[tuple[int, int]]:
    """Return states and cycles within a command, which add up to `cycles`."""
    if not isinstance(command, Conv):
        return [(0, cycles)]
    passes = command.n_oc * pass_count(command)
    worked = min(command.n_oc * sum(conv_tile_cycles(command, config)), cycles)
    streamed = min(passes * sum(conv_tile_positions(command)), worked)
    parts = [
        (_BIT["array_stream"], streamed),
        (_BIT["array_wait_weights"], worked - streamed),
        (_BIT["array_wait_acc"], cycles - worked),
    ]
    return [(state, count) for state, count in parts if count]
