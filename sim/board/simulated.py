"""A board as it is described, simulated: what answers at its serial pins."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from celosia.boards.identity import identity_of
from celosia.hw.contract.config import NpuConfig
from celosia.sim.board.board import build_board
from celosia.sim.board.uart_rtl import UartRtl

if TYPE_CHECKING:
    from celosia.boards.board import Board
    from rich.console import Console

__all__ = ["simulated_board"]


def simulated_board(board: Board, config: NpuConfig, *, console: Console | None = None) -> UartRtl:
    """Return a board's RTL, with the clocks that it would be built for.

    Parameters
    ----------
    board : Board
    config : NpuConfig
        Of its NPU.
    console
        See :func:`celosia.sim.rtl.verilator.build_npu`.

    Raises
    ------
    BuildError
        If the simulator cannot be built.
    """
    clock_hz = board.clock_with(config)
    memory_hz = board.memory_hz(clock_hz)
    identity = replace(
        identity_of(board, config, clock_hz=clock_hz, memory_bytes=board.memory.bytes),
        simulated=True,
        # Neither changes what is simulated; the sources are a part of the build's key anyway.
        revision="",
        dirty=False,
        build=0,
    )
    build = build_board(
        config, identity, sdram=board.memory.sdram, memory_hz=memory_hz, console=console
    )
    return UartRtl(build, clock_hz=clock_hz, memory_hz=memory_hz)
