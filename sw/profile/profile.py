"""One inference by layer and by command: when, how long, waiting for what, moving how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.isa import Engine
from celosia.sw.compiler.cost.engines import predict
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.driver.result import Result
from celosia.sw.profile.attribute import LayerProfile, Reason, attribute_cycles
from celosia.sw.profile.spans import CommandSpan, measured_spans, predicted_samples
from celosia.sw.program.file import Program
from celosia.sw.program.segments import LayerInfo, NpuSegment

__all__ = [
    "LayerView",
    "Profile",
    "SegmentView",
    "Source",
    "measured_profile",
    "predicted_cycles",
    "predicted_profile",
]

BOUNDS: dict[Reason, str] = {
    Reason.ARRAY: "array",
    Reason.WEIGHTS: "weights",
    Reason.ACCUMULATORS: "vector",
    Reason.WEIGHTS_BUS: "bus",
    Reason.START: "start",
    Reason.VECTOR: "vector",
    Reason.DMA: "bus",
    Reason.IDLE: "start",
}
"""What a layer is bound by, in one word, if most of its cycles went on this reason.

Where the array waits for activations, it is bound by who makes them: the bus or the vector engine.
"""


class Source(StrEnum):
    """Where the times of a profile are from."""

    RTL = "rtl"
    PREDICTION = "prediction"


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """One layer of a program.

    Attributes
    ----------
    number : int
        Index among all layers of the program, in order.
    segment : int
        Index of its segment among all of the program.
    info : LayerInfo
        What the compiler says.
    begin, end : int
        Cycles from the first doorbell: its first command starts, its last one is complete. 0 and 0
        on the host.
    cycles : int
        Of the whole that are laid to the layer, see `attribute_cycles`; 0 on the host.
    reasons : mapping of Reason to int
        The same by reason; empty on the host.
    engine_cycles : mapping of Engine to int
        For how many cycles each engine had a command of this layer running; engines overlap.
    read_bytes, written_bytes : int
        Moved over the bus by its commands, fetching them not counted.
    """

    number: int
    segment: int
    info: LayerInfo
    begin: int = 0
    end: int = 0
    cycles: int = 0
    reasons: Mapping[Reason, int] = field(default_factory=dict)
    engine_cycles: Mapping[Engine, int] = field(default_factory=dict)
    read_bytes: int = 0
    written_bytes: int = 0

    @property
    def on_npu(self) -> bool:
        """Whether it runs on the NPU."""
        return self.info.runs_on == "npu"

    @property
    def computed_macs(self) -> int:
        """Multiply-accumulates that are left when constant channels are removed."""
        return self.info.macs - self.info.folded_macs

    @property
    def bound(self) -> str:
        """What most of its cycles went on, in one word of `BOUNDS`; "host" there, "" of none."""
        if not self.on_npu:
            return "host"
        busy = self.engine_cycles
        loaded = busy.get(Engine.LOAD, 0) > busy.get(Engine.VECTOR, 0)
        words = {**BOUNDS, Reason.ACTIVATIONS: "bus" if loaded else "vector"}
        sums: dict[str, int] = {}
        for reason, cycles in self.reasons.items():
            sums[words[reason]] = sums.get(words[reason], 0) + cycles
        word = max(sums, key=lambda name: sums[name], default="")
        return word if sums.get(word) else ""


@dataclass(frozen=True, kw_only=True)
class SegmentView:
    """One segment of a program.

    Attributes
    ----------
    number : int
        Index among all segments of the program.
    first_layer : int
        Index of its first layer among all layers of the program.
    begin, cycles : int
        Cycles from the first doorbell, and its own; 0 cycles on the host.
    end_cycles : int
        Those that belong to none of its layers: the last command and the interrupt.
    commands : tuple of CommandSpan
        In order, with times from the segment's own begin; none on the host.
    """

    number: int
    first_layer: int
    begin: int = 0
    cycles: int = 0
    end_cycles: int = 0
    commands: tuple[CommandSpan, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """An inference, or a run of a batch: the host's part takes no cycles.

    Attributes
    ----------
    program : Program
        That was run.
    source : Source
        Where its times are from.
    memory : MemoryTiming
        System memory.
    layers : tuple of LayerView
        All of them, in order.
    segments : tuple of SegmentView
        All of them, in order.
    counters : mapping of str to int
        The machine's performance counters, if the times are the RTL's.
    """

    program: Program
    source: Source
    memory: MemoryTiming
    layers: tuple[LayerView, ...]
    segments: tuple[SegmentView, ...]
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def cycles(self) -> int:
        """Of all segments; what the layers' cycles and the segments' ends add up to."""
        return sum(segment.cycles for segment in self.segments)

    @property
    def predicted_cycles(self) -> int:
        """By the compiler, for the memory that programs are made for; of one run."""
        return sum(layer.info.predicted_cycles for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Share of the multipliers' cycles that the model's own products take; 0 without cycles."""
        macs = sum(layer.computed_macs for layer in self.layers if layer.on_npu)
        slots = self.cycles * self.program.config.macs_per_cycle
        return macs / slots if slots else 0.0

    @property
    def reasons(self) -> dict[Reason, int]:
        """Cycles of all layers by reason; the segments' ends are idle."""
        sums = {why: sum(layer.reasons.get(why, 0) for layer in self.layers) for why in Reason}
        sums[Reason.IDLE] += sum(segment.end_cycles for segment in self.segments)
        return sums

    def share(self, layer: LayerView) -> float:
        """Return the share of all cycles that is laid to a layer."""
        return layer.cycles / self.cycles if self.cycles else 0.0

    def figures(self) -> dict[str, Any]:
        """Return everything but the single commands as plain values, for JSON."""
        return {
            "model": self.program.model,
            "config": self.program.config.name,
            "config_fields": asdict(self.program.config),
            "batch": self.program.batch,
            "source": self.source.value,
            "memory": asdict(self.memory),
            "cycles": self.cycles,
            "predicted_cycles": self.predicted_cycles,
            "macs": sum(layer.info.macs for layer in self.layers),
            "npu_macs": sum(layer.computed_macs for layer in self.layers if layer.on_npu),
            "utilisation": self.utilisation,
            "reasons": {why.value: count for why, count in self.reasons.items()},
            "counters": dict(self.counters),
            "layers": [self.layer_figures(layer) for layer in self.layers],
        }

    def layer_figures(self, layer: LayerView) -> dict[str, Any]:
        """Return one entry of `figures`."""
        info = layer.info
        slots = layer.cycles * self.program.config.macs_per_cycle
        return {
            "number": layer.number,
            "segment": layer.segment,
            "op": info.op,
            "name": info.name,
            "origin": asdict(info.origin),
            "runs_on": info.runs_on,
            "how": info.reason,
            "begin": layer.begin,
            "end": layer.end,
            "cycles": layer.cycles,
            "share": self.share(layer),
            "predicted_cycles": info.predicted_cycles,
            "bound": layer.bound,
            "reasons": {why.value: count for why, count in layer.reasons.items()},
            "engine_cycles": {
                engine.name.lower(): count for engine, count in layer.engine_cycles.items()
            },
            "macs": info.macs,
            "folded_macs": info.folded_macs,
            "utilisation": layer.computed_macs / slots if slots else None,
            "sram_bytes": info.sram_bytes,
            "read_bytes": layer.read_bytes,
            "written_bytes": layer.written_bytes,
        }


@dataclass(frozen=True)
class _Trace:
    """What a segment of the NPU did."""

    spans: list[CommandSpan]
    layers: list[LayerProfile]


def predicted_profile(program: Program, memory: MemoryTiming | None = None) -> Profile:
    """Return what the compiler expects of an inference, by its own model of the machine.

    Parameters
    ----------
    program : Program
        One inference of it; of a program that runs sample by sample, one of its runs.
    memory : MemoryTiming, optional
        System memory; by default the one that programs are made for.

    Raises
    ------
    ProgramError
        If the program does not say which layers its commands are for.
    """
    timing = memory or MemoryTiming()
    traces = []
    for segment in program.npu_segments:
        samples, spans, cycles = predicted_samples(segment, program.config, timing)
        traces.append(_Trace(spans, attribute_cycles(segment, samples, cycles)))
    return _profile(program, Source.PREDICTION, timing, traces, {})


def predicted_cycles(program: Program, memory: MemoryTiming | None = None) -> int:
    """Return the cycles of a run, of all samples, from the doorbells to the interrupts.

    Parameters
    ----------
    program : Program
    memory : MemoryTiming, optional
        System memory; by default the one that programs are made for.
    """
    # The last command ends a segment; predictions are made without it.
    return program.runs * sum(
        predict(segment.decode()[:-1], program.config, memory=memory).cycles
        for segment in program.npu_segments
    )


def measured_profile(
    program: Program,
    samples: Sequence[npt.NDArray[np.void]],
    result: Result,
    memory: MemoryTiming,
) -> Profile:
    """Return what the RTL did in an inference.

    Parameters
    ----------
    program : Program
        That was run.
    samples : sequence of ndarray of celosia.sim.rtl.rtl.SAMPLE_DTYPE
        The simulator's record, one entry a segment of the NPU.
    result : Result
        Of the run.
    memory : MemoryTiming
        The simulated system memory.
    """
    cycles = [part.cycles for part in result.segments if part.cycles is not None]
    traces = [
        _Trace(measured_spans(segment, taken), attribute_cycles(segment, taken, total))
        for segment, taken, total in zip(program.npu_segments, samples, cycles, strict=True)
    ]
    return _profile(program, Source.RTL, memory, traces, result.counters)


def _profile(
    program: Program,
    source: Source,
    memory: MemoryTiming,
    traces: Sequence[_Trace],
    counters: Mapping[str, int],
) -> Profile:
    layers: list[LayerView] = []
    segments: list[SegmentView] = []
    begin = 0
    left = iter(traces)
    for number, segment in enumerate(program.segments):
        if not isinstance(segment, NpuSegment):
            segments.append(SegmentView(number=number, first_layer=len(layers), begin=begin))
            layers += [
                LayerView(number=len(layers) + index, segment=number, info=info)
                for index, info in enumerate(segment.layers)
            ]
            continue
        trace = next(left)
        *own, end = trace.layers
        cycles = sum(entry.cycles for entry in trace.layers)
        view = SegmentView(
            number=number,
            first_layer=len(layers),
            begin=begin,
            cycles=cycles,
            end_cycles=end.cycles,
            commands=tuple(trace.spans),
        )
        segments.append(view)
        layers += _layer_views(view, own)
        begin += cycles
    return Profile(
        program=program,
        source=source,
        memory=memory,
        layers=tuple(layers),
        segments=tuple(segments),
        counters=counters,
    )


def _layer_views(segment: SegmentView, profiles: Sequence[LayerProfile]) -> list[LayerView]:
    """Return the layers of a segment of the NPU."""
    spans: list[list[CommandSpan]] = [[] for _ in profiles]
    for span in segment.commands:
        spans[span.layer].append(span)
    views = []
    for index, (profile, own) in enumerate(zip(profiles, spans, strict=True)):
        assert profile.layer is not None
        busy = dict.fromkeys(Engine, 0)
        moved = dict.fromkeys(Engine, 0)
        for span in own:
            busy[span.engine] += span.end - span.start
            moved[span.engine] += span.moved_bytes
        views.append(
            LayerView(
                number=segment.first_layer + index,
                segment=segment.number,
                info=profile.layer,
                begin=segment.begin + min((span.start for span in own), default=0),
                end=segment.begin + max((span.end for span in own), default=0),
                cycles=profile.cycles,
                reasons=profile.reasons,
                engine_cycles=busy,
                read_bytes=moved[Engine.LOAD],
                written_bytes=moved[Engine.STORE],
            )
        )
    return views
