"""Moves loads ahead in the program, so that data is there when it is needed.

The dispatcher hands out commands in program order and stops at a full queue. A load that stands
right before the commands that need it is therefore seen late whenever the queues are full. Each
load moves up past commands that it has no conflict with; loads keep their order among each
other, a `Conv` and the `Vector` that empties its tiles stay together, and no more loads stand
before a command than its queue can take without stopping the dispatcher.
"""

from __future__ import annotations

from celosia.hw.contract.isa import Conv, Engine
from celosia.sw.compiler.steps import Step, conflict

__all__ = ["prefetch_loads"]


def prefetch_loads(steps: list[Step], most_ahead: int) -> list[Step]:
    """Return the steps with loads moved ahead.

    Parameters
    ----------
    steps : list of Step
        Right in this order.
    most_ahead : int
        Loads that may stand before a command and come from behind it; fewer than a queue holds.
    """
    result: list[Step] = []
    # How many loads that stand before each step come from behind it.
    ahead: list[int] = []
    for step in steps:
        place = len(result)
        if step.engine == Engine.LOAD:
            while (
                place > 0
                and result[place - 1].engine != Engine.LOAD
                and ahead[place - 1] < most_ahead
                and not conflict(result[place - 1], step)
            ):
                place -= 1
            # Never between a Conv and the Vector that takes its tiles.
            while place > 0 and place < len(result) and _is_coupled(result[place - 1]):
                place += 1
            for index in range(place, len(result)):
                ahead[index] += 1
        result.insert(place, step)
        ahead.insert(place, 0)
    return result


def _is_coupled(step: Step) -> bool:
    return isinstance(step.command, Conv)
