"""Tables of a board's memory: what was measured on its RTL, and what led to its clock."""

from __future__ import annotations

import json
from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.named import BOARD_PRESETS, resolve_config
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.docgen.cycles import measured
from celosia.sw.docgen.sources import BENCHMARK, Sources
from celosia.sw.docgen.text import markdown_table
from celosia.sw.profile.profile import predicted_cycles
from celosia.sw.report.fit import board_memory

__all__ = ["board_cycles_table", "memory_choice_table"]

RECORD = "board_cycles.json"
AT_THE_DESIGNS_CLOCK = MemoryTiming(latency_cycles=9, interval_cycles=4)
"""The ULX3S's memory before it had a clock of its own, for a bus of 64 bits."""


def board_cycles_table(sources: Sources, name: str) -> str:
    """Return a board's cycles on its RTL beside the bench's and those that are predicted.

    Raises
    ------
    CelosiaError
        If a model was not measured.
    """
    from celosia.boards.registry import find_board

    path = sources.records / RECORD
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    known = {(entry["model"], entry["resident"]): entry for entry in entries}
    preset = BOARD_PRESETS.get(find_board(name).config, find_board(name).config)
    rows = []
    for model in BENCHMARK:
        bench = measured(sources.cycles, model, preset).cycles
        row = [model, f"{bench:,}"]
        for resident in (True, False):
            if (model, resident) not in known:
                raise CelosiaError(
                    f"{model} in docs/figures/{RECORD}",
                    "it was not measured",
                    f"python -m celosia.sw.report.board_cycles --json docs/figures/{RECORD}",
                )
            entry = known[model, resident]
            cycles, predicted = entry["cycles"], entry["predicted"]
            row.append(f"{cycles:,} ({predicted / cycles - 1:+.1%})")
            row.append(f"{cycles / bench:.2f}")
        rows.append(row)
    heads = ["model", f"bench, `{preset}`", "weights stay (predicted)", "of the bench"]
    return markdown_table([*heads, "all loaded (predicted)", "of the bench"], rows, texts=1)


def memory_choice_table(sources: Sources, name: str) -> str:
    """Return predictions for a board: its memory at the design's clock and at its own."""
    from celosia.boards.registry import find_board

    board = find_board(name)
    config = resolve_config(board.config)
    own = board_memory(board, config, board.clock_hz)
    rows = []
    for model in BENCHMARK:
        row = [model]
        for resident, memory in (
            (False, MemoryTiming()),
            (False, AT_THE_DESIGNS_CLOCK),
            (True, AT_THE_DESIGNS_CLOCK),
            (False, own),
            (True, own),
        ):
            program = compile_model(sources.model(model), config, resident=resident, memory=memory)
            row.append(f"{predicted_cycles(program, memory):,}")
        rows.append(row)
    rate = config.bus_bytes / own.interval_cycles
    heads = ["8 bytes a cycle", "2 bytes", "2 bytes, weights stay"]
    more = [f"{rate:.1f} bytes", f"{rate:.1f} bytes, weights stay"]
    return markdown_table(["model", *heads, *more], rows, texts=1)
