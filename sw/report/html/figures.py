"""All figures of the page, as one object: what is on the page and what ``--json`` writes."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from celosia.hw.contract.isa import Engine
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.profile.occupancy import Occupancy, occupancies
from celosia.sw.profile.profile import LayerView, Profile
from celosia.sw.report.host import HostTime, host_figures
from celosia.sw.report.labels import layer_label
from celosia.version import VERSION

__all__ = ["ENGINES", "report_figures", "roofline_figures"]

SCHEMA = 1
"""Version of the keys."""
ENGINES = tuple(engine.name.lower() for engine in Engine)


def report_figures(
    profile: Profile,
    times: Sequence[HostTime] = (),
    *,
    conditions: Mapping[str, Any],
    advice: Sequence[Mapping[str, Any]] = (),
    energy: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the page shows.

    Parameters
    ----------
    profile : Profile
        Measured or predicted.
    times : sequence of HostTime
        Of the layers on the host, from `celosia.sw.report.host.measure_host`.
    conditions : mapping
        What the figures hold for beside the machine and its memory: input, seed, stalls.
    advice : sequence of mapping
        What to change, one entry a thing: ``title`` and ``text``, and if they are known ``layer``
        (its number) and ``cycles`` (that the change would save).
    energy : mapping, optional
        Of an inference: ``parts``, ``chip`` and ``total`` as ``low_uj`` and ``high_uj``; ``layers``
        in the order of the NPU's, if known.

    Returns
    -------
    dict
        Plain values; the keys are in ``docs/report.md``.
    """
    figures = profile.figures()
    for entry, layer in zip(figures["layers"], profile.layers, strict=True):
        entry["label"] = layer_label(layer.info)
    return {
        "schema": SCHEMA,
        **figures,
        # Of samples that run one after the other, the profile is of one.
        "batch": profile.program.batch // profile.program.runs,
        "segments": _segments(profile),
        "commands": _commands(profile),
        "memories": [_memory(memory, profile.cycles) for memory in occupancies(profile)],
        "roofline": roofline_figures(profile),
        "split": host_figures(profile.program, times),
        "advice": [dict(entry) for entry in advice],
        "energy": None if energy is None else dict(energy),
        "conditions": {
            **conditions,
            "memory_latency_cycles": profile.memory.latency_cycles,
            "predicted_latency_cycles": MemoryTiming().latency_cycles,
            "celosia": VERSION,
            "python": platform.python_version(),
        },
    }


def _segments(profile: Profile) -> list[dict[str, Any]]:
    layers = [layer.segment for layer in profile.layers]
    return [
        {
            "number": segment.number,
            "runs_on": "npu" if segment.commands else "host",
            "first_layer": segment.first_layer,
            "layers": layers.count(segment.number),
            "begin": segment.begin,
            "cycles": segment.cycles,
            "end_cycles": segment.end_cycles,
        }
        for segment in profile.segments
    ]


def _commands(profile: Profile) -> dict[str, list[Any]]:
    """Return a list for each property: there may be tens of thousands of commands."""
    spans = [(segment, span) for segment in profile.segments for span in segment.commands]
    return {
        "segment": [segment.number for segment, _ in spans],
        "tag": [span.index for _, span in spans],
        "engine": [span.engine.name.lower() for _, span in spans],
        "kind": [span.kind for _, span in spans],
        "layer": [segment.first_layer + span.layer for segment, span in spans],
        "start": [segment.begin + span.start for segment, span in spans],
        "end": [segment.begin + span.end for segment, span in spans],
        "bytes": [span.moved_bytes for _, span in spans],
    }


def _memory(memory: Occupancy, cycles: int) -> dict[str, Any]:
    peak, mean = memory.peak_bytes, memory.mean_bytes(cycles)
    return {
        "memory": memory.memory,
        "bytes": memory.size_bytes,
        "peak_bytes": peak,
        "peak_share": peak / memory.size_bytes,
        "mean_share": mean / memory.size_bytes,
        "used": {"at": memory.at.tolist(), "bytes": memory.used_bytes.tolist()},
        "blocks": {
            "what": [block.what for block in memory.blocks],
            "first_layer": [block.first_layer for block in memory.blocks],
            "last_layer": [block.last_layer for block in memory.blocks],
            "address": [block.address for block in memory.blocks],
            "bytes": [block.size_bytes for block in memory.blocks],
            "begin": [block.begin for block in memory.blocks],
            "end": [block.end for block in memory.blocks],
        },
    }


def roofline_figures(profile: Profile) -> dict[str, Any]:
    """Return the machine's limits, and each layer that multiplies as a point below them.

    A point is MACs for each byte that its commands move over the bus, against MACs for each of its
    cycles. Of a layer that moves nothing the first is None.
    """
    config = profile.program.config
    points = [_point(layer) for layer in profile.layers if layer.computed_macs and layer.cycles]
    return {
        "macs_per_cycle": config.macs_per_cycle,
        "bus_bytes_per_cycle": config.bus_bytes,
        "points": points,
    }


def _point(layer: LayerView) -> dict[str, Any]:
    moved = layer.read_bytes + layer.written_bytes
    return {
        "layer": layer.number,
        "macs": layer.computed_macs,
        "bytes": moved,
        "macs_per_byte": layer.computed_macs / moved if moved else None,
        "macs_per_cycle": layer.computed_macs / layer.cycles,
    }
