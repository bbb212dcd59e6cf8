"""``celosia devices`` and ``celosia selftest``: which boards there are, and whether they work."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from celosia.hw.contract.named import resolve_config
from celosia.hw.contract.uart import Identity
from celosia.quantities import KIB, MHZ
from celosia.sw.cli.common import (
    CHECK_FAILED,
    JsonOption,
    error_console,
    help_text,
    output_console,
    result_console,
)
from celosia.sw.cli.completing import complete_config, complete_device
from celosia.sw.report.files import require_writable, write_json
from rich.table import Table
from rich.text import Text

__all__ = ["register"]

DEVICES_HELP = """
List the devices that programs can run on: the emulator, the simulator, and the boards at serial
ports.

Every serial port is asked whether a Celosia board is there, and so are the terminals of the boards
that 'celosia board-sim' simulates just now; PORT names more ports to ask.

Examples:

  celosia devices

  celosia devices /dev/pts/3
"""
SELFTEST_HELP = """
Test a device step by step: the link, registers, system memory, DMA, the array, and the model that
'celosia demo' runs, every tensor of it.

What was in the device's memory is lost. Ends at the first step that fails, with exit code 1.

Examples:

  celosia selftest --device uart:auto

  celosia selftest --device sim --config tiny
"""


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("devices", help=help_text(DEVICES_HELP))(devices_command)
    app.command("selftest", help=help_text(SELFTEST_HELP))(selftest_command)


def devices_command(
    ports: Annotated[
        list[str] | None, typer.Argument(metavar="[PORT]...", help="More ports to ask.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """List devices."""
    from celosia.sim.board.terminals import simulated_terminals
    from celosia.sim.rtl.netlist import missing_netlist_tools
    from celosia.sw.driver.uart.find import probe_all, system_ports
    from celosia.toolchain import missing_tools

    require_writable(json)
    with error_console().status("asking at serial ports"):
        asked = dict(system_ports())
        for terminal in simulated_terminals():
            asked[terminal.path] = f"celosia board-sim {terminal.board}, process {terminal.pid}"
        for path in ports or ():
            asked.setdefault(path, "")
        found = probe_all(list(asked.items()))
    table = Table("device", "what it is", "clock", "memory", "build")
    table.add_row("emu", "bit-exact emulator, any configuration", "none", "16 MiB, or as asked", "")
    simulator = missing_tools() or "the gateware under Verilator, any configuration"
    table.add_row("sim", simulator, "cycle-exact", "16 MiB, or as asked", "")
    netlist = missing_netlist_tools() or "the gateware after synthesis, for nano"
    table.add_row("netlist", netlist, "cycle-exact", "16 MiB, or as asked", "")
    for port in found:
        name = f"uart:{port.path}"
        if port.board is None:
            text = f"{port.problem} ({port.description})" if port.description else port.problem
            table.add_row(name, text, "", "", "")
        else:
            table.add_row(name, *_board_cells(port.board, port.config))
    result_console().print(table)
    if json is not None:
        boards: list[dict[str, Any]] = [
            {
                "device": f"uart:{port.path}",
                "board": port.board.board,
                "config": port.config,
                "clock_hz": port.board.clock_hz,
                "memory_bytes": port.board.memory_bytes,
                "build": port.board.build,
                "revision": port.board.revision,
                "dirty": port.board.dirty,
                "simulated": port.board.simulated,
            }
            for port in found
            if port.board is not None
        ]
        write_json(json, {"boards": boards})


def _board_cells(board: Identity, config: str) -> list[str]:
    what = f"{board.board}, configuration {config}" + ", simulated" * board.simulated
    build = f"{board.build:08x}"
    if board.revision:
        build += f", git {board.revision}" + ", with changes" * board.dirty
    return [what, f"{board.clock_hz / MHZ:g} MHz", f"{board.memory_bytes // KIB} KiB", build]


def selftest_command(
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="uart:PORT|uart:auto|sim|emu",
            autocompletion=complete_device,
            help="What to test.",
        ),
    ] = "uart:auto",
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME|FILE.json",
            autocompletion=complete_config,
            help="Configuration. Default: what a board says it is, else base.",
        ),
    ] = None,
    memory: Annotated[
        int,
        typer.Option("--memory", metavar="KIB", min=2, help="How much of memory to test."),
    ] = 32,
    json: JsonOption = None,
) -> None:
    """Test a device."""
    from celosia.sw.driver.opening import open_device
    from celosia.sw.report.selftest import self_test

    require_writable(json)
    chosen = None if config is None else resolve_config(config)
    results = []
    with open_device(device, chosen) as opened:
        with error_console().status("testing") as status:
            for result in self_test(opened, march_bytes=memory * KIB):
                results.append(result)
                console = output_console() if result.passed else result_console()
                mark = ("ok", "green") if result.passed else ("FAILED", "red")
                console.print(Text.assemble(f"{result.name:10} ", mark, "  "), end="")
                console.print(result.detail, markup=False, soft_wrap=True)
                status.update(f"testing: {result.name} done")
    if json is not None:
        steps = [{"name": r.name, "passed": r.passed, "detail": r.detail} for r in results]
        write_json(json, {"device": device, "steps": steps})
    if not all(result.passed for result in results):
        raise typer.Exit(CHECK_FAILED)
