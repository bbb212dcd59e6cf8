"""What writes the figures of README.md and of the pages in docs/."""

from __future__ import annotations

from pathlib import Path

from celosia.sw.docgen.cycles import cycle_figure, cycle_table
from celosia.sw.docgen.fpga import fpga_figure, fpga_table
from celosia.sw.docgen.marks import FigureError
from celosia.sw.docgen.sessions import recorded_session, run_session
from celosia.sw.docgen.sources import Sources
from celosia.sw.docgen.walk import walk_block

__all__ = ["Figures"]

FROM_CYCLES = ("cycles", "operator", "utilisation", "times")


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
        if kind == "walk":
            return walk_block(self.sources, rest)
        if name == "session":
            return run_session(self.sources, old)
        if name == "recorded session":
            return recorded_session(self.sources, old)
        return fpga_table(self.sources, name)

    def figure(self, name: str) -> str:
        """Return a figure within a sentence; see `Source.figure`."""
        words = name.split()
        if not words:
            raise FigureError("a figure's mark", "it has no name")
        if words[0] in FROM_CYCLES:
            return cycle_figure(self.sources.cycles, words)
        return fpga_figure(self.sources, words)
