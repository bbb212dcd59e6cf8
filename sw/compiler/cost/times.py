"""What a prediction starts from, and what it says."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CommandTimes", "MemoryTiming", "Prediction"]


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """How fast system memory is.

    Attributes
    ----------
    latency_cycles : int
        From the acceptance of a request to its answer.
    interval_cycles : int
        From one word to the next: 1 if it takes a request in every cycle, 4 if a bus word of 64
        bits comes through a port of 16.
    """

    latency_cycles: int = 8
    interval_cycles: int = 1


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
