"""What an NPU takes of an FPGA: synthesis with Yosys, and a count of the cells.

ECP5. A slice has two 4-input tables (LUT4) and two flip-flops. Not every table is an ``LUT4`` cell:

- a ``CCU2C``, two bits of a carry chain, takes both tables of a slice;
- a ``TRELLIS_DPR16X4``, 16 words of 4 bits, takes the four tables of two slices, and a third
  slice, whose two tables cannot be used then, brings it the write address and data;
- ``PFUMX`` and ``L6MUX21`` join tables to functions of 5 to 7 inputs; they are multiplexers that
  are in every slice anyway and take nothing.

So the tables that a design takes are ``LUT4 + 2 CCU2C + 6 DPR16X4``, which is what nextpnr
reports as "Total LUT4s" before it adds what it needs for routing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from celosia.boards.fpga.carry_gates import refine as take_in_gates
from celosia.boards.fpga.tools import (
    SYNTHESIS,
    YOSYS,
    FpgaToolError,
    export_rtlil,
    find_tool,
    run_fpga_tool,
)
from celosia.hw.contract.config import NpuConfig

__all__ = [
    "DEVICES",
    "FAMILIES",
    "Device",
    "Resources",
    "capacity_of_ecp5",
    "cell_counts",
    "synthesise",
]

TASK = "synthesis"
SYNTHESIS_TIME_OUT_S = 1800.0
TABLES_OF_CCU2C = 2
TABLES_OF_DPR16X4 = 6

FAMILIES = ("ecp5",)
"""FPGA families that there is a synthesis for."""


@dataclass(frozen=True)
class Device:
    """What one FPGA has.

    Attributes
    ----------
    name : str
    lut4, ff : int
        4-input tables; flip-flops.
    dp16kd : int
        Block memories of 18 Kibit.
    mult18x18d : int
        Multipliers of 18 x 18 bits.
    """

    name: str
    lut4: int
    ff: int
    dp16kd: int
    mult18x18d: int


DEVICES = (
    Device("LFE5U-25F", 24288, 24288, 56, 28),
    Device("LFE5U-45F", 43848, 43848, 108, 72),
    Device("LFE5U-85F", 83640, 83640, 208, 156),
)
"""The ECP5 devices, smallest first (Lattice FPGA-DS-02012, table 1.1; 12F is 25F)."""


def capacity_of_ecp5(name: str) -> dict[str, int]:
    """Return what an ECP5 has, by the names that the boards' reports use."""
    device = next(device for device in DEVICES if device.name == name)
    return {
        "LUT4": device.lut4,
        "FF": device.ff,
        "DP16KD": device.dp16kd,
        "MULT18X18D": device.mult18x18d,
    }


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Cells of an NPU after synthesis.

    Attributes
    ----------
    config : str
        Name of the configuration.
    family : str
    lut4 : int
        Cells ``LUT4``; see :attr:`tables` for all that is taken.
    ccu2c, pfumx, l6mux21 : int
        Carry cells; multiplexers between tables.
    ff : int
        Flip-flops.
    dp16kd : int
        Block memories.
    mult18x18d : int
    dpr16x4 : int
        Distributed memories of 16 x 4 bits.
    """

    config: str
    family: str
    lut4: int
    ccu2c: int
    pfumx: int
    l6mux21: int
    ff: int
    dp16kd: int
    mult18x18d: int
    dpr16x4: int

    @property
    def tables(self) -> int:
        """4-input tables taken: logic, carry chains and distributed memories."""
        return self.lut4 + TABLES_OF_CCU2C * self.ccu2c + TABLES_OF_DPR16X4 * self.dpr16x4

    def use_of(self, device: Device) -> dict[str, float]:
        """Return the part of a device that is taken, 1 for all of it, by resource."""
        return {
            "lut4": self.tables / device.lut4,
            "ff": self.ff / device.ff,
            "dp16kd": self.dp16kd / device.dp16kd,
            "mult18x18d": self.mult18x18d / device.mult18x18d,
        }

    def as_dict(self) -> dict[str, int | str]:
        """Return all figures, by name."""
        return {**asdict(self), "tables": self.tables}


def synthesise(
    config: NpuConfig, *, family: str = "ecp5", timeout_s: float = SYNTHESIS_TIME_OUT_S
) -> Resources:
    """Synthesise an NPU and count its cells, with as many multipliers as the largest device has.

    `base` takes about 80 s of one core.

    Parameters
    ----------
    config : NpuConfig
    family : str
        One of :data:`FAMILIES`.
    timeout_s : float
        Seconds that Yosys may take.

    Raises
    ------
    FpgaToolError
        If there is no synthesis for `family`, a tool is missing, fails, or takes too long.
    """
    if family not in FAMILIES:
        raise FpgaToolError(
            f"{TASK} for {family!r}", "there is no such family", f"choose {', '.join(FAMILIES)}"
        )
    find_tool(YOSYS, task=TASK)  # before the design is generated
    multipliers = max(device.mult18x18d for device in DEVICES)
    rtlil = export_rtlil(config, harness=False, task=TASK, multipliers=multipliers)
    cells = cell_counts(rtlil, SYNTHESIS, timeout_s=timeout_s, refine=take_in_gates)
    return resources_of(config, family, cells)


def resources_of(config: NpuConfig, family: str, cells: Mapping[str, int]) -> Resources:
    """Return the figures of a design that has these cells, by type.

    Raises
    ------
    FpgaToolError
        If a cell was left that is nothing in this FPGA.
    """
    unknown = sorted(kind for kind in cells if kind.startswith("$") and kind != "$scopeinfo")
    if unknown:
        raise FpgaToolError(TASK, f"Yosys left {unknown[0]} cells", "report it as a defect")
    return Resources(
        config=config.name,
        family=family,
        lut4=cells.get("LUT4", 0),
        ccu2c=cells.get("CCU2C", 0),
        pfumx=cells.get("PFUMX", 0),
        l6mux21=cells.get("L6MUX21", 0),
        ff=cells.get("TRELLIS_FF", 0),
        dp16kd=cells.get("DP16KD", 0),
        mult18x18d=cells.get("MULT18X18D", 0),
        dpr16x4=cells.get("TRELLIS_DPR16X4", 0),
    )


def cell_counts(
    rtlil: str,
    script: str,
    *,
    timeout_s: float,
    refine: Callable[[Path], Mapping[str, int]] | None = None,
) -> dict[str, int]:
    """Run a Yosys script on a design and count the cells of the flat design that results.

    Parameters
    ----------
    rtlil : str
        Design whose top module is ``top``.
    script : str
        Yosys commands, separated by ``;``.
    timeout_s : float
    refine : callable, optional
        Changes the netlist, and returns its cells by type, as of
        :class:`celosia.boards.fpga.flows.Flow`.

    Returns
    -------
    dict of str to int
        Cells by type; where nothing is refined, the width, in bits, is part of an internal cell's
        type (``$dff_8``).

    Raises
    ------
    FpgaToolError
    """
    yosys = find_tool(YOSYS, task=TASK)
    with tempfile.TemporaryDirectory(prefix="celosia-") as name:
        folder = Path(name)
        # By relative names: what runs as WebAssembly sees the folder that it runs in.
        (folder / "top.il").write_text(rtlil, encoding="utf-8")
        result = (
            "tee -q -o cells.json stat -width -json" if refine is None else "write_json top.json"
        )
        commands = f"read_rtlil top.il; {script}; {result}"
        try:
            run_fpga_tool(
                [yosys, "-q", "-l", "yosys.log", "-p", commands],
                task=TASK,
                timeout_s=timeout_s,
                cwd=folder,
            )
        except FpgaToolError as error:
            # An assertion inside Yosys ends it with nothing but a line in its log.
            reason = _logged_error(folder / "yosys.log")
            if reason and reason not in error.cause:
                raise FpgaToolError(error.what, f"{error.cause}\n{reason}", error.remedy) from None
            raise
        if refine is not None:
            return dict(refine(folder / "top.json"))
        content: dict[str, Any] = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    counts: dict[str, int] = content["design"]["num_cells_by_type"]
    return dict(counts)


def _logged_error(log: Path) -> str:
    """Return the line of a Yosys log that says why it ended; empty if there is none."""
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("ERROR")), "")
