"""``celosia bench``: cycles of models on the RTL, layer by layer, and what they went on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from celosia.errors import CelosiaError, printable
from celosia.examples import MLPERF_TINY
from celosia.hw.contract.config import ConfigError, NpuConfig
from celosia.hw.contract.named import resolve_config
from celosia.sw.cli.common import (
    CHECK_FAILED,
    BatchOption,
    HostChoice,
    HostOption,
    JsonOption,
    RecordOption,
    error_console,
    help_text,
    result_console,
)
from celosia.sw.cli.completing import complete_config
from celosia.sw.energy.measure import measure_energy, require_measurable
from celosia.sw.energy.model import Energy
from celosia.sw.energy.tables import energy_table
from celosia.sw.report.bench.baselines import sources
from celosia.sw.report.bench.bench import Bench, Conditions, Measurement, find_models
from celosia.sw.report.bench.record import CycleRecord, preset_name, read_record, write_record
from celosia.sw.report.bench.tables import (
    SweepRow,
    fit_columns,
    fold_table,
    layer_table,
    main_table,
    operator_table,
    reason_table,
    resident_table,
    sweep_table,
)
from celosia.sw.report.files import require_writable, write_json
from celosia.sw.report.samples import random_samples
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["register"]

HELP = """
Measure models on the RTL: cycles, what they went on, and how that compares.

Every model is compiled for every configuration and run once, cold: weights come over the bus, from
a memory that answers 8 cycles after a request and then gives a word a cycle. Cycles are those from
the doorbell to the interrupt. The outputs of every run are compared with the golden model's; if one
differs, the exit code is 1.

The tables give utilisation (MACs / (cycles x multipliers)), the compiler's prediction and its
error, what crossed the bus, and the ratio to the ideal (all multipliers always busy), to the
roofline (memory ports as wide as the bus), and how much faster it is than an Ethos-U55, U65 or U85
with as many multipliers: known of a few models, and of any where Arm's compiler Vela is installed
(pip install celosia[vela]). Every cycle belongs to one layer and to one reason; docs/performance.md
says how.

Examples:

  celosia bench

  celosia bench --model kws_int8.tflite --config base --layers

  celosia bench --resident --fold --latency 1,8,32,100 --bus 32,64 --stalls 0.2 --json b.json

  celosia bench --model ad01_int8.tflite --config base --batch 8

  celosia bench --config nano --record docs/figures/cycles.json
"""
SCHEMA = 1
"""Version of the JSON file's keys."""
DEFAULT_CONFIGS = ("base", "large")
DEFAULT = Conditions()
ENERGY_MEMORY = "dram"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("bench", help=help_text(HELP))(bench_command)


def bench_command(
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            metavar="NAME|FILE.json",
            autocompletion=complete_config,
            help="Hardware configuration; may be given several times. Default: base and large.",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            "--models",
            metavar="DIR",
            help="Folder of .tflite and .onnx models. Default: those of MLPerf Tiny"
            " (examples/mlperf_tiny).",
        ),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", metavar="MODEL", help="One model; may be given several times."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also a table of layers.")] = False,
    resident: Annotated[
        bool,
        typer.Option(
            "--resident", help="Also with weights on chip already, as many as there is room for."
        ),
    ] = False,
    fold: Annotated[
        bool,
        typer.Option("--fold", help="Also with constant channels removed from the networks."),
    ] = False,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy", help="Also microjoules of an inference, of the same random input."
        ),
    ] = False,
    batch: BatchOption = 1,
    latency: Annotated[
        str | None,
        typer.Option(
            "--latency", metavar="N,N,...", help="Also with memories of these latencies, in cycles."
        ),
    ] = None,
    bus: Annotated[
        str | None,
        typer.Option("--bus", metavar="N,N,...", help="Also with buses of these widths, in bits."),
    ] = None,
    stalls: Annotated[
        float | None,
        typer.Option(
            "--stalls",
            metavar="P",
            min=0.0,
            max=0.99,
            help="Also with a memory that refuses, and holds answers back, with this chance.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the random inputs and stalls.")
    ] = 0,
    host: HostOption = HostChoice.ALLOW,
    record: RecordOption = None,
    json: JsonOption = None,
) -> None:
    """Measure models."""
    require_writable(json, record)
    known = CycleRecord() if record is None else read_record(record)
    configs = [resolve_config(name) for name in config or DEFAULT_CONFIGS]
    if record is not None:
        for chosen in configs:
            preset_name(chosen)
    latencies = _numbers("--latency", latency, low=1)
    widths = _numbers("--bus", bus, low=1)
    paths = list(model or [])
    if models is not None or not paths:
        paths += find_models(models or MLPERF_TINY)
    for path in paths:
        if not path.is_file():
            raise CelosiaError(f"model {path}", "there is no such file", "check the path")
    errors = error_console()
    bench = Bench(seed=seed, console=errors if errors.is_terminal else None, host=host.value)
    if batch > 1 and (resident or energy or record is not None):
        option = "--resident" if resident else "--energy" if energy else "--record"
        raise CelosiaError(f"--batch with {option}", "that is of single inferences", "give one")
    session = _Session(bench, configs, paths, errors, batch)
    main = session.measure_all()
    session.show(main_table(main))
    session.show(reason_table(main))
    session.show(operator_table(main))
    for run in main if layers else ():
        session.show(layer_table(run))
    if energy:
        session.show(energy_table(session.energies(seed)))
    if resident:
        session.show(resident_table(session.residents()))
    if fold:
        session.show(fold_table(session.folded()))
    session.sweep(
        "cycles by latency of system memory",
        [(f"{n} cycles", {"latency_cycles": n}, None) for n in latencies],
    )
    session.sweep("cycles by width of the bus", [(f"{bits} bits", {}, bits) for bits in widths])
    if stalls is not None:
        session.sweep(
            "cycles with random stalls of system memory",
            [
                (f"chance {p:g}", {"stall_probability": p}, None)
                for p in dict.fromkeys([0.0, stalls])
            ],
        )
    console = result_console()
    different = [run for run in session.runs if not run.equal]
    verdict = ("the outputs of each equal to the golden model's", "")
    if different:
        verdict = (f"{len(different)} NOT EQUAL to the golden model", "bold red")
    console.print(Text.assemble(f"{len(session.runs)} runs, ", verdict))
    if json is not None:
        write_json(json, session.figures(seed))
    if record is not None and not different:
        known.add(session.runs)
        known.add_impossible(session.impossible)
        write_record(record, known)
    if different:
        raise typer.Exit(CHECK_FAILED)


Variation = tuple[str, dict[str, Any], "int | None"]
"""Heading, changes of the conditions, bits of the bus if they change."""


class _Session:
    """The runs of one command; equal ones are made once."""

    def __init__(
        self,
        bench: Bench,
        configs: list[NpuConfig],
        paths: list[Path],
        console: Console,
        batch: int,
    ) -> None:
        self._bench = bench
        self._configs = configs
        self._paths = paths
        self._console = console
        self._batch = batch
        self._known: dict[tuple[Path, NpuConfig, Conditions, bool, bool], Measurement] = {}
        self.impossible: list[dict[str, Any]] = []
        self._energies: list[Energy] = []

    @property
    def runs(self) -> list[Measurement]:
        """All measurements, in the order in which they were made."""
        return list(self._known.values())

    def show(self, table: Table) -> None:
        """Print a table, without the columns for which there is no room."""
        console = result_console()
        left_out = fit_columns(table, console)
        console.print(table)
        if left_out:
            text = f" wider terminals and --json also have: {', '.join(left_out)}"
            console.print(text, style="dim", markup=False)
        console.print()

    def measure_all(self) -> list[Measurement]:
        """Measure every model on every configuration under the default conditions."""
        return [
            self._measure(path, config, DEFAULT) for path in self._paths for config in self._configs
        ]

    def residents(self) -> list[tuple[Measurement, Measurement | str]]:
        """Measure everything with weights on chip, as many as there is room for."""
        pairs: list[tuple[Measurement, Measurement | str]] = []
        for path in self._paths:
            for config in self._configs:
                cold = self._measure(path, config, DEFAULT)
                pairs.append((cold, self._measure(path, config, DEFAULT, resident=True)))
        return pairs

    def energies(self, seed: int) -> list[Energy]:
        """Account for an inference of every model on every configuration."""
        for config in self._configs:
            require_measurable(config, ENERGY_MEMORY)
        for path in self._paths:
            for config in self._configs:
                program = self._bench.program(path, config)
                with self._console.status(Text(printable(f"energy: {path.stem} on {config.name}"))):
                    self._energies.append(
                        measure_energy(
                            program,
                            random_samples(program, 1, seed),
                            f"random, seed {seed}",
                            memory=ENERGY_MEMORY,
                        )
                    )
        return self._energies

    def folded(self) -> list[tuple[Measurement, Measurement]]:
        """Measure everything plain and with constant channels removed."""
        return [
            (
                self._measure(path, config, DEFAULT),
                self._measure(path, config, DEFAULT, fold=True),
            )
            for path in self._paths
            for config in self._configs
        ]

    def sweep(self, title: str, variations: list[Variation]) -> None:
        """Measure everything under each variation and show a table; nothing without variations."""
        if not variations:
            return
        rows: list[SweepRow] = []
        for path in self._paths:
            for config in self._configs:
                cells: dict[str, Measurement | str] = {}
                for heading, changes, bits in variations:
                    cells[heading] = self._cell(path, config, replace(DEFAULT, **changes), bits)
                rows.append((printable(path.stem), config.name, cells))
        self.show(sweep_table(title, [heading for heading, _, _ in variations], rows))

    def _cell(
        self, path: Path, config: NpuConfig, conditions: Conditions, bits: int | None
    ) -> Measurement | str:
        chosen = config
        if bits is not None and bits != config.bus_bits:
            try:
                chosen = config.with_(bus_bits=bits, name=f"{config.name}-bus{bits}")
            except ConfigError as error:
                entry = {"config": config.name, "bus_bits": bits, "reason": error.cause}
                if entry not in self.impossible:
                    self.impossible.append(entry)
                    self._console.print(
                        f"{config.name} with {bits} bits: {error.cause}",
                        soft_wrap=True,
                        markup=False,
                    )
                return "not possible"
        return self._measure(path, chosen, conditions)

    def _measure(
        self,
        path: Path,
        config: NpuConfig,
        conditions: Conditions,
        *,
        resident: bool = False,
        fold: bool = False,
    ) -> Measurement:
        key = (path, config, conditions, resident, fold)
        if key not in self._known:
            with self._console.status(Text(printable(f"{path.stem} on {config.name}"))):
                self._known[key] = self._bench.measure(
                    path, config, conditions, resident=resident, fold=fold, batch=self._batch
                )
        return self._known[key]

    def figures(self, seed: int) -> dict[str, Any]:
        """Return everything that was measured, for ``--json``."""
        return {
            "schema": SCHEMA,
            "seed": seed,
            "sources": sources(),
            "equal": all(run.equal for run in self.runs),
            "runs": [run.figures() for run in self.runs],
            "impossible": self.impossible,
            **({"energies": [e.figures() for e in self._energies]} if self._energies else {}),
        }


def _numbers(option: str, text: str | None, *, low: int) -> list[int]:
    """Return the numbers of a list such as ``1,8,32``."""
    if text is None:
        return []
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < low:
        raise CelosiaError(
            f"{option} {text}",
            "it is not a list of whole numbers",
            f"give numbers from {low}, with commas",
        )
    return list(dict.fromkeys(values))
