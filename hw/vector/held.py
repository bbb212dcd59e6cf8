"""Where the vector engine's command is while it runs."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value

__all__ = ["CommandInPlace", "HeldCommand"]


class HeldCommand:
    """In a register of the engine's own: its fields drive wide and long paths."""

    @staticmethod
    def take(m: Module, word: Signal, command: Value) -> None:
        """Drive `word` in the cycles in which a command may come."""
        m.d.sync += word.eq(command)

    @staticmethod
    def show(m: Module, word: Signal, command: Value) -> None:
        """Drive `word` in all cycles."""


class CommandInPlace:
    """Where the queue shows it: it stays there until it is complete."""

    @staticmethod
    def take(m: Module, word: Signal, command: Value) -> None:
        """Drive `word` in the cycles in which a command may come."""

    @staticmethod
    def show(m: Module, word: Signal, command: Value) -> None:
        """Drive `word` in all cycles."""
        m.d.comb += word.eq(command)
