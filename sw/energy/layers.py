"""Which layer of a program the energy belongs to, by what each has done of all events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.isa import Engine, Load, Space, Transfer
from celosia.hw.contract.trace import TRACE_STATES
from celosia.sw.energy.model import LayerEnergy, Part, Range
from celosia.sw.profile.attribute import attribute_cycles, command_layers
from celosia.sw.program.segments import NpuSegment
from celosia.sw.report.labels import layer_label

__all__ = ["LayerWork", "layer_energies", "work_of"]

Ints = npt.NDArray[np.int64]


class LayerWork:
    """What the layers of a segment have done; the last entry of each array is the program's end.

    Parameters
    ----------
    segment : NpuSegment

    Attributes
    ----------
    cycles, windows, vectors : ndarray of int64, shape [layers + 1]
        As `celosia.sw.profile.attribute` lays cycles to layers; cycles in which the array took
        a window, and in which the vector engine issued a vector, for a command of the layer.
    weight_bytes, bus_bytes : ndarray of int64, shape [layers + 1]
        Weights and parameters that it loads, and all that it loads and stores.
    """

    def __init__(self, segment: NpuSegment) -> None:
        self.segment = segment
        count = len(segment.layers) + 1
        self.cycles, self.windows, self.vectors = (np.zeros(count, np.int64) for _ in range(3))
        self.weight_bytes, self.bus_bytes = (np.zeros(count, np.int64) for _ in range(2))

    def shares(self, part: Part) -> npt.NDArray[np.float64]:
        """Return the part of the energy that is each layer's."""
        work = {
            Part.ARRAY: self.windows,
            Part.ACCUMULATOR: self.windows,
            Part.ACT: self.windows + self.vectors,
            Part.WEIGHTS: self.weight_bytes,
            Part.VECTOR: self.vectors,
            Part.REGISTERS: self.cycles,
            Part.MEMORY: self.bus_bytes,
        }[part]
        # What no layer seems to have done is laid to all of them.
        chosen = np.asarray(work if work.any() else self.cycles, np.float64)
        return np.asarray(chosen / chosen.sum(), np.float64)


def work_of(segment: NpuSegment, samples: npt.NDArray[np.void], total_cycles: int) -> LayerWork:
    """Return what the layers of a segment have done in a run.

    Parameters
    ----------
    segment : NpuSegment
        That was run.
    samples : ndarray of celosia.sim.rtl.rtl.SAMPLE_DTYPE, shape [runs]
        From the simulator.
    total_cycles : int
        From the counter ``total``.
    """
    work = LayerWork(segment)
    profiles = attribute_cycles(segment, samples, total_cycles)
    work.cycles[:] = [profile.cycles for profile in profiles]
    layers = command_layers(segment)
    cycles = samples["cycles"].astype(np.int64)
    for engine, state, counts in (
        (Engine.ARRAY, "array_stream", work.windows),
        (Engine.VECTOR, "vector_stream", work.vectors),
    ):
        busy = (samples["state"] >> TRACE_STATES.index(state) & 1).astype(bool)
        np.add.at(counts, layers[samples["tags"][busy, engine]], cycles[busy])
    for command, layer in zip(segment.decode(), layers, strict=False):
        if isinstance(command, Transfer):
            size = command.row_bytes * command.n1 * command.n2
            work.bus_bytes[layer] += size
            if isinstance(command, Load) and command.space in (Space.WGT, Space.PARAM):
                work.weight_bytes[layer] += size
    return work


def layer_energies(
    works: Sequence[LayerWork], parts: Mapping[Part, Range]
) -> tuple[LayerEnergy, ...]:
    """Divide the energy of all parts between the layers of all segments.

    Parameters
    ----------
    works : sequence of LayerWork
        Of each run of each segment.
    parts : mapping of Part to Range
        All of it.

    Returns
    -------
    tuple of LayerEnergy
        The layers in order, and the ends of the segments as one; they add up to `parts`.
    """
    merged: dict[int, LayerWork] = {}
    for work in works:
        own = merged.setdefault(id(work.segment), LayerWork(work.segment))
        for name in ("cycles", "windows", "vectors", "weight_bytes", "bus_bytes"):
            getattr(own, name)[:] += getattr(work, name)
    whole = LayerWork(NpuSegment(commands=b""))
    for name in ("cycles", "windows", "vectors", "weight_bytes", "bus_bytes"):
        layers = [getattr(work, name)[:-1] for work in merged.values()]
        end = sum(int(getattr(work, name)[-1]) for work in merged.values())
        setattr(whole, name, np.concatenate([*layers, np.array([end], np.int64)]))
    shares = {part: whole.shares(part) for part in parts}
    labels = [(layer_label(one), one.op) for work in merged.values() for one in work.segment.layers]
    return tuple(
        LayerEnergy(
            name=name,
            op=op,
            cycles=int(whole.cycles[index]),
            parts={part: parts[part].times(float(shares[part][index])) for part in parts},
        )
        for index, (name, op) in enumerate([*labels, ("end", "end")])
    )
