"""What a prediction starts from, and what it says."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CommandTimes", "MemoryTiming", "Prediction"]

ARBITER_CYCLES = 1
"""From an answer to the request that it makes room for."""


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """How fast system memory is.

    Attributes
    ----------
    latency_cycles : int
        From the acceptance of a request to its answer.
    interval_cycles : float
        From one word to the next, on average: 1 if it takes a request in every cycle, 4 if a bus
        word of 64 bits comes through a port of 16.
    """

    latency_cycles: int = 8
    interval_cycles: float = 1

    def word_cycles(self, max_outstanding: int) -> float:
        """Return the cycles from one word of a long transfer to the next.

        Parameters
        ----------
        max_outstanding : int
            Requests that may be unanswered at a time, of which each takes the latency and the way
            through the arbiter.
        """
        return max(self.interval_cycles, (self.latency_cycles + ARBITER_CYCLES) / max_outstanding)


@dataclass(frozen=True)
class CommandTimes:
    """When a command starts and is complete, in cycles from the doorbell."""

    start: int
    end: int


@dataclass(frozen=True)
class Prediction:
    """Times of a program.

    Attributes
    ----------
    commands : list of CommandTimes
        One a command, `End` excluded.
    cycles : int
        From the doorbell to the interrupt.
    """

    commands: list[CommandTimes]
    cycles: int
