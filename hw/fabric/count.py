"""Counts of what comes and goes."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value

__all__ = ["count"]


def count(m: Module, held: Signal, comes: Value, goes: Value) -> None:
    """Let `held` count what comes and goes, one of each a cycle at most.

    Both may be known late in their cycle: they choose between two sums, and wait for no carry.
    """
    with m.If(comes ^ goes):
        m.d.sync += held.eq(Mux(goes, held - 1, held + 1))
