"""Puts a bitstream into a board, with openFPGALoader."""

from __future__ import annotations

from pathlib import Path

from celosia.boards.board import Board
from celosia.boards.fpga.tools import FpgaToolError, find_tool, run_fpga_tool
from celosia.errors import CelosiaError

__all__ = ["LOADER", "program_board"]

LOADER = ("openFPGALoader",)
TIME_OUT_S = 600.0


def program_board(board: Board, bitstream: Path, *, flash: bool = False) -> str:
    """Load a bitstream into the FPGA, or into the flash memory that it starts from.

    Returns
    -------
    str
        What the loader printed.

    Raises
    ------
    CelosiaError
        If there is no bitstream, no loader, or it fails.
    """
    what = f"programming {board.name}"
    if not bitstream.is_file():
        raise CelosiaError(what, f"there is no {bitstream}", f"run: celosia build {board.name}")
    try:
        loader = find_tool(LOADER, task=what)
    except FpgaToolError as error:
        raise FpgaToolError(
            what,
            error.cause,
            "install it with the system's package manager, for example: apt install openfpgaloader",
        ) from None
    options = ["--write-flash"] if flash else []
    try:
        return run_fpga_tool(
            [loader, "--board", board.programmer, *options, bitstream],
            task=what,
            timeout_s=TIME_OUT_S,
        )
    except FpgaToolError as error:
        raise FpgaToolError(
            what,
            error.cause,
            "check the cable, that nothing else uses the board, and that you may use USB devices",
        ) from None
