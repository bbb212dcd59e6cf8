"""Figures of boards, FPGAs and SDRAM: what fits, and what was recorded of builds and syntheses.

Boards and gateware are an extra; they are imported where they are needed.
"""

from __future__ import annotations

from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS, preset
from celosia.quantities import KIB
from celosia.sw.docgen.board_memory import board_cycles_table, memory_choice_table
from celosia.sw.docgen.marks import FigureError
from celosia.sw.docgen.sources import BENCHMARK, Sources
from celosia.sw.docgen.text import markdown_table, table_text
from celosia.sw.report.records import read_entries

__all__ = ["fpga_figure", "fpga_table"]

RETURN_NS = 3.0
"""Assumed of the clock's way out, and of the data's way back."""
CAPTURE = ((25, 180, 2), (50, 270, 3), (80, 180, 3), (100, 180, 3), (133, 90, 4))
"""Clock in MHz, its phase at the chip in degrees, cycles until capture."""
CHIP = "IS42S16160G-7"
PURPOSES = {
    "nano": "iCE40UP5K",
    "tiny": "small ECP5, GW2A-18",
    "base": "ECP5-85F; the default",
    "wide": "ECP5-85F, most multipliers of tables",
    "large": "larger parts",
}


def fpga_table(sources: Sources, name: str) -> str:
    """Return a table: ``board ulx3s``, ``fit ulx3s``, ``presets``, ``resources``, ``sdram size``...

    Raises
    ------
    FigureError
        If there is no such table, or nothing was recorded for it.
    NotHereError
        If it needs the benchmark's models, which are not there.
    """
    match name.split():
        case ["board", "cycles", board]:
            return board_cycles_table(sources, board)
        case ["board", "memory", board]:
            return memory_choice_table(sources, board)
        case ["board", *board]:
            return _board(sources, " ".join(board))
        case ["fit", board]:
            return _fit(sources, board)
        case ["presets"]:
            return _presets()
        case ["resources"]:
            return _resources(sources)
        case ["sdram", "margins"]:
            return _margins()
        case ["sdram", "cycles"]:
            return _sdram_cycles(sources)
        case ["sdram", "size"]:
            return _sdram_size(sources)
    raise FigureError("a table of FPGAs", f"there is none called {name!r}")


def fpga_figure(sources: Sources, words: list[str]) -> str:
    """Return a number: ``clock base``, ``board icebreaker share logic_cells``, ...

    Raises
    ------
    FigureError
        If there is no such number.
    """
    match words:
        case ["clock", config]:
            return f"{_entry(sources, 'ecp5.json', f'clock {config}')['fmax_mhz']:.1f} MHz"
        case ["clock", config, "path" | "wires" as which]:
            path = _entry(sources, "ecp5.json", f"clock {config}")["critical_path"]
            wires_ns = path["routing_ns"]
            return f"{wires_ns if which == 'wires' else wires_ns + path['logic_ns']:.1f} ns"
        case ["board", *board, "clock"]:
            clock = _report(sources, " ".join(board)).fmax_mhz
            return f"{clock:.1f} MHz"
        case ["board", *board, "share", resource]:
            report, key = _report(sources, " ".join(board)), resource.replace("_", " ")
            return f"{100 * report.used[key] / report.capacity[key]:.0f} %"
        case ["board", board, "used" | "capacity" as which, resource]:
            return f"{getattr(_report(sources, board), which)[resource.replace('_', ' ')]:,}"
        case ["board", board, "minutes"]:
            return f"{sum(_report(sources, board).seconds.values()) / 60:.0f}"
        case ["firmware", "instructions"]:
            from celosia.hw.nano.firmware.image import firmware

            return f"{len(firmware(preset('nano')).code):,}"
        case ["firmware", "room"]:
            from celosia.hw.nano.instructions import CODE_WORDS

            return f"{CODE_WORDS:,}"
    raise FigureError("a number", f"there is none called {' '.join(words)!r}")


def _entry(sources: Sources, file: str, name: str) -> Any:
    entries = read_entries(sources.records / file)
    if name not in entries:
        raise CelosiaError(
            f"{name} in docs/figures/{file}", "it was not recorded", "give the command --record"
        )
    return entries[name]


def _report(sources: Sources, board: str) -> Any:
    from celosia.sw.report.build import recorded_reports

    return recorded_reports(sources.records / "boards.json")[board]


def _board(sources: Sources, board: str) -> str:
    from celosia.sw.report.build import report_lines, report_table

    report = _report(sources, board)
    return "\n".join([table_text(report_table(report)), *report_lines(report)])


def _fit(sources: Sources, name: str) -> str:
    from celosia.boards.registry import find_board
    from celosia.sw.report.fit import fit_usual
    from celosia.sw.report.fit_table import fit_table

    board = find_board(name)
    fits = [
        fit_usual(sources.program(model, config), board)
        for model in BENCHMARK
        for config in board.configs
    ]
    return table_text(fit_table(board.title, fits))


def _presets() -> str:
    rows = []
    for config in PRESETS.values():
        multipliers = f", {config.macs_per_cycle} multipliers" if config.firmware else ""
        rows.append(
            [
                f"`{config.name}`",
                f"{config.rows}x{config.cols}{multipliers}",
                f"{config.bus_bits} bits",
                f"{config.act_bytes // KIB} KiB",
                f"{config.wgt_bytes // KIB} KiB",
                PURPOSES[config.name],
            ]
        )
    lines = markdown_table(
        ["preset", "array", "bus", "activation SRAM", "weight SRAM", "meant for"], rows, texts=1
    ).splitlines()
    lines[1] = "|---|--:|--:|--:|--:|---|"
    return "\n".join(lines)


def _resources(sources: Sources) -> str:
    rows = []
    for config in ("nano", "base", "wide"):
        found = _entry(sources, "ecp5.json", f"resources {config}")
        keys = ("lut4", "ccu2c", "dpr16x4", "tables", "ff", "dp16kd", "mult18x18d")
        rows.append([f"`{config}`", *(f"{found[key]:,}" for key in keys)])
    heads = ["ECP5", "LUT4", "CCU2C", "DPR16X4", "4-input tables", "flip-flops", "DP16KD"]
    return markdown_table([*heads, "MULT18X18D"], rows, texts=1)


def _margins() -> str:
    from celosia.hw.system.sdram_timing import SDRAM_CHIPS

    rows = []
    for clock_mhz, phase, capture_cycles in CAPTURE:
        period_ns = 1e3 / clock_mhz
        cas_latency = SDRAM_CHIPS[CHIP].cas_latency(clock_mhz * 1e6)
        setup_ns, hold_ns = SDRAM_CHIPS[CHIP].capture_margins_ns(
            clock_mhz * 1e6,
            cas_latency=cas_latency,
            capture_cycles=capture_cycles,
            chip_clock_ns=period_ns * phase / 360 + RETURN_NS,
            return_ns=RETURN_NS,
        )
        more = capture_cycles - cas_latency
        cycles = f"{capture_cycles} = CL{f' + {more}' if more else ''}"
        rows.append(
            [f"{clock_mhz} MHz", f"{phase}°", cycles, f"{setup_ns:.1f} ns", f"{hold_ns:.1f} ns"]
        )
    heads = ["clock", "phase at the chip", "`capture_cycles`", "set-up margin", "hold margin"]
    return markdown_table(heads, rows, texts=0)


def _sdram_cycles(sources: Sources) -> str:
    rows = []
    for entry in read_entries(sources.records / "sdram_cycles.json")["cycles"]:
        rows.append(
            [
                f"{entry['bus_bits']} bits",
                f"{entry['write']:.2f} / {entry['read']:.2f}",
                f"{entry['open']:.0f} / {entry['closed']:.0f} / {entry['conflict']:.0f}",
                f"{entry['latency']:.2f} / {entry['latency max']:.0f}",
                f"{entry['random']:.2f}",
            ]
        )
    heads = [
        *("bus", "cycles a word, successive: write / read"),
        "request to answer: row open / bank closed / other row open",
        *("single reads all over: mean / most", "the same, 16 in flight: cycles a word"),
    ]
    return markdown_table(heads, rows, texts=1)


def _sdram_size(sources: Sources) -> str:
    rows = []
    sizes = read_entries(sources.records / "sdram_size.json")["sizes"]
    for entry in sizes:
        clocks = ", ".join(f"{mhz:.0f}" for mhz in entry["fmax_mhz"].values())
        keys = ("lut4", "ccu2c", "dpr16x4", "tables", "ff")
        rows.append(
            [f"{entry['bus_bits']} bits", *(f"{entry[key]:,}" for key in keys), f"{clocks} MHz"]
        )
    seeds = ", ".join(sizes[0]["fmax_mhz"])
    heads = ["bus", "LUT4", "CCU2C", "DPR16X4", "4-input tables", "flip-flops"]
    return markdown_table([*heads, f"clock, seeds {seeds}"], rows, texts=1)
