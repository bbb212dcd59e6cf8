"""``celosia energy``: microjoules of an inference, as a range, by part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from celosia.hw.contract.named import resolve_config
from celosia.sw.cli.common import (
    FoldOption,
    HostChoice,
    HostOption,
    JsonOption,
    RecordOption,
    error_console,
    help_text,
    output_console,
    result_console,
)
from celosia.sw.cli.options import (
    LATENCY_CYCLES,
    ArrayOption,
    ProgramArgument,
    ProgramConfigOption,
    QuantizeOption,
    RandomOption,
)
from celosia.sw.cli.programs import PROGRAM_SUFFIX, program_of

__all__ = ["register"]

HELP = """
Say what energy an inference takes: microjoules as a range, part by part.

MODEL is a .tflite or .onnx file, or a program that 'celosia compile' wrote. It is run on the RTL
with a simulator that counts how often every net changes; that simulator is built the first time
(minutes) and kept in a cache. What was counted, accesses to memories and products among others, is
multiplied by energies that others have published of a 40 or 45 nm process, the least and the
greatest of each. The result is an estimate of a chip that nobody has made: it says what the energy
goes on, and which of two ways takes more. docs/energy.md says how, and what is not in it.

The energy depends on the input, so give a real one: random bytes, which are used without --input,
change more bits. Of several inputs (--limit, --random) the result is the mean.

Examples:

  celosia energy kws_int8.tflite --input kws_int8.npy

  celosia energy vww_96_int8.tflite --random 1 --config large --layers

  celosia energy ad01_int8.tflite --input windows.npy --quantize --memory sram --json ad.json
"""
DEFAULT_CLOCK_MHZ = 100.0


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("energy", help=help_text(HELP))(energy_command)


def energy_command(
    model: ProgramArgument,
    input_: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="X.npy|X.npz", help="Inputs, one sample or many."),
    ] = None,
    array: ArrayOption = None,
    quantize: QuantizeOption = False,
    random: RandomOption = 0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", min=0, help="Seed of random inputs.")
    ] = 0,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, help="Take the first N samples of --input."),
    ] = 1,
    config: ProgramConfigOption = None,
    fold: FoldOption = False,
    host: HostOption = HostChoice.ALLOW,
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="dram|sram", help="Kind of system memory."),
    ] = "dram",
    latency: Annotated[
        int,
        typer.Option("--latency", metavar="CYCLES", min=1, help="Of the simulated memory."),
    ] = LATENCY_CYCLES,
    clock: Annotated[
        float,
        typer.Option("--clock", metavar="MHZ", min=0.001, help="For GOPS and milliwatts."),
    ] = DEFAULT_CLOCK_MHZ,
    layers: Annotated[bool, typer.Option("--layers", help="Also a table of layers.")] = False,
    record: RecordOption = None,
    json: JsonOption = None,
) -> None:
    """Account for an inference."""
    from celosia.sw.cli.samples import check_input_options
    from celosia.sw.energy.measure import measure_energy, require_measurable
    from celosia.sw.energy.record import put_energy
    from celosia.sw.energy.tables import (
        account_lines,
        condition_lines,
        layer_energy_lines,
        summary_lines,
    )
    from celosia.sw.report.files import require_writable, write_json
    from celosia.sw.report.samples import load_samples, random_samples

    require_writable(json, record)
    chosen = None if config is None else resolve_config(config)
    if model.suffix != PROGRAM_SUFFIX:
        chosen = chosen or resolve_config("base")
        require_measurable(chosen, memory)  # before it is compiled
    program = program_of(model, chosen, fold=fold, host=host)
    check_input_options(input_, array=array, quantize=quantize)
    about, samples = [], []
    if input_ is not None:
        samples += load_samples(
            program.inputs, input_, array=array, quantize=quantize, batch=program.batch
        )[:limit]
        about.append(input_.name)
    if random or not samples:
        samples += random_samples(program, random or 1, seed)
        about.append(f"random, seed {seed}")
    errors = error_console()
    with errors.status("running on the RTL"):
        energy = measure_energy(
            program,
            samples,
            " and ".join(about),
            memory=memory,
            latency_cycles=latency,
            console=errors if errors.is_terminal else None,
        )
    result_console().print(
        f"{energy.model} on {energy.config}: {energy.chip} uJ on the chip, {energy.total} uJ with"
        f" {memory.upper()}",
        soft_wrap=True,
    )
    console = output_console()
    tables = account_lines(energy, console.width)
    if layers:
        tables += ["", *layer_energy_lines(energy, console.width)]
    for line in [*tables, "", *summary_lines(energy, clock), *condition_lines(energy)]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if json is not None:
        write_json(json, energy.figures())
    if record is not None:
        put_energy(record, energy)
