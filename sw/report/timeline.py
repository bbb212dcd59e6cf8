"""An inference as a trace for Perfetto and Chrome: layers and commands as slices, counters.

The format is the JSON of Chrome's trace events ("Trace Event Format", Google, 2016), which
ui.perfetto.dev and chrome://tracing open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from celosia.hw.contract.isa import Engine
from celosia.sw.profile.profile import LayerView, Profile, SegmentView, Source
from celosia.sw.report.labels import layer_label
from celosia.version import VERSION

__all__ = ["trace_events"]

PROCESS = 1
LAYERS = 1
"""Track of the layers; the engines follow it."""
LEAST_WINDOW_CYCLES = 16
WINDOWS = 2000
"""Of the counters, at most."""


def trace_events(profile: Profile) -> dict[str, Any]:
    """Return an inference as trace events.

    A cycle is a microsecond: a configuration has no clock. The track of the layers holds every
    cycle once: it is laid to the first layer that is not complete. Tracks of the engines hold
    their commands, each from its tokens to its end.

    Parameters
    ----------
    profile : Profile
        Measured or predicted; the trace says which.

    Returns
    -------
    dict
        The whole file, as plain values.
    """
    program = profile.program
    how = "measured on the RTL" if profile.source is Source.RTL else "predicted, nothing was run"
    events = [
        *_names(f"{program.model} on {program.config.name}, {how} (1 us = 1 cycle)"),
        *_layers(profile),
        *_commands(profile),
        *_counters(profile),
    ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "model": program.model,
            "config": program.config.name,
            "source": profile.source.value,
            "times": how,
            "clock": "1 us = 1 cycle",
            "cycles": profile.cycles,
            "predicted_cycles": profile.predicted_cycles,
            "memory_latency_cycles": profile.memory.latency_cycles,
            "celosia": VERSION,
        },
    }


def _track(engine: Engine) -> int:
    return LAYERS + 1 + int(engine)


def _names(process: str) -> Iterator[dict[str, Any]]:
    def named(kind: str, track: int, **args: object) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "pid": PROCESS, "tid": track, "args": args}

    yield named("process_name", 0, name=process)
    tracks = {LAYERS: "layers", **{_track(engine): engine.name.lower() for engine in Engine}}
    for track, name in tracks.items():
        yield named("thread_name", track, name=name)
        yield named("thread_sort_index", track, sort_index=track)


def _slice(track: int, name: str, begin: int, cycles: int, **args: object) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": "layer" if track == LAYERS else "command",
        "name": name,
        "pid": PROCESS,
        "tid": track,
        "ts": begin,
        "dur": cycles,
        "args": args,
    }


def _layers(profile: Profile) -> Iterator[dict[str, Any]]:
    at = 0
    for number, layer in enumerate(profile.layers):
        label = layer_label(layer.info)
        if not layer.on_npu:
            yield {
                "ph": "i",
                "s": "p",
                "cat": "host",
                "name": f"{label} on the host",
                "pid": PROCESS,
                "tid": LAYERS,
                "ts": at,
                "args": {"layer": number, "tensor": layer.info.name, "why": layer.info.reason},
            }
        elif layer.cycles:
            yield _slice(
                LAYERS,
                label,
                at,
                layer.cycles,
                layer=number,
                tensor=layer.info.name,
                bound=layer.bound,
                predicted_cycles=layer.info.predicted_cycles,
                macs=layer.computed_macs,
                read_bytes=layer.read_bytes,
                written_bytes=layer.written_bytes,
                reasons={why.value: count for why, count in layer.reasons.items() if count},
            )
        at += layer.cycles
        ending = _ends_with(profile, number)
        if ending is not None and ending.end_cycles:
            yield _slice(LAYERS, "end", at, ending.end_cycles, segment=ending.number)
            at += ending.end_cycles


def _ends_with(profile: Profile, number: int) -> SegmentView | None:
    """Return the segment of the NPU whose last layer this is."""
    segment = profile.segments[profile.layers[number].segment]
    following = profile.layers[number + 1 : number + 2]
    if not segment.commands or any(layer.segment == segment.number for layer in following):
        return None
    return segment


def _commands(profile: Profile) -> Iterator[dict[str, Any]]:
    for segment in profile.segments:
        for span in segment.commands:
            layer = profile.layers[segment.first_layer + span.layer]
            yield _slice(
                _track(span.engine),
                f"{span.kind} {layer_label(layer.info)}",
                segment.begin + span.start,
                span.end - span.start,
                layer=layer.number,
                tag=span.index,
                segment=segment.number,
                bytes=span.moved_bytes,
            )


def _counters(profile: Profile) -> Iterator[dict[str, Any]]:
    """Yield what crosses the bus and how busy the array is, a value a window."""
    cycles = profile.cycles
    if not cycles:
        return
    window = max(LEAST_WINDOW_CYCLES, -(-cycles // WINDOWS))
    edges = np.append(np.arange(0, cycles, window), cycles).astype(np.float64)
    lengths = np.diff(edges)
    spans = [(segment.begin, span) for segment in profile.segments for span in segment.commands]
    moved = _summed(
        [(b + s.start, b + s.end, s.moved_bytes) for b, s in spans if s.moved_bytes], edges
    )
    busy = _summed(
        [(b + s.start, b + s.end, s.end - s.start) for b, s in spans if s.engine is Engine.ARRAY],
        edges,
    )
    macs = _summed([part for layer in profile.layers for part in _macs(profile, layer)], edges)
    worked = macs / profile.program.config.macs_per_cycle
    tracks = {
        f"bus bytes in {window} cycles": moved,
        "array busy, %": 100 * busy / lengths,
        "utilisation, %": 100 * worked / lengths,
    }
    for name, values in tracks.items():
        for begin, amount in zip(edges[:-1], values, strict=True):
            yield _counter(name, int(begin), round(float(amount), 3))
        yield _counter(name, cycles, 0)


def _macs(profile: Profile, layer: LayerView) -> Iterator[tuple[int, int, float]]:
    """Yield a layer's MACs, spread evenly over its commands of the array."""
    segment = profile.segments[layer.segment]
    own = [s for s in segment.commands if segment.first_layer + s.layer == layer.number]
    own = [span for span in own if span.engine is Engine.ARRAY] or own
    whole = sum(span.end - span.start for span in own)
    for span in own if layer.computed_macs else ():
        share = (span.end - span.start) / whole
        yield segment.begin + span.start, segment.begin + span.end, share * layer.computed_macs


def _counter(name: str, at: int, value: float) -> dict[str, Any]:
    return {"ph": "C", "name": name, "pid": PROCESS, "ts": at, "args": {"value": value}}


def _summed(parts: Sequence[tuple[int, int, float]], edges: np.ndarray[Any, Any]) -> Any:
    """Return how much of some amounts, each spread evenly over a time, falls between edges."""
    rates: dict[int, float] = {0: 0.0}
    for begin, end, amount in parts:
        rate = amount / (end - begin)
        rates[begin] = rates.get(begin, 0.0) + rate
        rates[end] = rates.get(end, 0.0) - rate
    times = np.array(sorted(rates), np.float64)
    flow = np.cumsum([rates[int(time)] for time in times])
    sums = np.concatenate([[0.0], np.cumsum(flow[:-1] * np.diff(times))])
    return np.maximum(0.0, np.diff(np.interp(edges, times, sums)))
