"""``celosia board-sim``: a board that exists as RTL only, at a pseudo-terminal."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from celosia.errors import CelosiaError
from celosia.hw.contract.named import resolve_config
from celosia.install import install_advice
from celosia.sw.cli.common import error_console, help_text, result_console
from celosia.sw.cli.completing import complete_board, complete_config

__all__ = ["register", "serve_board"]

HELP = """
Simulate a whole board and offer its serial line as a pseudo-terminal.

The RTL of everything between the pins runs under Verilator: UART, bridge, NPU, memory controller
(with a model of the board's SDRAM chip behind it). Characters go over the line bit by bit, at the
rate that the other program sets on the terminal. Prints the terminal's path and serves until
interrupted (Ctrl-C); what talks to the real board talks to it as well:

  celosia board-sim ulx3s

  celosia run kws_int8.tflite --device uart:/dev/pts/3 --check

The options below make the line a bad one: each is the chance, for each character in either
direction, that this happens to it.

  celosia board-sim ulx3s --flip 0.001 --drop 0.001
"""
WAIT_S = 0.2


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("board-sim", help=help_text(HELP))(board_sim_command)


def board_sim_command(
    board: Annotated[
        str,
        typer.Argument(
            metavar="BOARD",
            autocompletion=complete_board,
            help="See 'celosia boards'.",
        ),
    ],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME|FILE.json",
            autocompletion=complete_config,
            help="Configuration. Default: the board's.",
        ),
    ] = None,
    flip: Annotated[
        float, typer.Option("--flip", metavar="P", min=0, max=1, help="A bit is inverted.")
    ] = 0.0,
    drop: Annotated[
        float, typer.Option("--drop", metavar="P", min=0, max=1, help="It is lost.")
    ] = 0.0,
    duplicate: Annotated[
        float, typer.Option("--duplicate", metavar="P", min=0, max=1, help="It comes twice.")
    ] = 0.0,
    truncate: Annotated[
        float,
        typer.Option("--truncate", metavar="P", min=0, max=1, help="The frame ends before it."),
    ] = 0.0,
    stall: Annotated[
        float,
        typer.Option("--stall", metavar="P", min=0, max=1, help="Nothing comes for a while."),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Of these.")] = 0,
) -> None:
    """Serve a simulated board."""
    try:
        from celosia.sim.board import line_faults as faults
        from celosia.sim.board.terminals import recorded

        rates = faults.FaultRates(
            flip=flip, drop=drop, duplicate=duplicate, truncate=truncate, stall=stall
        )
        served = serve_board(board, config, rates, seed)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "celosia":
            raise
        raise CelosiaError(
            "board simulator", f"{error.name} is not installed", install_advice("sim")
        ) from None
    out = result_console()
    with served, recorded(served.path, board):
        out.print(f"simulated {board}: {served.path}")
        out.print("end with Ctrl-C")
        try:
            while served.problem is None:
                time.sleep(WAIT_S)
        except KeyboardInterrupt:
            out.print("ended")
            return
    raise served.problem


def serve_board(name: str, config: str | None, rates: Any = None, seed: int = 0) -> Any:
    """Return a board's simulation at a terminal (:class:`celosia.sim.board.uart_serve.ServedRtl`).

    Parameters
    ----------
    name : str
        Of the board.
    config : str, optional
        Preset or file; by default the board's.
    rates : celosia.sim.board.line_faults.FaultRates, optional
        Of the line.
    seed : int
        Of the faults.

    Raises
    ------
    CelosiaError
        If there is no such board or configuration, or the simulator cannot be built.
    """
    from celosia.boards.registry import find_board
    from celosia.sim.board.simulated import simulated_board
    from celosia.sim.board.uart_serve import ServedRtl

    board = find_board(name)
    console = error_console()
    port = simulated_board(
        board,
        resolve_config(config or board.config),
        console=console if console.is_terminal else None,
    )
    return ServedRtl(port, faults=rates, seed=seed)
