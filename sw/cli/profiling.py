"""An inference by layer and command, for the commands that show one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.sw.cli.opening import open_device_for
from celosia.sw.cli.options import LATENCY_CYCLES
from celosia.sw.cli.programs import PROGRAM_SUFFIX
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.profile.profile import Profile, measured_profile, predicted_profile
from celosia.sw.program.file import Program
from celosia.sw.report.files import write_json
from celosia.sw.report.samples import Sample

if TYPE_CHECKING:
    from celosia.sw.compiler.ir import Graph
    from celosia.sw.profile.advice import Advice

__all__ = ["TimelineOption", "advice_of", "check_timeline", "measure", "predict", "write_timeline"]

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


def advice_of(
    profile: Profile,
    model: Path,
    *,
    fold: bool,
    quick: bool,
    progress: Callable[[str], object] = lambda text: None,
) -> tuple[list[Advice], str]:
    """Say what to change about a model, and why no change of it was tried, if none was.

    Parameters
    ----------
    profile : Profile
        Predicted.
    model : Path
        The file it was compiled from.
    fold : bool
        Whether channels that are constant were removed.
    quick : bool
        Whether to leave out what compiles a changed model.
    progress : callable
        Is given a few words before something that takes time.
    """
    from celosia.sw.profile.advice import advise

    program = profile.program
    whole = program.batch == 1 and not program.host_segments and model.suffix != PROGRAM_SUFFIX
    graph = _lowered(model, fold=fold) if whole else None
    untried = "--quick leaves that out" if quick else ""
    if model.suffix == PROGRAM_SUFFIX:
        untried = "a program does not contain the model"
    elif graph is None:
        several = program.batch > 1
        untried = "a run is of several samples" if several else "the NPU has not all of it"
    return advise(profile, graph, checks=0 if quick else None, progress=progress), untried


def _lowered(model: Path, *, fold: bool) -> Graph | None:
    """Return the model as the compiler lowers it as a whole, if it does."""
    from celosia.sw.compiler.frontends import formats as frontend
    from celosia.sw.compiler.lower import lower
    from celosia.sw.compiler.passes.fold_channels import fold_channels

    try:
        graph = lower(frontend.load(model))
    except CelosiaError:
        # It has samples that are computed one by one.
        return None
    return fold_channels(graph) if fold else graph


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
