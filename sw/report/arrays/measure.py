"""Measures pieces of layers on the RTL of one array, and whole networks for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Space
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.build import compile_graph, compile_model
from celosia.sw.compiler.frontends import formats as frontend
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.place.works import Fusion, Work, works_of
from celosia.sw.driver.opening import open_device
from celosia.sw.driver.sim import SimDevice
from celosia.sw.program.file import Program
from celosia.sw.program.footprint import accesses
from celosia.sw.reference.interpreter import ReferenceModel
from celosia.sw.report.arrays.cut import can_be_cut, cut, needed_region, whole_region
from celosia.sw.report.arrays.phases import divide_program, keep_commands
from celosia.sw.report.arrays.split import Region, Split
from celosia.sw.report.samples import Sample, random_samples

__all__ = ["Bench", "Network", "PieceCycles", "SplitCycles", "UnequalError"]

Array = npt.NDArray[Any]
SEED = 0


class UnequalError(CelosiaError):
    """A piece gave something else than the golden model of the whole network has there."""


@dataclass(frozen=True, kw_only=True)
class PieceCycles:
    """What one array takes for its part of a layer.

    Attributes
    ----------
    cycles : int
        From the layer's first command to the end of its last one, weights and inputs being on chip.
    weight_words : int
        Bus words of its weights and parameters.
    weight_bytes : int
        What it takes of the weight memory; 0 if it loads its weights itself.
    bus_words : int
        What crossed the bus during `cycles`, without commands.
    """

    cycles: int
    weight_words: int
    weight_bytes: int
    bus_words: int


@dataclass(frozen=True, kw_only=True)
class SplitCycles:
    """A layer, divided.

    Attributes
    ----------
    regions : list of Region or None
        What each array computes.
    pieces : list of PieceCycles or None
        None for an array without work.
    chunks : int
        Lines of channels of the largest piece: its weights can come one after the other.
    """

    regions: list[Region | None]
    pieces: list[PieceCycles | None]
    chunks: int = 1

    @property
    def cycles(self) -> int:
        """Until the last array is done."""
        return max(piece.cycles for piece in self.pieces if piece is not None)

    @property
    def mean_cycles(self) -> float:
        """What each array takes on average, idle ones counted."""
        return sum(piece.cycles for piece in self.pieces if piece is not None) / len(self.pieces)


@dataclass(kw_only=True)
class Network:
    """A model, its layers, and what every tensor must be.

    Attributes
    ----------
    path : Path
        The ``.tflite`` file.
    graph : Graph
        Lowered.
    works : list of Work
        Its layers.
    tensors : dict of str to ndarray
        By the golden model, for one random input; with the inputs.
    sample : dict of str to ndarray
        The input.
    macs : int
        Of an inference.
    splits : list of dict
        For each layer what was measured of it, by name of the split.
    pairs : list of dict
        The same of each layer and the next one in one go, where each array needs nothing of the
        other arrays in between.
    """

    path: Path
    graph: Graph
    works: list[Work]
    tensors: Mapping[str, Array]
    sample: Sample
    macs: int
    splits: list[dict[str, SplitCycles]] = field(default_factory=list)
    pairs: list[dict[str, SplitCycles]] = field(default_factory=list)

    @staticmethod
    def load(path: Path, config: NpuConfig) -> Network:
        """Read a model and compute its tensors."""
        graph = lower(frontend.load(path))
        sample = random_samples(compile_model(path, config), 1, SEED)[0]
        with ReferenceModel(path, interpreter=False) as reference:
            tensors = reference.run(sample)[-1].tensors
        works = works_of(graph, fusion=Fusion.HEAVIEST)
        macs = sum(work.op.macs for work in works)
        return Network(
            path=path,
            graph=graph,
            works=works,
            tensors={**tensors, **sample},
            sample=sample,
            macs=macs,
        )


class Bench:
    """One array on the RTL.

    Parameters
    ----------
    config : NpuConfig
        The array, with all that belongs to it.
    device : SimDevice
        It.
    """

    def __init__(self, config: NpuConfig, device: SimDevice) -> None:
        self.config = config
        self._device = device
        self._empty: dict[int, tuple[int, int]] = {}

    @staticmethod
    @contextmanager
    def open(config: NpuConfig) -> Iterator[Bench]:
        """Open the simulator of a configuration."""
        with open_device("sim", config) as device:
            assert isinstance(device, SimDevice)
            yield Bench(config, device)

    def network(self, network: Network, *, interval_cycles: int = 1) -> tuple[int, int]:
        """Run a network as it is on one array.

        Parameters
        ----------
        network : Network
            What to run.
        interval_cycles : int
            Cycles from bus word to bus word: 4 where four machines share a bus.

        Returns
        -------
        int, int
            Cycles, and words read over the bus.

        Raises
        ------
        UnequalError
            If its outputs are not the golden model's.
        """
        program = compile_model(network.path, self.config)
        cycles, words, outputs = self._run(program, network.sample, interval_cycles)
        for name, values in outputs.items():
            self._compare(network.path.stem, values, network.tensors[name])
        return cycles, words

    def measure(self, network: Network, splits: Sequence[Split]) -> None:
        """Measure all layers of a network in some splits, and what pairs of them there are.

        Raises
        ------
        UnequalError
            If an output is not what the golden model of the whole network has there.
        """
        for index, work in enumerate(network.works):
            single, pair = {}, {}
            for split in splits:
                single[split.name] = self._split(network, [work], split)
                following = network.works[index + 1 : index + 2]
                if following and self._is_local(network, work, following[0], split):
                    pair[split.name] = self._split(network, [work, *following], split)
            network.splits.append(single)
            network.pairs.append(pair)

    def with_input_shared(self, network: Network, split: Split, samples: int) -> int:
        """Return the first layer's cycles where the inputs of several samples share the bus."""
        return self._split(network, network.works[:1], split, samples).cycles

    def _regions(self, network: Network, work: Work, split: Split) -> list[Region | None]:
        if not can_be_cut(work):
            return [whole_region(network.graph, work.output), *[None] * (split.arrays - 1)]
        height, _, channels = network.graph.hwc(work.output)
        return split.regions(height, channels, self.config.line_bytes)

    def _is_local(self, network: Network, one: Work, other: Work, split: Split) -> bool:
        """Return whether each array computes what it needs for a layer in the one before it."""
        if one.output not in other.inputs:
            return False
        graph, place = network.graph, other.inputs.index(one.output)
        shared = [
            (one.inputs.index(name), other.inputs.index(name))
            for name in set(one.inputs) & set(other.inputs)
        ]
        first, second = (self._regions(network, work, split) for work in (one, other))
        for here, there in zip(first, second, strict=True):
            if there is None:
                continue
            if here is None or here != needed_region(graph, other, place, there):
                return False
            # What both read they read the same part of.
            for mine, yours in shared:
                part = needed_region(graph, other, yours, there)
                if needed_region(graph, one, mine, here) != part:
                    return False
        return True

    def _split(
        self, network: Network, works: Sequence[Work], split: Split, samples: int = 1
    ) -> SplitCycles:
        """Measure the pieces of a layer, or of two, one by one, and check what each gives."""
        regions = self._regions(network, works[-1], split)
        working = [region for region in regions if region is not None]
        # Stripes of the network's input cross one bus, each for itself.
        inputs = samples * len({region.rows for region in working})
        line = self.config.line_bytes
        return SplitCycles(
            regions=regions,
            pieces=[
                None if region is None else self._piece(network, works, region, inputs)
                for region in regions
            ],
            chunks=max(ceil_div(end - first, line) for first, end in (r.channels for r in working)),
        )

    def _piece(
        self, network: Network, works: Sequence[Work], region: Region, inputs_at_once: int
    ) -> PieceCycles:
        piece = cut(network.graph, works, region)
        program = compile_graph(piece.graph, self.config)
        phases = divide_program(program, begins=piece.begins, ends=piece.ends)
        inputs = piece.inputs(network.tensors, network.graph)
        if phases.inputs is not None:
            self._run(phases.inputs, inputs, 1)
        loaded: dict[str, int] = {}
        if phases.weights is not None:
            self._run(phases.weights, inputs, 1)
            loaded = _loaded_bytes(phases.weights)
        # A first layer that loads its own weights fills the bus with them, which are everybody's:
        # there the others' inputs come on top.
        shares_bus = piece.begins and phases.weights is not None
        interval_cycles = inputs_at_once if shares_bus else 1
        cycles, words, outputs = self._run(phases.layer, inputs, interval_cycles)
        if piece.begins and not shares_bus:
            size_bytes = sum(values.nbytes for values in inputs.values())
            cycles += (inputs_at_once - 1) * ceil_div(size_bytes, self.config.bus_bytes)
        if phases.output is not None:
            _, _, outputs = self._run(phases.output, inputs, 1)
        (values,) = outputs.values()
        self._compare(piece.graph.name, values, piece.expected(network.tensors, network.graph))
        empty_cycles, empty_words = self.empty(interval_cycles, program, inputs)
        code_words = (len(phases.layer.npu.commands) - COMMAND_BYTES) // self.config.bus_bytes
        return PieceCycles(
            cycles=cycles - empty_cycles,
            weight_words=sum(loaded.values()) // self.config.bus_bytes,
            weight_bytes=loaded.get(Space.WGT.name, 0),
            bus_words=max(0, words - empty_words - code_words),
        )

    def empty(
        self, interval_cycles: int = 1, program: Program | None = None, inputs: Sample | None = None
    ) -> tuple[int, int]:
        """Return cycles and bus words of a program without a command: doorbell, fetch, interrupt.

        Parameters
        ----------
        interval_cycles : int
            As of `network`.
        program, inputs : optional
            Any program and its inputs; needed the first time.
        """
        if interval_cycles not in self._empty:
            assert program is not None
            assert inputs is not None
            nothing = keep_commands(program, lambda command, layer: False)
            self._empty[interval_cycles] = self._run(nothing, inputs, interval_cycles)[:2]
        return self._empty[interval_cycles]

    def _run(
        self, program: Program, inputs: Sample, interval_cycles: int
    ) -> tuple[int, int, dict[str, Array]]:
        from celosia.sim.rtl.rtl import MemoryModel

        self._device.rtl.set_memory_model(MemoryModel(interval_cycles=interval_cycles))
        result = self._device.run(program, inputs)
        assert result.cycles is not None
        return result.cycles, result.counters["bus_read"], dict(result.outputs)

    @staticmethod
    def _compare(what: str, values: Array, expected: Array) -> None:
        wrong = int((np.ravel(values) != np.ravel(expected)).sum())
        if wrong:
            raise UnequalError(
                f"layer {what}",
                f"{wrong} of {expected.size} elements differ from the golden model",
                "report it: the cut or the machine is wrong",
            )


def _loaded_bytes(program: Program) -> dict[str, int]:
    """Return how many bytes a program loads into each memory."""
    loaded: dict[str, int] = {}
    for command in program.npu.decode():
        for access in accesses(command, program.config):
            if access.write:
                size = int((access.ends - access.starts).sum())
                loaded[access.memory] = loaded.get(access.memory, 0) + size
    return loaded
