"""``celosia run``: inferences on a device, checked if asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from celosia.errors import CelosiaError, InputError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.named import resolve_config
from celosia.hw.contract.regs import COUNTERS
from celosia.sw.cli.common import (
    CHECK_FAILED,
    BatchOption,
    ExactOption,
    FoldOption,
    HostChoice,
    HostOption,
    JsonOption,
    ResidentOption,
    help_text,
    output_console,
    progress_bar,
    result_console,
)
from celosia.sw.cli.completing import complete_config, complete_device
from celosia.sw.cli.opening import (
    board_line,
    find_device,
    memory_options,
    open_device_for,
)
from celosia.sw.cli.options import (
    ArrayOption,
    LatencyOption,
    ProgramArgument,
    QuantizeOption,
    RandomOption,
    StallsOption,
)
from celosia.sw.cli.profiling import TimelineOption, check_timeline, write_timeline
from celosia.sw.cli.programs import PROGRAM_SUFFIX, program_of
from celosia.sw.cli.results import (
    MAX_LISTED_SAMPLES,
    answered_right,
    print_results,
    stacked_outputs,
)
from celosia.sw.cli.samples import check_jobs, check_labels, chosen_samples
from celosia.sw.cli.tracing import (
    FromOption,
    ToOption,
    TraceOption,
    announce_trace,
    check_trace_options,
    plan_trace,
    trace_figures,
)
from celosia.sw.driver.device import Device
from celosia.sw.driver.opening import UART
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.report.files import require_writable, write_arrays, write_json
from celosia.sw.report.host import host_figures, measure_host, share_line
from celosia.sw.report.lines import check_line
from celosia.sw.report.samples import Sample
from celosia.sw.report.stream import load_state, load_stream, require_state

__all__ = ["register"]

HELP = """
Run a model on the NPU and print the result and the cycles it took.

MODEL is a .tflite or .onnx file, which is compiled first, or a program of 'celosia compile'. The
device 'sim' is the gateware itself, simulated cycle by cycle; its simulator is built the first time
(about a minute) and kept in a cache. 'emu' is the bit-exact emulator: no clock, nothing to build.
'netlist' is what synthesis makes of the gateware, simulated in the same way: minutes to build, and
slow, so for --config nano.
'uart:PORT' is a board at a serial port, 'uart:auto' the only board there is; without --config the
model is compiled for what the board has.

Inputs are int8 arrays of the model's input shape; one more dimension in front (or a longer batch
dimension) is as many samples. A folder has a file for each: .npy, or .bin of the input's bytes. The
emulator runs many samples at once, with equal results; --jobs N runs them in N processes. Without
--input and --random one random input is used. With --batch N a run is of N samples, along the first
axis of inputs and outputs.

A model with variables (a streaming wake word, say) keeps them from one inference to the next, so
samples are steps in time. --stream cuts a long recording into the model's windows along time and
runs them one after the other; --state-out writes the variables behind the last one, --state-in
begins with them.

--labels gives the class of each sample: .npy, .npz, text with one class a line, or, for a folder, a
.csv of file names and classes (MLPerf Tiny's y_labels.csv is one). Printed are the share of right
answers (the highest score), which classes are taken for which, and the area under the ROC curve. An
output of one value is a score for class 1 against class 0. An output like the input, with labels 0
and 1, is a reconstruction: its mean squared error is the score of an anomaly, class 1.

--check compares every tensor of the network with the golden model, and with TFLite's reference
kernels if ai-edge-litert is installed. If something differs, it names the first tensor that does,
the element, and the layer, tile and command that computed it, and ends with exit code 1. Where
TFLite's kernels refuse a model or crash, it says so: the golden model's comparison then decides.

--trace writes what every signal of the gateware does, cycle by cycle, with the layer and the
command of each engine by name, for GTKWave or Surfer: docs/looking_inside.md.

--timeline writes when each layer and each command ran, for Perfetto or Chrome: docs/report.md.

Examples:

  celosia run kws_int8.tflite --input kws_int8.npy --check

  celosia run kws_int8.tflite --random 20 --seed 1 --check --config large --json kws.json

  celosia run ad01_int8.tflite --input windows_float.npy --quantize --save out.npz

  celosia run kws_int8.tflite --input kws01 --labels kws01/y_labels.csv --device emu

  celosia run vww_96_int8.tflite --input vww01 --pixels --labels vww.csv --jobs 2

  celosia run vww_96_int8.tflite --fold --check

  celosia run ad01_int8.tflite --batch 8 --check --device emu

  celosia run kws.celosia --device emu

  celosia run wake_word.tflite --stream features.npy --check --state-out later.npz

  celosia run kws_int8.tflite --timeline kws_timeline.json

  celosia run sww_int8.tflite --device netlist --config nano --check

  celosia run kws_int8.tflite --trace kws.fst --from 3 --to "#4 CONV_2D"

  celosia run kws_int8.tflite --device uart:/dev/ttyUSB0
"""
MAX_LABELLED_SAMPLES = 3
"""Listed of those whose accuracy is what is asked for."""
MOST_JOBS = 64

Labels = npt.NDArray[np.int64]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("run", help=help_text(HELP))(run_command)


def run_command(
    model: ProgramArgument,
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="X.npy|X.npz|DIR", help="Inputs, one sample or many."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="FILE", help="The class of each sample of --input, from 0."
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            max=MOST_JOBS,
            help="Processes of a simulated device, for models without variables.",
        ),
    ] = 1,
    pixels: Annotated[
        bool,
        typer.Option(
            "--pixels", help="The bytes of .bin files are uint8 pixels; int8 inputs get them - 128."
        ),
    ] = False,
    stream: Annotated[
        Path | None,
        typer.Option(
            "--stream",
            metavar="X.npy|X.npz",
            help="A recording, longer along time than an input: its windows are run one by one.",
        ),
    ] = None,
    hop: Annotated[
        int | None,
        typer.Option(
            "--hop",
            metavar="N",
            min=1,
            help="Steps in time from one window of --stream to the next. Default: its length.",
        ),
    ] = None,
    array: ArrayOption = None,
    quantize: QuantizeOption = False,
    random: RandomOption = 0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", min=0, help="Seed of random inputs and stalls.")
    ] = 0,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME|FILE.json",
            autocompletion=complete_config,
            help="Hardware configuration: a preset or a JSON file with fields of NpuConfig."
            " Default: what the program was compiled for, or the board has, or base.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="sim|emu|netlist|uart:PORT|uart:auto",
            autocompletion=complete_device,
            help="The simulated gateware, the emulator, the simulated netlist, or a board ('celosia"
            " devices' lists them).",
        ),
    ] = "sim",
    fold: FoldOption = False,
    batch: BatchOption = 1,
    host: HostOption = HostChoice.ALLOW,
    resident: ResidentOption = None,
    exact: ExactOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every tensor with the golden model.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against", metavar="MODEL", help="The model of a .celosia program, for --check."
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="Y.npz", help="Write the outputs, by tensor name."),
    ] = None,
    state_in: Annotated[
        Path | None,
        typer.Option(
            "--state-in", metavar="F.npz", help="What the model's variables hold at the beginning."
        ),
    ] = None,
    state_out: Annotated[
        Path | None,
        typer.Option(
            "--state-out", metavar="F.npz", help="Write what they hold behind the last inference."
        ),
    ] = None,
    json: JsonOption = None,
    latency: LatencyOption = None,
    stalls: StallsOption = None,
    counters: Annotated[
        bool, typer.Option("--counters", help="Also print the performance counters.")
    ] = False,
    trace: TraceOption = None,
    first_layer: FromOption = None,
    last_layer: ToOption = None,
    timeline: TimelineOption = None,
) -> None:
    """Run inferences."""
    require_writable(save, json, state_out, timeline)
    check_trace_options(device, trace, first_layer, last_layer)
    check_timeline(timeline, device)
    memory = memory_options(device, latency, stalls, seed)
    program, device, source = _program(
        model,
        config,
        against,
        device,
        check=check,
        fold=fold,
        batch=batch,
        host=host,
        resident=resident,
        exact=exact,
    )
    waveform = plan_trace(program, trace, first_layer, last_layer)
    console = output_console()
    state = None if state_in is None else load_state(program, state_in)
    if state_out is not None:
        require_state(program, "--state-out")
    more: dict[str, Any] = {}
    known: list[int] = []
    classes = None
    check_labels(labels, input_, random, stream)
    check_jobs(program, device, jobs, check=check, stalls=stalls)
    if stream is None:
        if hop is not None:
            raise InputError("--hop", "it is about the windows of a --stream", "add one")
        samples, known, classes = chosen_samples(
            console, program, input_, labels, array, random, seed, quantize=quantize, pixels=pixels
        )
    elif input_ is not None or random:
        raise InputError("--stream", "it is the input", "leave --input and --random out")
    else:
        cut = load_stream(program.inputs, stream, array=array, quantize=quantize, hop=hop)
        samples = cut.windows
        more["stream"] = {"file": str(stream), "windows": len(samples), "left": cut.left}
    if waveform is not None and jobs > 1:
        raise InputError("--trace", "one process writes it", "leave --jobs out")
    if waveform is not None:
        announce_trace(console, program, waveform)
        memory["trace"] = waveform
    with open_device_for(program, device, **memory) as opened:
        if jobs > 1:
            figures, results, kept = _run_jobs(program, device, memory, samples, jobs)
        else:
            figures, results, kept = _run(
                program,
                source if check else None,
                opened,
                device,
                samples,
                state,
                exact=exact,
            )
        board = board_line(opened, results[0].cycles)
    times = measure_host(program)
    figures |= host_figures(program, times)
    most = MAX_LABELLED_SAMPLES if labels is not None else MAX_LISTED_SAMPLES
    print_results(console, program, results, figures, most, listed=stream is not None)
    if stream is not None and cut.left:
        console.print(f"{cut.left} at the end of {stream} make no window", markup=False)
    if times:
        host_ms = results[0].host_milliseconds
        console.print(
            f"{share_line(program, times)}; {host_ms:.3g} ms in this run, with its process",
            soft_wrap=True,
        )
    if board:
        console.print(f"one inference: {board}", markup=False)
    right = answered_right(results, known)
    if right is not None:
        result_console().print(f"class equal to the label: {right} of {len(known)}")
        figures |= {"right": right, "labelled": len(known)}
    if classes is not None:
        from celosia.sw.accuracy.figures import measure
        from celosia.sw.accuracy.table import accuracy_lines

        # A check ends at the first difference.
        count = len(results) * program.batch
        accuracy = measure(program, samples[: len(results)], results, classes[:count])
        for line in accuracy_lines(accuracy):
            result_console().print(line, soft_wrap=True)
        figures["accuracy"] = accuracy.figures() | {"labels": str(labels)}
    if counters and results[0].counters:
        from celosia.sw.report.tables import counter_table

        console.print(counter_table(results[0].counters, dict(COUNTERS)))
    if waveform is not None:
        more["trace"] = trace_figures(console, waveform)
    if timeline is not None:
        written = write_timeline(timeline, program, device, samples[0], memory, latency)
        console.print(written, soft_wrap=True, markup=False)
    if check:
        verdict = result_console() if figures["equal"] is False else console
        verdict.print(check_line(figures), soft_wrap=True, markup=False)
    figures |= more | {
        "program": str(model),
        "seed": seed,
        "input": str(input_) if input_ else None,
    }
    if save is not None:
        write_arrays(save, stacked_outputs(results))
    if state_out is not None:
        write_arrays(state_out, kept)
    if json is not None:
        write_json(json, figures)
    if figures["equal"] is False:
        raise typer.Exit(CHECK_FAILED)


def _program(
    model: Path,
    config: str | None,
    against: Path | None,
    device: str,
    *,
    check: bool,
    fold: bool,
    batch: int,
    host: HostChoice,
    resident: bool | None,
    exact: bool,
) -> tuple[Program, str, Path]:
    """Return the program to run, the device, and the model that it is checked against."""
    chosen: NpuConfig | None = None if config is None else resolve_config(config)
    compiled = model.suffix == PROGRAM_SUFFIX
    if not compiled:
        if against is not None:
            raise CelosiaError("--against", f"{model} is the model itself", "leave --against out")
        device, chosen = find_device(device, chosen)
    memory = None
    if not compiled and chosen is not None and device.startswith(UART):
        from celosia.sw.report.fit import usual_memory

        memory = usual_memory(chosen)
    program = program_of(
        model,
        chosen,
        fold=fold,
        batch=batch,
        host=host,
        resident=resident,
        memory=memory,
        exact=exact,
    )
    if not compiled:
        return program, device, model
    if check and against is None:
        raise CelosiaError(
            f"cannot check {model}",
            "a program does not contain the model it was compiled from",
            "name the model with --against MODEL.tflite",
        )
    return program, find_device(device, program.config)[0], against or model


def _run_jobs(
    program: Program, kind: str, memory: dict[str, Any], samples: list[Sample], jobs: int
) -> tuple[dict[str, Any], list[Result], Mapping[str, Any]]:
    """Run all samples in several processes; a simulator that they need is built already."""
    from celosia.sw.accuracy.workers import run_in_processes
    from celosia.sw.report.figures import run_figures

    started = time.monotonic()
    opener = partial(open_device_for, program, kind, **memory)
    with progress_bar("running", len(samples)) as progress:
        results = run_in_processes(program, opener, samples, jobs, progress)
    return run_figures(program, kind, results, time.monotonic() - started), results, {}


def _run(
    program: Program,
    source: Path | None,
    device: Device,
    kind: str,
    samples: list[Sample],
    state: dict[str, Any] | None,
    *,
    exact: bool,
) -> tuple[dict[str, Any], list[Result], Mapping[str, Any]]:
    """Run all samples, with a source checked; return the variables behind the last, too."""
    from celosia.sw.report.figures import check_figures, run_figures
    from celosia.sw.runtime.session import Session

    started = time.monotonic()
    with progress_bar("running", len(samples)) as progress:
        if source is None:
            results = []
            with Session(program, device) as session:
                if state is not None:
                    session.restore(state)
                for result in session.run_many(samples):
                    results.append(result)
                    progress(len(results))
                kept = session.state
            seconds = time.monotonic() - started
            return run_figures(program, kind, results, seconds), results, kept

        from celosia.sw.reference.check import check_model

        report = check_model(
            source,
            program.config,
            device,
            samples,
            program=program,
            progress=progress,
            state=state,
            exact=exact,
        )
    seconds = time.monotonic() - started
    figures = run_figures(program, kind, report.results, seconds) | check_figures(report)
    return figures, report.results, report.state
