"""What writes the figures of README.md and of the pages in docs/."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celosia.sw.docgen.arrays import arrays_figure, arrays_table
from celosia.sw.docgen.cycles import cycle_figure, cycle_table, field_table
from celosia.sw.docgen.energy import energy_block, energy_figure
from celosia.sw.docgen.fpga import fpga_figure, fpga_table
from celosia.sw.docgen.marks import FigureError, NotHereError
from celosia.sw.docgen.navigation import page_table
from celosia.sw.docgen.sessions import recorded_session, run_session
from celosia.sw.docgen.sources import Sources
from celosia.sw.docgen.walk import walk_block

__all__ = ["Figures"]

FROM_CYCLES = ("cycles", "operator", "utilisation", "times")


@contextmanager
def _extras() -> Iterator[None]:
    """Turn a package that is not installed into a reason why a figure stays as it is."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "celosia":
            raise
        raise NotHereError(
            "figures of boards and gateware", str(error), "install celosia[dev]"
        ) from None


class Figures:
    """The figures, made from the source tree and what is recorded in ``docs/figures``.

    Parameters
    ----------
    root : Path
        The source tree.
    """

    def __init__(self, root: Path) -> None:
        self.sources = Sources(root)

    def block(self, name: str, old: str) -> str:
        """Return the lines of a block; see `Source.block`."""
        kind, _, rest = name.partition(" ")
        if kind == "cycles":
            return cycle_table(self.sources.cycles, rest)
        if kind == "energy":
            return energy_block(self.sources, rest)
        if kind == "arrays":
            return arrays_table(self.sources, rest)
        if kind == "walk":
            return walk_block(self.sources, rest)
        if name == "field":
            return field_table(self.sources.field)
        if name == "pages":
            return page_table(self.sources.root)
        if name == "session":
            return run_session(self.sources, old)
        if name == "recorded session":
            return recorded_session(self.sources, old)
        with _extras():
            return fpga_table(self.sources, name)

    def figure(self, name: str) -> str:
        """Return a figure within a sentence; see `Source.figure`."""
        words = name.split()
        if not words:
            raise FigureError("a figure's mark", "it has no name")
        if words[0] in FROM_CYCLES:
            return cycle_figure(self.sources.cycles, words)
        if words[0] == "energy":
            return energy_figure(self.sources, words)
        if words[0] == "arrays":
            return arrays_figure(self.sources, words)
        with _extras():
            return fpga_figure(self.sources, words)
