"""A whole board under Verilator, reached over its serial pins (:mod:`celosia.sim.uart_rtl`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia.hw.config import NpuConfig
from celosia.hw.uart.protocol import Identity
from celosia.sim.uart_rtl import HARNESS
from celosia.sim.verilator import Build, build_component, gateware_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["build_board"]


def build_board(
    config: NpuConfig,
    identity: Identity,
    *,
    memory: Callable[[], Any] | None = None,
    console: Console | None = None,
) -> Build:
    """Return the simulator of a board, from the cache or newly built.

    Parameters
    ----------
    config : NpuConfig
        Of its NPU.
    identity : Identity
        What the board says of itself; its memory has ``identity.memory_bytes``.
    memory : callable, optional
        Makes the memory, a component with a port ``bus``; by default block RAM that answers
        after three cycles.
    console
        See :func:`celosia.sim.verilator.build_npu`.

    Raises
    ------
    BuildError
        If a tool is missing, fails or takes too long.
    """

    def elaborate() -> Any:
        from celosia.hw.system.ram import BlockRam
        from celosia.sim.board_top import BoardTop

        chosen = memory() if memory else BlockRam(config, memory_bytes=identity.memory_bytes)
        return BoardTop(config, identity=identity, memory=chosen)

    kind = memory.__qualname__ if memory else "block RAM"
    here = Path(__file__)
    key = "\0".join(
        [
            f"board {config.hash:08x} {asdict(identity)} {kind}",
            here.with_name("board_top.py").read_text(encoding="utf-8"),
            gateware_text(),
        ]
    )
    title = f"simulator of {identity.board}"
    return build_component(elaborate, key, harness=HARNESS, title=title, console=console)
