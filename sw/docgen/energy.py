"""Figures from the record of energies: beside what others have measured, and in sentences."""

from __future__ import annotations

from celosia.sw.docgen.cycles import KINDS
from celosia.sw.docgen.marks import FigureError
from celosia.sw.docgen.sources import BENCHMARK, Sources
from celosia.sw.docgen.text import markdown_table, table_text
from celosia.sw.energy.measured import measured_energies
from celosia.sw.energy.model import Part, pair_text
from celosia.sw.energy.tables import energy_table, percent_text

__all__ = ["energy_block", "energy_figure"]

CONFIG = "base"


def energy_block(sources: Sources, name: str) -> str:
    """Return a table: ``main``, ``parts``, ``measured``.

    Raises
    ------
    FigureError
        If there is no such table.
    CelosiaError
        If an energy that is in it is not recorded.
    """
    energies = [sources.energy(model, CONFIG) for model in BENCHMARK]
    if name == "main":
        return table_text(energy_table(energies))
    if name == "parts":
        heads = ["uJ an inference", *(part.value for part in Part), "input"]
        rows = [
            [KINDS[e.model], *(str(e.parts[part.value]) for part in Part), e.input]
            for e in energies
        ]
        return markdown_table(heads, rows, texts=1)
    if name == "measured":
        rows = []
        for e in energies:
            own = [f"Celosia `{CONFIG}`, estimated", str(e.chip), str(e.total), "45 nm, no leakage"]
            measured = measured_energies(e.model)
            rows += [[KINDS[e.model], *own]] if measured else []
            rows += [
                ["", f"{m.submitter} {m.system}", f"{m.energy_uj:.4g}", "", f"[{m.round}]({m.url})"]
                for m in measured
            ]
        return markdown_table(["model", "system", "chip uJ", "with DRAM uJ", ""], rows, texts=2)
    raise FigureError("a table of energies", f"there is none called {name!r}")


def energy_figure(sources: Sources, words: list[str]) -> str:
    """Return a number: ``energy share kws_int8 base``, ``energy mac kws_int8 base``.

    Raises
    ------
    FigureError
        If there is no such number.
    """
    match words:
        case ["energy", "share", model, config]:
            return percent_text(sources.energy(model, config).accumulator_memory_share)
        case ["energy", "mac", model, config]:
            return pair_text(sources.energy(model, config).pj_a_mac)
        case ["energy", "chip", model, config]:
            return str(sources.energy(model, config).chip)
        case ["energy", "memory", model, config]:
            return str(sources.energy(model, config).parts[Part.MEMORY.value])
    raise FigureError("an energy", f"there is none called {' '.join(words)!r}")
