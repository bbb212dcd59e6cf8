"""Runs a model on the RTL and says what energy an inference takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.named import resolve_config
from celosia.sw.compiler.build import Host, compile_model
from celosia.sw.driver.opening import memory_for
from celosia.sw.energy.events import count_events
from celosia.sw.energy.layers import layer_energies, no_work, work_of
from celosia.sw.energy.model import Conditions, Energy, items_of
from celosia.sw.energy.published import MEMORIES
from celosia.sw.program.file import Program
from celosia.sw.report.figures import npu_macs
from celosia.sw.report.samples import random_samples
from celosia.sw.runtime.session import Session

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LATENCY_CYCLES", "energy_of", "measure_energy"]

LATENCY_CYCLES = 8


def energy_of(
    model: str | os.PathLike[str] | bytes | Program,
    config: str | os.PathLike[str] | NpuConfig = "base",
    *,
    inputs: Sequence[Mapping[str, Any]] | None = None,
    seed: int = 0,
    memory: str = "dram",
    latency_cycles: int = LATENCY_CYCLES,
    fold: bool = False,
    host: Host = "allow",
    console: Console | None = None,
) -> Energy:
    """Say what energy an inference takes: an estimate, as a range, from a run on the RTL.

    Parameters
    ----------
    model : path, bytes or Program
        The ``.tflite`` file, its contents, or a compiled program.
    config : str, path or NpuConfig
        Preset, JSON file of a configuration, or a configuration; a program has its own.
    inputs : sequence of mapping, optional
        One entry a run: arrays by input name; the result is the mean of an inference, of which a
        run of a program with a batch has several. By default one of uniformly random values, which
        change more than real ones.
    seed : int
        Of the random input.
    memory : str
        Kind of system memory: ``dram``, or ``sram`` on the chip.
    latency_cycles : int
        From a request to its answer.
    fold : bool
        Remove channels that are constant.
    host : "allow" or "refuse"
        What happens to operators that the NPU does not run; the host's energy is not counted.
    console : rich.console.Console, optional
        Where the progress of building the simulator is shown.

    Raises
    ------
    CelosiaError
        If the model cannot be compiled, nothing of it runs on the NPU, the machine is one of
        firmware, or there is no such memory.
    BuildError
        If the simulator cannot be built.
    """
    if isinstance(model, Program):
        program = model
    else:
        chosen = resolve_config(config)
        require_measurable(chosen, memory)
        source = model if isinstance(model, bytes) else Path(model)
        program = compile_model(source, chosen, fold=fold, host=host)
    about = "given" if inputs is not None else f"random, seed {seed}"
    samples = random_samples(program, 1, seed) if inputs is None else inputs
    return measure_energy(
        program, samples, about, memory=memory, latency_cycles=latency_cycles, console=console
    )


def require_measurable(config: NpuConfig, memory: str) -> None:
    """Check that there is an account for a machine and its memory.

    Raises
    ------
    CelosiaError
        If there is none.
    """
    if memory not in MEMORIES:
        raise CelosiaError(
            f"system memory {memory!r}",
            "nothing is published of it here",
            f"take one of {', '.join(MEMORIES)}",
        )
    if config.firmware:
        raise CelosiaError(
            f"energy of configuration {config.name}",
            "it has a processor with firmware in place of the engines, whose events are others",
            "take a configuration with engines, such as tiny or base",
        )


def measure_energy(
    program: Program,
    samples: Sequence[Mapping[str, Any]],
    about: str,
    *,
    memory: str = "dram",
    latency_cycles: int = LATENCY_CYCLES,
    console: Console | None = None,
) -> Energy:
    """Run a program on the RTL and account for it.

    Parameters
    ----------
    program : Program
    samples : sequence of mapping
        Inputs of each run.
    about : str
        What they are, in words.
    memory, latency_cycles, console
        As of `energy_of`.

    Raises
    ------
    CelosiaError
        As of `energy_of`.
    """
    config = program.config
    require_measurable(config, memory)
    if not program.npu_segments:
        raise CelosiaError(
            f"energy of {program.model}", "all of it runs on the host", "take another model"
        )
    if not samples:
        raise CelosiaError(f"energy of {program.model}", "there is no input", "give at least one")
    from celosia.sim.rtl.rtl import MemoryModel
    from celosia.sw.energy.device import ActivityDevice

    segments = program.npu_segments
    counters: Counter[str] = Counter()
    works = [no_work(segment) for segment in segments]
    with ActivityDevice(
        config,
        memory_bytes=memory_for(program),
        memory_model=MemoryModel(latency_cycles=latency_cycles),
        console=console,
    ) as device:
        device.identify()
        with Session(program, device) as session:
            for sample in samples:
                device.profiles.clear()
                result = session.run(sample)
                counters.update(result.counters)
                taken = [part.cycles for part in result.segments if part.cycles is not None]
                for number, (trace, cycles) in enumerate(zip(device.profiles, taken, strict=True)):
                    # One sample after the other, or all at once: the segments in turn.
                    place = number % len(segments)
                    works[place] += work_of(segments[place], trace, cycles)
        events = count_events(config, device.activity, device.structure, counters)
    inferences = len(samples) * program.batch
    energy = Energy(
        model=program.model,
        config=config.name,
        macs=npu_macs(program) // program.batch,
        conditions=Conditions(
            input=about, memory=memory, latency_cycles=latency_cycles, samples=inferences
        ),
        events=events,
        items=items_of(events, memory, inferences),
    )
    return replace(energy, layers=layer_energies(segments, works, energy.parts, inferences))
