"""``celosia resources`` and ``clock``: what an NPU takes of an FPGA, and how fast it runs there."""

from __future__ import annotations

from typing import Annotated

import typer
from celosia.hw.contract.named import resolve_config
from celosia.sw.cli.common import (
    ConfigOption,
    JsonOption,
    RecordOption,
    help_text,
    result_console,
)
from celosia.sw.report.files import require_writable, write_json
from celosia.sw.report.records import put_entry
from rich.table import Table
from rich.text import Text

__all__ = ["register"]

RESOURCES_HELP = """
Synthesise the NPU for an FPGA and count what it takes: tables, flip-flops, memories, multipliers.

Nothing but the NPU is counted: no bus, no memory controller. It takes one to two minutes and needs
Yosys: pip install "celosia\\[boards]".

Examples:

  celosia resources

  celosia resources --config nano --json nano.json
"""
CLOCK_HELP = """
Place and route the NPU on an ECP5 and say how fast it can be clocked.

The ports end in shift registers, so that no pin is part of a path. It takes 5 to 15 minutes for
'base', and needs Yosys and nextpnr: pip install "celosia\\[boards]". The result varies by some
per cent with the seed.

Examples:

  celosia clock

  celosia clock --config nano --device LFE5U-25F --seed 3
"""


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("resources", help=help_text(RESOURCES_HELP))(resources_command)
    app.command("clock", help=help_text(CLOCK_HELP))(clock_command)


def resources_command(
    config: ConfigOption = "base",
    family: Annotated[
        str, typer.Option("--family", metavar="NAME", help="FPGA family: ecp5.")
    ] = "ecp5",
    record: RecordOption = None,
    json: JsonOption = None,
) -> None:
    """Count the cells of an NPU."""
    require_writable(json, record)
    chosen = resolve_config(config)
    # The FPGA tools are an extra; nothing else of the command line needs them.
    from celosia.boards.fpga import resources

    found = resources.synthesise(chosen, family=family)
    console = result_console()
    console.print(Text.assemble((chosen.name, "bold"), f" on {family}, after synthesis"))
    table = Table(header_style="bold", box=None)
    table.add_column("resource")
    table.add_column("used", justify="right")
    for device in resources.DEVICES:
        table.add_column(device.name, justify="right")
    shares = [found.use_of(device) for device in resources.DEVICES]
    for label, key, used in (
        ("4-input tables", "lut4", found.tables),
        ("flip-flops", "ff", found.ff),
        ("block memories DP16KD", "dp16kd", found.dp16kd),
        ("multipliers MULT18X18D", "mult18x18d", found.mult18x18d),
    ):
        table.add_row(label, f"{used:,}", *(_share(share[key]) for share in shares))
    console.print(table)
    console.print(
        f"tables: {found.lut4:,} LUT4 + 2 x {found.ccu2c:,} CCU2C + 6 x {found.dpr16x4:,} DPR16X4"
        f" ({found.pfumx:,} PFUMX and {found.l6mux21:,} L6MUX21 are part of the slices)",
        soft_wrap=True,
    )
    if json is not None:
        write_json(json, found.as_dict())
    if record is not None:
        put_entry(record, f"resources {chosen.name}", found.as_dict())


def clock_command(
    config: ConfigOption = "base",
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="LFE5U-25F, LFE5U-45F or LFE5U-85F.")
    ] = "LFE5U-85F",
    speed: Annotated[int, typer.Option("--speed", min=6, max=8, help="Speed grade.")] = 6,
    seed: Annotated[int, typer.Option("--seed", min=1, help="Of the placer.")] = 1,
    record: RecordOption = None,
    json: JsonOption = None,
) -> None:
    """Place and route an NPU and time it."""
    require_writable(json, record)
    chosen = resolve_config(config)
    from celosia.boards.fpga import clock

    found = clock.measure_clock(chosen, device=device, speed=speed, seed=seed)
    path = found.critical
    console = result_console()
    console.print(
        Text.assemble(
            (chosen.name, "bold"),
            f" on {device}, speed grade {speed}, seed {seed}: ",
            (f"{found.fmax_mhz:.1f} MHz", "bold"),
        ),
        soft_wrap=True,
    )
    console.print(
        f"slowest path: {path.delay_ns:.2f} ns = {path.logic_ns:.2f} in cells"
        f" + {path.routing_ns:.2f} in wires",
        soft_wrap=True,
    )
    for place in (path.start, *path.nets, path.end):
        console.print(f"  {place}", soft_wrap=True, markup=False)
    figures = {
        "config": found.config,
        "device": found.device,
        "speed": found.speed,
        "seed": found.seed,
        "fmax_mhz": found.fmax_mhz,
        "utilisation": found.utilisation,
        "critical_path": {
            "start": path.start,
            "end": path.end,
            "logic_ns": path.logic_ns,
            "routing_ns": path.routing_ns,
            "nets": list(path.nets),
        },
    }
    if json is not None:
        write_json(json, figures)
    if record is not None:
        put_entry(record, f"clock {found.config}", figures)


def _share(part: float) -> Text:
    """Say which part of a device is taken, or that it is too small."""
    text = f"{100 * part:.0f}%"
    return Text(text, style="red" if part > 1 else "")
