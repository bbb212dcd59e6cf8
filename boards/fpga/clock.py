"""How fast an NPU runs: place and route on its own, on an ECP5, and the paths that limit it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celosia.boards.fpga.carry_ends import free_carry_ends
from celosia.boards.fpga.carry_gates import refine
from celosia.boards.fpga.floorplan import constrain
from celosia.boards.fpga.resources import capacity_of_ecp5
from celosia.boards.fpga.tools import (
    NEXTPNR_ECP5,
    PLACE_AND_ROUTE,
    SYNTHESIS,
    YOSYS,
    FpgaToolError,
    export_rtlil,
    find_tool,
    run_fpga_tool,
)
from celosia.hw.contract.config import NpuConfig

__all__ = [
    "DEVICE_FLAGS",
    "ClockReport",
    "TimingPath",
    "measure_clock",
    "measure_design",
    "read_report",
]

TASK = "place and route"
SYNTHESIS_TIME_OUT_S = 1800.0
ROUTE_TIME_OUT_S = 3600.0
PACKAGE = "CABGA381"

DEVICE_FLAGS = {"LFE5U-25F": "--25k", "LFE5U-45F": "--45k", "LFE5U-85F": "--85k"}
"""Devices, and how nextpnr calls them."""


@dataclass(frozen=True)
class TimingPath:
    """A path between two registers.

    Attributes
    ----------
    start, end : str
        Cells and ports where it begins and ends.
    logic_ns, routing_ns : float
        Delay in cells, setup included; delay in wires.
    nets : tuple of str
        The wires it goes through.
    """

    start: str
    end: str
    logic_ns: float
    routing_ns: float
    nets: tuple[str, ...]

    @property
    def delay_ns(self) -> float:
        """All of its delay."""
        return self.logic_ns + self.routing_ns


@dataclass(frozen=True)
class ClockReport:
    """Result of a place and route.

    Attributes
    ----------
    config, device : str
    speed : int
        Speed grade; 6 is the slowest.
    seed : int
        Of the placer.
    fmax_mhz : float
        Highest clock at which all paths between registers are in time, worst corner.
    utilisation : dict of str to int
        Cells used, by type, the frame included.
    critical : TimingPath
        The slowest path.
    """

    config: str
    device: str
    speed: int
    seed: int
    fmax_mhz: float
    utilisation: dict[str, int]
    critical: TimingPath


def measure_clock(
    config: NpuConfig,
    *,
    device: str = "LFE5U-85F",
    speed: int = 6,
    seed: int = 1,
    target_mhz: float = 80.0,
    timeout_s: float = ROUTE_TIME_OUT_S,
) -> ClockReport:
    """Place and route an NPU between shift registers instead of pins, and time it.

    `base` takes about 80 s for synthesis and several minutes for place and route, of one core,
    and 1.5 GB. Results vary by some per cent with the seed.

    Parameters and errors are those of :func:`measure_design`.
    """
    _tools(device)  # before the design is generated
    multipliers = capacity_of_ecp5(device)["MULT18X18D"]
    rtlil = export_rtlil(config, harness=True, task=TASK, multipliers=multipliers)
    return measure_design(
        rtlil,
        name=config.name,
        device=device,
        speed=speed,
        seed=seed,
        target_mhz=target_mhz,
        timeout_s=timeout_s,
    )


def measure_design(
    rtlil: str,
    *,
    name: str,
    device: str = "LFE5U-85F",
    speed: int = 6,
    seed: int = 1,
    target_mhz: float = 80.0,
    timeout_s: float = ROUTE_TIME_OUT_S,
    synthesis: str = SYNTHESIS,
) -> ClockReport:
    """Place and route a design whose only pins are those of a timing harness, and time it.

    Parameters
    ----------
    rtlil : str
        A :class:`celosia.boards.fpga.harness.TimingHarness` called ``top``.
    name : str
        What the report calls it.
    device : str
        One of :data:`DEVICE_FLAGS`.
    speed : int
        Speed grade: 6, 7 or 8.
    seed : int
    target_mhz : float
        What the placer tries for; it does less than it could for paths that are in time.
    timeout_s : float
        Seconds that nextpnr may take.
    synthesis : str
        Yosys commands from RTLIL to cells.

    Raises
    ------
    FpgaToolError
        If a tool is missing, fails or takes too long, or the device is too small.
    """
    yosys, nextpnr = _tools(device)
    with tempfile.TemporaryDirectory(prefix="celosia-") as scratch:
        folder = Path(scratch)
        (folder / "top.il").write_text(rtlil, encoding="utf-8")
        run_fpga_tool(
            [yosys, "-q", "-p", f"read_rtlil top.il; {synthesis}; write_json top.json"],
            task=TASK,
            timeout_s=SYNTHESIS_TIME_OUT_S,
            cwd=folder,
        )
        refine(folder / "top.json")
        free_carry_ends(folder / "top.json")
        constrain(folder / "top.json", device)
        run_fpga_tool(
            [
                nextpnr,
                "--quiet",
                DEVICE_FLAGS[device],
                *("--package", PACKAGE, "--speed", str(speed), "--seed", str(seed)),
                *PLACE_AND_ROUTE,
                *("--freq", f"{target_mhz:g}", "--timing-allow-fail"),
                *("--json", "top.json", "--lpf-allow-unconstrained", "--report", "report.json"),
            ],
            task=TASK,
            timeout_s=timeout_s,
            cwd=folder,
        )
        content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return read_report(content, config=name, device=device, speed=speed, seed=seed)


def _tools(device: str) -> tuple[str, str]:
    """Return the paths of Yosys and nextpnr, and refuse a device that there is not."""
    if device not in DEVICE_FLAGS:
        raise FpgaToolError(TASK, f"no device {device!r}", f"choose {', '.join(DEVICE_FLAGS)}")
    return find_tool(YOSYS, task=TASK), find_tool(NEXTPNR_ECP5, task=TASK)


def read_report(
    content: dict[str, Any], *, config: str, device: str, speed: int, seed: int
) -> ClockReport:
    """Return what nextpnr's JSON report says of the clock.

    Raises
    ------
    FpgaToolError
        If there is no path from register to register in it.
    """
    paths = [
        _path(entry["path"])
        for entry in content.get("critical_paths", ())
        # Paths from and to pins are named <async>.
        if "<async>" not in (entry["from"], entry["to"]) and entry["path"]
    ]
    fmax = content.get("fmax", {})
    if not paths or not fmax:
        raise FpgaToolError(TASK, "no path between registers was found", "check the design")
    return ClockReport(
        config=config,
        device=device,
        speed=speed,
        seed=seed,
        fmax_mhz=min(float(clock["achieved"]) for clock in fmax.values()),
        utilisation={
            cell: int(entry["used"])
            for cell, entry in content.get("utilization", {}).items()
            if entry["used"]
        },
        critical=max(paths, key=lambda path: path.delay_ns),
    )


def _path(steps: list[dict[str, Any]]) -> TimingPath:
    def place(port: dict[str, str]) -> str:
        return f"{port['cell']}.{port['port']}"

    routing = [step for step in steps if step["type"] == "routing"]
    return TimingPath(
        start=place(steps[0]["from"]),
        end=place(steps[-1]["to"]),
        logic_ns=sum(float(step["delay"]) for step in steps if step["type"] != "routing"),
        routing_ns=sum(float(step["delay"]) for step in routing),
        nets=tuple(str(step["net"]) for step in routing),
    )
