"""Which layer of a program the energy belongs to, by what each has done of all events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.isa import Engine, Load, Space
from celosia.sw.energy.model import LayerEnergy, Part, Range
from celosia.sw.profile.attribute import (
    attribute_cycles,
    command_layers,
    engine_commands,
    state_of,
)
from celosia.sw.profile.spans import command_bytes
from celosia.sw.program.segments import NpuSegment
from celosia.sw.report.labels import layer_label

__all__ = ["Work", "layer_energies", "no_work", "work_of"]

Ints = npt.NDArray[np.int64]


class Work(IntEnum):
    """What is counted of a layer, to divide the energy by."""

    CYCLES = 0
    """As `celosia.sw.profile.attribute` lays them to layers."""
    WINDOWS = 1
    """Cycles in which the array took a window for one of its commands."""
    VECTORS = 2
    """Cycles in which the vector engine issued a vector for one of its commands."""
    WEIGHT_BYTES = 3
    """Weights and parameters that it loads."""
    BUS_BYTES = 4
    """All that it loads and stores."""


SHARED_BY: dict[Part, tuple[Work, ...]] = {
    Part.ARRAY: (Work.WINDOWS,),
    Part.ACCUMULATOR: (Work.WINDOWS,),
    Part.ACT: (Work.WINDOWS, Work.VECTORS),
    Part.WEIGHTS: (Work.WEIGHT_BYTES,),
    Part.VECTOR: (Work.VECTORS,),
    Part.REGISTERS: (Work.CYCLES,),
    Part.MEMORY: (Work.BUS_BYTES,),
}
"""By the sum of what the energy of a part is divided between the layers."""


def no_work(segment: NpuSegment) -> Ints:
    """Return what the layers of a segment have done before its first run."""
    return np.zeros((len(Work), len(segment.layers) + 1), np.int64)


def work_of(segment: NpuSegment, samples: npt.NDArray[np.void], total_cycles: int) -> Ints:
    """Return what the layers of a segment have done in a run.

    Parameters
    ----------
    segment : NpuSegment
        That was run.
    samples : ndarray of celosia.sim.rtl.rtl.SAMPLE_DTYPE, shape [runs]
        From the simulator.
    total_cycles : int
        From the counter ``total``.

    Returns
    -------
    ndarray of int64, shape [len(Work), layers + 1]
        The last column is the program's end.
    """
    work = no_work(segment)
    profiles = attribute_cycles(segment, samples, total_cycles)
    work[Work.CYCLES] = [profile.cycles for profile in profiles]
    layers = command_layers(segment)
    cycles = samples["cycles"].astype(np.int64)
    for engine, state, kind in (
        (Engine.ARRAY, "array_stream", Work.WINDOWS),
        (Engine.VECTOR, "vector_stream", Work.VECTORS),
    ):
        busy = state_of(samples, state)
        np.add.at(work[kind], layers[samples["tags"][busy, engine]], cycles[busy])
    for command, layer in zip(engine_commands(segment), layers, strict=True):
        work[Work.BUS_BYTES, layer] += command_bytes(command)
        if isinstance(command, Load) and command.space in (Space.WGT, Space.PARAM):
            work[Work.WEIGHT_BYTES, layer] += command_bytes(command)
    return work


def layer_energies(
    segments: Sequence[NpuSegment],
    works: Sequence[Ints],
    parts: Mapping[Part, Range],
    inferences: int = 1,
) -> tuple[LayerEnergy, ...]:
    """Divide the energy of all parts between the layers of all segments.

    Parameters
    ----------
    segments : sequence of NpuSegment
        Of a program.
    works : sequence of ndarray
        Of each segment, as `work_of` returns it; of several inferences the sum.
    parts : mapping of Part to Range
        All of the energy of an inference.
    inferences : int
        That `works` are of.

    Returns
    -------
    tuple of LayerEnergy
        The layers in order, and the ends of the segments as one; they add up to `parts`.
    """
    ends = sum(work[:, -1:] for work in works)
    work = np.concatenate([*(own[:, :-1] for own in works), ends], axis=1)
    shares = {part: _shares(work, part) for part in parts}
    labels = [(layer_label(layer), layer.op) for own in segments for layer in own.layers]
    return tuple(
        LayerEnergy(
            name=name,
            op=op,
            cycles=int(work[Work.CYCLES, index]) / inferences,
            parts={part: parts[part].times(float(shares[part][index])) for part in parts},
        )
        for index, (name, op) in enumerate([*labels, ("end", "end")])
    )


def _shares(work: Ints, part: Part) -> npt.NDArray[np.float64]:
    """Return what of a part's energy is each layer's."""
    done = work[list(SHARED_BY[part])].sum(axis=0)
    # What no layer seems to have done is laid to all of them.
    chosen = done if done.any() else work[Work.CYCLES]
    return np.asarray(chosen / chosen.sum(), np.float64)
