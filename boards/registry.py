"""The boards there are."""

from __future__ import annotations

from celosia.boards.arty_a7 import ARTY_A7_100T
from celosia.boards.board import Board
from celosia.boards.icebreaker import ICEBREAKER
from celosia.boards.orangecrab import ORANGECRAB_85F
from celosia.boards.tang_primer_20k import TANG_PRIMER_20K
from celosia.boards.ulx3s import ULX3S_85F
from celosia.errors import CelosiaError

__all__ = ["BOARDS", "find_board"]

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (ULX3S_85F, ORANGECRAB_85F, ICEBREAKER, TANG_PRIMER_20K, ARTY_A7_100T)
}
"""By name."""


def find_board(name: str) -> Board:
    """Return a board; capital letters do not matter.

    Raises
    ------
    CelosiaError
        With the names there are.
    """
    board = BOARDS.get(name.lower())
    if board is None:
        raise CelosiaError(f"board {name}", "no such board", f"choose {', '.join(BOARDS)}")
    return board
