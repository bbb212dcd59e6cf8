"""Clock enables of large parts: a register of its own for each block."""

# mypy: disable-error-code="misc"
from __future__ import annotations

from typing import Any

from amaranth.hdl import EnableInserter, Fragment, Signal, Value

__all__ = ["SpreadEnable"]

DEPTH = 2
"""Levels of submodules that have a register of their own; what is inside them uses theirs."""


class SpreadEnable(EnableInserter):
    """Inserts a clock enable that comes from a register next to what it drives.

    One net to all of the thousands of registers of an engine takes most of a clock cycle on an
    FPGA, and nothing could be decided by what it has enabled. Here the part and each block in it
    have a register for it.

    They rise together, in the cycle after `wanted`, and fall one after another: registers that
    always are the same would be made one again by synthesis.

    Parameters
    ----------
    wanted : Value
        The clock is needed in the next cycle.
    """

    controls: dict[str, Signal]

    def __init__(self, wanted: Value) -> None:
        self._wanted = wanted
        self._depth = 0
        self._last: Signal | None = None
        super().__init__(Signal())

    def on_fragment(self, fragment: Fragment) -> Fragment:
        if self._depth > DEPTH or type(fragment) is not Fragment:
            return super().on_fragment(fragment)
        outer = self.controls
        # No reset: the clock must not stop in the cycle after a reset that starts the machine.
        enable = Signal(name="clock_enable", reset_less=True)
        wanted = self._wanted if self._last is None else self._wanted | self._last
        self._last = enable
        self.controls = {"sync": enable}
        self._depth += 1
        new_fragment: Any = super().on_fragment(fragment)
        self._depth -= 1
        self.controls = outer
        # After the others got their enable: this one has none.
        new_fragment.add_statements("sync", enable.eq(wanted))
        return new_fragment
