"""The netlist after synthesis as a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celosia.hw.contract.config import NpuConfig
from celosia.sw.driver.device import BUS_TIMEOUT_CYCLES
from celosia.sw.driver.sim import SimDevice

if TYPE_CHECKING:
    from celosia.sim.rtl.rtl import MemoryModel
    from celosia.sim.rtl.verilator import Build
    from rich.console import Console

__all__ = ["NetlistDevice"]


class NetlistDevice(SimDevice):
    """What synthesis makes of the gateware, under Verilator in this process.

    Lookup tables, flip-flops, memories and multipliers of an iCE40, connected as on a board.
    Results and cycles are those of `SimDevice`; traces and profiles there are none of.

    Parameters
    ----------
    config : NpuConfig
        The machine; it is synthesised the first time (`nano`: minutes) and kept in a cache.
    memory_bytes, memory_model, console, watchdog_cycles, bus_timeout_cycles
        See `SimDevice`.

    Raises
    ------
    BuildError
        If the simulator cannot be built; names the tool that is missing.
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        memory_bytes: int,
        memory_model: MemoryModel | None = None,
        console: Console | None = None,
        watchdog_cycles: int | None = None,
        bus_timeout_cycles: int = BUS_TIMEOUT_CYCLES,
    ) -> None:
        super().__init__(
            config,
            memory_bytes=memory_bytes,
            memory_model=memory_model,
            console=console,
            watchdog_cycles=watchdog_cycles,
            bus_timeout_cycles=bus_timeout_cycles,
        )

    def _build(self, *, trace: bool, console: Console | None) -> Build:
        from celosia.sim.rtl.netlist import build_netlist

        assert not trace, "the constructor has no such option"
        return build_netlist(self.config, console=console)
