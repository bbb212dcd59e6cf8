"""The RTL simulation as a device that counts how often its nets change."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia.errors import DeviceError
from celosia.hw.contract.config import NpuConfig
from celosia.sim.rtl.activity import Activity, Structure, read_activity, read_structure
from celosia.sw.driver.sim import SimDevice

if TYPE_CHECKING:
    from celosia.sim.rtl.verilator import Build
    from rich.console import Console

__all__ = ["ActivityDevice"]


class ActivityDevice(SimDevice):
    """The gateware itself, with the changes of all its nets, and a profile of each run.

    Parameters
    ----------
    config : NpuConfig
        The machine. Its simulator is one of its own, apart from that of `SimDevice`: it is built
        the first time (minutes) and kept in the cache.
    **options
        Of `SimDevice`.

    Attributes
    ----------
    activity : Activity
        Of all runs.
    structure : Structure
        Registers and memories of the machine.

    Raises
    ------
    BuildError
        If the simulator cannot be built; names the tool that is missing.
    """

    def __init__(self, config: NpuConfig, **options: Any) -> None:
        self.activity = Activity()
        super().__init__(config, profile=True, **options)

    def _build(self, *, trace: bool, console: Console | None) -> Build:
        from celosia.sim.rtl.verilator import build_npu

        build = build_npu(self.config, activity=True, console=console)
        # A build keeps the Verilog that it was made from.
        (verilog,) = build.library.parent.glob("*.v")
        self.structure: Structure = read_structure(verilog)
        return build

    def wait(self, timeout_cycles: int) -> bool:
        try:
            with tempfile.TemporaryDirectory(prefix="celosia-") as folder:
                counted = Path(folder) / "activity.saif"
                self.rtl.count_activity(counted)
                try:
                    return super().wait(timeout_cycles)
                finally:
                    self.rtl.count_activity(None)
                    self.activity.add(read_activity(counted))
        except OSError as error:
            raise DeviceError(
                "counting toggles",
                f"the temporary file cannot be written: {error}",
                "set TMPDIR to a folder with 100 MB of space",
            ) from None
