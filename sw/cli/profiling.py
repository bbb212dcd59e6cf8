"""An inference by layer and command, for the commands that show one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.sw.cli.opening import LATENCY_CYCLES, open_device_for
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.profile.profile import Profile, measured_profile, predicted_profile
from celosia.sw.program.file import Program
from celosia.sw.report.files import write_json
from celosia.sw.report.samples import Sample

__all__ = ["TimelineOption", "check_timeline", "measure", "predict", "write_timeline"]

TimelineOption = Annotated[
    Path | None,
    typer.Option(
        "--timeline",
        metavar="T.json",
        dir_okay=False,
        help="Write when each layer and each command ran, for ui.perfetto.dev. On 'emu', which has"
        " no clock, what the compiler predicts.",
    ),
]


def predict(program: Program, latency_cycles: int | None = None) -> Profile:
    """Return what the compiler expects of an inference.

    Parameters
    ----------
    program : Program
    latency_cycles : int, optional
        Of system memory.
    """
    timing = MemoryTiming(latency_cycles=latency_cycles or LATENCY_CYCLES)
    return predicted_profile(program, timing)


def measure(
    program: Program,
    sample: Sample,
    memory: Mapping[str, Any],
    latency_cycles: int | None = None,
) -> Profile:
    """Run an inference on the simulated gateware; of samples one by one the first is looked at.

    Parameters
    ----------
    program : Program
    sample : Sample
        Its inputs.
    memory : mapping
        From `celosia.sw.cli.opening.memory_options`.
    latency_cycles : int, optional
        What they say of the memory's latency.

    Raises
    ------
    DeviceError
        If the simulator cannot be built, or the run fails.
    """
    from celosia.sw.driver.sim import SimDevice

    timing = MemoryTiming(latency_cycles=latency_cycles or LATENCY_CYCLES)
    with open_device_for(program, "sim", profile=True, **memory) as device:
        assert isinstance(device, SimDevice)
        result = device.run(program, sample)
        samples = device.profiles[: len(program.npu_segments)]
    if program.runs > 1:
        # The counters are of all samples.
        result = replace(result, segments=result.segments[: len(program.segments)], counters={})
    return measured_profile(program, samples, result, timing)


def check_timeline(path: Path | None, device: str) -> None:
    """Refuse a timeline of a device that cannot tell when commands ran.

    Raises
    ------
    CelosiaError
        Naming those that can.
    """
    if path is not None and device not in ("sim", "emu"):
        raise CelosiaError(
            f"--timeline on {device}",
            "it counts cycles, but does not say when each command ran",
            "use --device sim, or emu for the prediction",
        )


def write_timeline(
    path: Path,
    program: Program,
    device: str,
    sample: Sample,
    memory: Mapping[str, Any],
    latency_cycles: int | None = None,
) -> str:
    """Write the trace of the first inference, which is run once more for it; say what is in it."""
    from celosia.sw.report.timeline import trace_events

    if device == "sim":
        # A waveform is of the runs that were asked for.
        steady = {name: value for name, value in memory.items() if name != "trace"}
        profile = measure(program, sample, steady, latency_cycles)
        how = "the first inference, measured"
    else:
        profile = predict(program)
        how = "predicted: 'emu' has no clock"
    write_json(path, trace_events(profile))
    return f"timeline in {path}: {how}, {profile.cycles:,} cycles; open it in ui.perfetto.dev"
