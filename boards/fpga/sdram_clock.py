"""How large and how fast the SDRAM controller is on an ECP5, on its own.

``python -m celosia.boards.fpga.sdram_clock`` prints it; ``--json FILE`` writes what docs/sdram.md
cites.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from amaranth.back import rtlil
from celosia.boards.fpga.clock import ClockReport, measure_design
from celosia.boards.fpga.harness import OpenFrame, TimingHarness
from celosia.boards.fpga.resources import TABLES_OF_CCU2C, TABLES_OF_DPR16X4, cell_counts
from celosia.hw.contract.config import PRESETS
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_timing import SDRAM_CHIPS

__all__ = ["main", "measure"]

UNUSED = "initialised"
"""A member that a design may leave open."""

SYNTHESIS = "synth_ecp5 -top top"
"""Yosys: a small design needs no more."""


def controller(bus_bits: int, clock_hz: float) -> SdramController:
    """Return the controller that is measured."""
    config = replace(PRESETS["large"], bus_bits=bus_bits)
    return SdramController(config, chip=SDRAM_CHIPS["W9825G6KH-6"], clock_hz=clock_hz)


def measure(
    bus_bits: int, *, clock_mhz: float, device: str, speed: int, seed: int
) -> tuple[dict[str, int], ClockReport]:
    """Return the cells of a controller after synthesis, and its clock after routing.

    Raises
    ------
    FpgaToolError
        If a tool is missing or fails.
    """
    clock_hz = clock_mhz * 1e6
    open_frame = OpenFrame(controller(bus_bits, clock_hz), unconnected=(UNUSED,))
    text = rtlil.convert(open_frame, name="top", emit_src=False)
    cells = cell_counts(text, SYNTHESIS, timeout_s=600)
    harness = TimingHarness(controller(bus_bits, clock_hz), unconnected=(UNUSED,))
    report = measure_design(
        rtlil.convert(harness, name="top", emit_src=False),
        name=f"sdram{bus_bits}",
        device=device,
        speed=speed,
        seed=seed,
        target_mhz=clock_mhz,
        synthesis=SYNTHESIS,
        timeout_s=600,
    )
    return cells, report


def main() -> None:
    """Print a line for each width of the bus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bus", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--clock", type=float, default=100.0, help="MHz to try for")
    parser.add_argument("--device", default="LFE5U-25F")
    parser.add_argument("--speed", type=int, default=6)
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--path", action="store_true", help="print the slowest path")
    options = parser.parse_args()
    print("bus_bits LUT4 CCU2C DPR16X4 tables flip-flops MHz")
    entries = []
    for bus_bits in options.bus:
        clocks: dict[int, float] = {}
        for seed in options.seed:
            cells, report = measure(
                bus_bits,
                clock_mhz=options.clock,
                device=options.device,
                speed=options.speed,
                seed=seed,
            )
            clocks[seed] = report.fmax_mhz
            lut4, carry, memory = (
                cells.get(kind, 0) for kind in ("LUT4", "CCU2C", "TRELLIS_DPR16X4")
            )
            tables = lut4 + TABLES_OF_CCU2C * carry + TABLES_OF_DPR16X4 * memory
            flip_flops = cells.get("TRELLIS_FF", 0)
            print(bus_bits, lut4, carry, memory, tables, flip_flops, f"{report.fmax_mhz:.1f}")
            if options.path:
                path = report.critical
                nets = ", ".join(path.nets)
                print(f"  {path.delay_ns:.2f} ns, {path.start} -> {path.end}: {nets}")
        sizes = {"lut4": lut4, "ccu2c": carry, "dpr16x4": memory, "tables": tables}
        sizes |= {"ff": flip_flops}
        entries.append({"bus_bits": bus_bits, **sizes, "fmax_mhz": clocks})
    if options.json:
        content = {"device": options.device, "speed": options.speed, "sizes": entries}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
