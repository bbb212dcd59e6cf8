"""Runs models on the RTL under stated conditions and measures them.

Every run is checked: its outputs are compared with the golden model's in the same run that is
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.build import Host, compile_model
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.driver.opening import memory_for, open_device
from celosia.sw.driver.sim import SimDevice
from celosia.sw.profile.attribute import LayerProfile, Reason
from celosia.sw.profile.profile import Profile, measured_profile
from celosia.sw.program.file import Program
from celosia.sw.reference.interpreter import ReferenceModel
from celosia.sw.report.bench.baselines import Baseline, baseline_of
from celosia.sw.report.figures import npu_macs
from celosia.sw.report.samples import random_samples

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Bench", "Conditions", "Measurement", "find_models"]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How system memory behaves.

    Attributes
    ----------
    latency_cycles : int
        From the acceptance of a request to its answer; then one word a cycle.
    stall_probability : float
        Chance, each cycle, that requests are refused, and that a due answer is held back.
    """

    latency_cycles: int = 8
    stall_probability: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One inference on the RTL, or several in one run.

    Attributes
    ----------
    model : str
        Name of the file, without its suffix.
    config : NpuConfig
        The machine.
    conditions : Conditions
        System memory.
    resident : bool
        Whether the weights were on chip already.
    fold : bool
        Whether the compiler removed channels that are constant.
    batch : int
        Inferences of the run, whose samples are rows of the same tensors.
    equal : bool
        Whether all outputs are the golden model's.
    cycles : int
        From the doorbell to the end, by the machine's own counter; of all samples.
    macs : int
        Of the model's definition, on the NPU; with `fold` those that are left.
    predicted_cycles : int
        By the compiler, for the default conditions.
    words_read, words_written : int
        Bus words.
    layers : list of LayerProfile
        They add up to `cycles`; the last one is the program's end.
    baseline : Baseline
        What it is compared with.
    counters : mapping of str to int
        The machine's performance counters.
    host_operators : int
        How many operators ran on the host.
    host_milliseconds : float
        What they took there, on the machine that measured; not among the cycles.
    profile : Profile or None
        The same run by layer and by command; None of one that was read from a record.
    """

    model: str
    config: NpuConfig
    conditions: Conditions
    resident: bool = False
    fold: bool = False
    batch: int = 1
    equal: bool
    cycles: int
    macs: int
    predicted_cycles: int
    words_read: int
    words_written: int
    layers: list[LayerProfile]
    baseline: Baseline
    counters: Mapping[str, int] = field(default_factory=dict)
    host_operators: int = 0
    host_milliseconds: float = 0.0
    profile: Profile | None = None

    @property
    def utilisation(self) -> float:
        """Share of the multipliers' cycles that the model's own products take."""
        return self.macs / (self.cycles * self.config.macs_per_cycle)

    @property
    def prediction_error(self) -> float:
        """Predicted over measured cycles, less one."""
        return self.predicted_cycles / self.cycles - 1

    @property
    def reasons(self) -> dict[Reason, int]:
        """Cycles of all layers by reason."""
        return {why: sum(layer.reasons[why] for layer in self.layers) for why in Reason}

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; the keys are in ``docs/bench_json.md``."""
        word_bytes = self.config.bus_bytes
        return {
            "model": self.model,
            "config": self.config.name,
            "config_fields": asdict(self.config),
            "conditions": {**asdict(self.conditions), "resident": self.resident, "fold": self.fold},
            "batch": self.batch,
            "cycles_per_inference": self.cycles / self.batch,
            "equal": self.equal,
            "cycles": self.cycles,
            "macs": self.macs,
            "utilisation": self.utilisation,
            "predicted_cycles": self.predicted_cycles,
            "prediction_error": self.prediction_error,
            "bus_word_bytes": word_bytes,
            "bus_words_read": self.words_read,
            "bus_words_written": self.words_written,
            "bus_bytes_read": self.words_read * word_bytes,
            "bus_bytes_written": self.words_written * word_bytes,
            "baseline": asdict(self.baseline),
            "reasons": {why.value: count for why, count in self.reasons.items()},
            "counters": dict(self.counters),
            "host_operators": self.host_operators,
            "host_milliseconds": self.host_milliseconds,
            "layers": [_layer_figures(layer, self.config) for layer in self.layers],
        }


def _layer_figures(profile: LayerProfile, config: NpuConfig) -> dict[str, Any]:
    layer = profile.layer
    figures: dict[str, Any] = {
        "op": "end" if layer is None else layer.op,
        "cycles": profile.cycles,
        "reasons": {why.value: count for why, count in profile.reasons.items()},
    }
    if layer is not None:
        known = profile.cycles > 0
        figures |= {
            "name": layer.name,
            "origin": asdict(layer.origin),
            "how": layer.reason,
            "macs": layer.macs,
            "folded_macs": layer.folded_macs,
            "utilisation": (
                (layer.macs - layer.folded_macs) / (profile.cycles * config.macs_per_cycle)
                if known
                else None
            ),
            "predicted_cycles": layer.predicted_cycles,
            "prediction_error": layer.predicted_cycles / profile.cycles - 1 if known else None,
        }
    return figures


@dataclass(frozen=True)
class _Reference:
    content: bytes
    sample: dict[str, npt.NDArray[Any]]
    outputs: dict[str, npt.NDArray[Any]]

    def equals(self, outputs: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Whether all of a run's outputs are as they must be; a batch of one comes and goes."""
        return outputs.keys() == self.outputs.keys() and all(
            np.array_equal(np.ravel(values), np.ravel(self.outputs[name]))
            for name, values in outputs.items()
        )


class Bench:
    """Measures models; compiles, and asks the golden model, once for each.

    Parameters
    ----------
    seed : int
        Of the random input that every run of a model gets.
    console : rich.console.Console, optional
        Where the progress of building a simulator is shown.
    host : "allow" or "refuse"
        As of `celosia.sw.compiler.build.compile_model`.
    """

    def __init__(
        self, *, seed: int = 0, console: Console | None = None, host: Host = "allow"
    ) -> None:
        self._host = host
        self._seed = seed
        self._console = console
        self._programs: dict[tuple[Path, NpuConfig, bool, int, bool], Program] = {}
        self._references: dict[tuple[Path, int, int], _Reference] = {}

    def program(
        self,
        path: Path,
        config: NpuConfig,
        *,
        fold: bool = False,
        batch: int = 1,
        resident: bool = False,
    ) -> Program:
        """Return a model compiled for a configuration.

        Parameters
        ----------
        path : Path
            The ``.tflite`` file.
        config : NpuConfig
            The machine.
        fold : bool
            Whether to remove channels that are constant.
        batch : int
            Samples of a run. Where they would run one after the other, one is measured.
        resident : bool
            Let weights stay on chip, as many as there is room for.

        Raises
        ------
        CelosiaError
            If it cannot be.
        """
        key = (path, config, fold, batch, resident)
        if key not in self._programs:
            program = compile_model(
                path, config, fold=fold, batch=batch, host=self._host, resident=resident
            )
            if not program.npu_segments:
                raise CelosiaError(
                    f"model {path}", "all of it runs on the host", "there are no cycles to measure"
                )
            if program.one_by_one and batch > 1:
                program = self.program(path, config, fold=fold, resident=resident)
            elif program.one_by_one:
                raise CelosiaError(
                    f"model {path.stem}",
                    f"its {program.batch} samples run one after the other ({program.one_by_one})",
                    "measure the model of one sample",
                )
            self._programs[key] = program
        return self._programs[key]

    def measure(
        self,
        path: Path,
        config: NpuConfig,
        conditions: Conditions | None = None,
        *,
        resident: bool = False,
        fold: bool = False,
        batch: int = 1,
    ) -> Measurement:
        """Run one inference, or several at once.

        Parameters
        ----------
        path : Path
            The ``.tflite`` file.
        config : NpuConfig
            The machine.
        conditions : Conditions, optional
            Of system memory.
        resident : bool
            Let weights stay on chip, as many as there is room for, from an inference before it, of
            another input.
        fold : bool
            Remove channels that are constant; the outputs must be the same.
        batch : int
            As of `program`.

        Raises
        ------
        CelosiaError
            If the model cannot be compiled or checked, or the run fails.
        BuildError
            If the simulator cannot be built.
        """
        from celosia.sim.rtl.rtl import MemoryModel

        chosen = conditions or Conditions()
        program = self.program(path, config, fold=fold, batch=batch, resident=resident)
        turns = (1, 0) if resident else (0,)
        references = [self._reference(path, program, turn) for turn in turns]
        memory = MemoryModel(
            latency_cycles=chosen.latency_cycles,
            stall_probability=chosen.stall_probability,
            delay_probability=chosen.stall_probability,
            seed=self._seed + 1,
        )
        equal = True
        with open_device(
            "sim",
            config,
            memory_bytes=memory_for(program),
            memory_model=memory,
            profile=True,
            console=self._console,
        ) as device:
            assert isinstance(device, SimDevice)
            for reference in references:
                device.profiles.clear()
                result = device.run(program, reference.sample)
                equal = equal and reference.equals(result.outputs)
            assert result.cycles is not None
            timing = MemoryTiming(latency_cycles=chosen.latency_cycles)
            profile = measured_profile(program, device.profiles, result, timing)
        macs = npu_macs(program)
        return Measurement(
            model=path.stem,
            config=config,
            conditions=chosen,
            resident=resident,
            fold=fold,
            batch=program.batch,
            equal=equal,
            cycles=result.cycles,
            macs=macs,
            predicted_cycles=sum(layer.predicted_cycles for layer in program.layers),
            words_read=result.counters["bus_read"],
            words_written=result.counters["bus_write"],
            layers=_layers(profile),
            profile=profile,
            baseline=baseline_of(
                reference.content,
                macs // program.batch,
                config,
                {layer.origin.index for part in program.host_segments for layer in part.layers},
            ),
            counters=result.counters,
            host_operators=sum(len(part.layers) for part in program.host_segments),
            host_milliseconds=result.host_milliseconds,
        )

    def _reference(self, path: Path, program: Program, number: int) -> _Reference:
        key = (path, number, program.batch)
        if key not in self._references:
            sample = random_samples(program, number + 1, self._seed)[number]
            # The golden model is quicker, but lacks what the NPU lacks.
            interpreter = None if program.host_segments else False
            with ReferenceModel(path, interpreter=interpreter) as model:
                expected = model.run(sample)[-1].tensors
            outputs = {info.name: expected[info.name] for info in program.outputs}
            self._references[key] = _Reference(path.read_bytes(), sample, outputs)
        return self._references[key]


def _layers(profile: Profile) -> list[LayerProfile]:
    """Return the cycles of the NPU's layers, and those of all segments' ends."""
    ends = dict.fromkeys(Reason, 0)
    ends[Reason.IDLE] = sum(segment.end_cycles for segment in profile.segments)
    return [
        *(
            LayerProfile(layer=view.info, cycles=view.cycles, reasons=dict(view.reasons))
            for view in profile.layers
            if view.on_npu
        ),
        LayerProfile(layer=None, cycles=ends[Reason.IDLE], reasons=ends),
    ]


def find_models(folder: Path) -> list[Path]:
    """Return the ``.tflite`` and ``.onnx`` files of a folder, by name.

    Raises
    ------
    CelosiaError
        If there are none.
    """
    models = sorted([*folder.glob("*.tflite"), *folder.glob("*.onnx")]) if folder.is_dir() else []
    if not models:
        raise CelosiaError(
            f"models in {folder}",
            "it has no .tflite or .onnx files" if folder.is_dir() else "there is no such folder",
            "name a folder with --models, or files with --model",
        )
    return models
