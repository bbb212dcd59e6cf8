"""A whole board under Verilator, reached over its serial pins (:mod:`.uart_rtl`)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.uart import Identity
from celosia.hw.system.sdram_timing import SdramChip
from celosia.sim.board.uart_rtl import HARNESS
from celosia.sim.rtl.verilator import Build, build_component, gateware_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["build_board"]

SOURCES = ("top.py", "memory.py", "sdram_chip.py")


def build_board(
    config: NpuConfig,
    identity: Identity,
    *,
    sdram: SdramChip | None = None,
    memory_hz: int = 0,
    console: Console | None = None,
) -> Build:
    """Return the simulator of a board, from the cache or newly built.

    Parameters
    ----------
    config : NpuConfig
        Of its NPU.
    identity : Identity
        What the board says of itself; its memory has ``identity.memory_bytes``.
    sdram : SdramChip, optional
        The chip that is its memory; without, block RAM.
    memory_hz : int
        Clock of the chip; 0 if it is that of the design.
    console
        See :func:`celosia.sim.rtl.verilator.build_npu`.

    Raises
    ------
    BuildError
        If a tool is missing, fails or takes too long.
    """

    def elaborate() -> Any:
        from celosia.hw.system.ram import BlockRam
        from celosia.sim.board.memory import SimulatedSdramMemory
        from celosia.sim.board.top import BoardTop

        memory: Any = (
            BlockRam(config, memory_bytes=identity.memory_bytes)
            if sdram is None
            else SimulatedSdramMemory(
                config,
                chip=sdram,
                clock_hz=memory_hz or identity.clock_hz,
                own_clock=bool(memory_hz),
            )
        )
        return BoardTop(config, identity=identity, memory=memory, memory_clock=bool(memory_hz))

    from celosia.sim.board.sdram_chip import STORAGE_VERILOG

    here = Path(__file__)
    texts = [here.with_name(name).read_text(encoding="utf-8") for name in SOURCES]
    key = [
        f"board {config.hash:08x} {asdict(identity)} {sdram} {memory_hz}",
        *texts,
        gateware_text(),
    ]
    return build_component(
        elaborate,
        "\0".join(key),
        harness=HARNESS,
        title=f"simulator of {identity.board}",
        more_verilog="" if sdram is None else STORAGE_VERILOG,
        console=console,
    )
