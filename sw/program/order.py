"""In which order the commands of a program must run: deadlock freedom and happens-before.

A program is a graph of events. In-order engines, tokens (the k-th signal from a to b comes before
the k-th wait of b for a) and the two accumulator halves give edges that hold on every machine;
the bounded queues, filled in program order, give more edges that only decide whether the program
can get stuck. Every wait has one partner, so the schedule does not matter: a program runs to its
end exactly if this graph has no cycle.

An engine's commands start and end one after the other. So what must have happened before an event
is, of each engine, its first so many commands: one number an engine says it all (a vector clock),
and the order of a program takes time and memory in proportion to its events.

Events: dispatch, start and end of each command; for commands that hand over accumulator halves
also its first access, and one event for each half filled and given back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from celosia.errors import ProgramError
from celosia.hw.contract.isa import ACC_HALVES, MAX_TOKENS, Command, Conv, Engine, Vector

__all__ = ["CommandOrder", "command_name"]

Ints = npt.NDArray[np.int32]

_REMEDY = "this is a defect of the compiler that wrote the program: report it"


def command_name(index: int, command: Command) -> str:
    """Return how errors call a command."""
    return f"command {index} ({type(command).__name__})"


def _tiles(command: Command) -> int:
    if isinstance(command, Conv) or (isinstance(command, Vector) and command.reads_acc):
        return command.n_oc * -(-command.out_h // command.tile_rows)
    return 0


class CommandOrder:
    """The order of a program's commands.

    Parameters
    ----------
    commands : sequence of Command
        Legal commands, ending with `End`.
    queue_depth : int
        Commands that each engine's queue holds.

    Attributes
    ----------
    start, first, over, end : list of int
        Events of each command: its tokens are taken; for those that wait for an accumulator half
        it has that half (else as `start`); a `Conv` has filled its last half, so it has read
        everything (else as `end`); it is complete.
    turn : list of int
        Number of each command among those of its engine, from 0.
    started, over_before : numpy.ndarray
        int32 [events, engines]: how many commands of each engine must have started, and be over,
        before the event.

    Raises
    ------
    ProgramError
        If the program can get stuck, a token counter can overflow, or accumulator tiles are not
        taken as they are filled.
    """

    def __init__(self, commands: Sequence[Command], queue_depth: int) -> None:
        self._commands = commands
        self._edges: list[list[int]] = []
        self._queue_edges: list[list[int]] = []
        self._unmatched: dict[int, list[Engine]] = {}
        self._dispatch = [self._event() for _ in commands]
        self.start = [self._event() for _ in commands]
        self.first = list(self.start)
        self.end = [self._event() for _ in commands]
        self.over = list(self.end)
        self.turn = [0] * len(commands)
        self._add_engines(queue_depth)
        self._waits, self._signals = self._add_tokens()
        self._add_halves()
        self.started, self.over_before = self._clocks(self._sort())
        self._check_token_overflow()

    def tokens_left(self) -> list[tuple[Engine, Engine, int]]:
        """Return giver, taker and number of tokens that nobody takes before the End."""
        excess = (
            (giver, taker, len(signals) - len(self._waits[giver, taker]))
            for (giver, taker), signals in self._signals.items()
        )
        return [entry for entry in excess if entry[2] > 0]

    def _event(self) -> int:
        self._edges.append([])
        self._queue_edges.append([])
        return len(self._edges) - 1

    def _add_engines(self, queue_depth: int) -> None:
        queues: dict[Engine, list[int]] = {engine: [] for engine in Engine}
        for index, command in enumerate(self._commands):
            self._edges[self.end[index]].append(self.start[index])
            if index:
                self._queue_edges[self._dispatch[index]].append(self._dispatch[index - 1])
            self._edges[self.start[index]].append(self._dispatch[index])
            if command.engine is None:
                # End waits for everything: for the last command of each engine.
                last = (queue[-1] for queue in queues.values() if queue)
                self._edges[self.start[index]] += [self.end[other] for other in last]
                continue
            queue = queues[command.engine]
            self.turn[index] = len(queue)
            if queue:
                self._edges[self.start[index]].append(self.end[queue[-1]])
            if len(queue) >= queue_depth:
                self._queue_edges[self._dispatch[index]].append(self.end[queue[-queue_depth]])
            queue.append(index)

    def _add_tokens(
        self,
    ) -> tuple[dict[tuple[Engine, Engine], list[int]], dict[tuple[Engine, Engine], list[int]]]:
        waits, signals = defaultdict(list), defaultdict(list)
        for index, command in enumerate(self._commands):
            if command.engine is None:
                continue
            for other in Engine:
                if command.wait >> other & 1:
                    waits[other, command.engine].append(index)
                if command.signal >> other & 1:
                    signals[command.engine, other].append(index)
        for pair, waiting in waits.items():
            for turn, index in enumerate(waiting):
                if turn < len(signals[pair]):
                    self._edges[self.start[index]].append(self.end[signals[pair][turn]])
                else:
                    self._unmatched.setdefault(self.start[index], []).append(pair[0])
        return waits, signals

    def _add_halves(self) -> None:
        """Pair the tiles that the array fills with those that the vector engine takes."""
        fillers = [i for i, c in enumerate(self._commands) if isinstance(c, Conv)]
        takers = [i for i, c in enumerate(self._commands) if c.reads_acc]
        groups = self._groups(fillers)
        if len(groups) != len(takers):
            raise ProgramError(
                "the program",
                f"{len(groups)} tensors go into the accumulator, {len(takers)} are taken out",
                _REMEDY,
            )
        returned: list[int] = []
        for group, taker in zip(groups, takers, strict=True):
            self._check_shape(group, taker)
            previous: int | None = None
            for turn, filler in enumerate(group):
                if turn:
                    # It goes on in the half that it holds.
                    continue
                self.first[filler] = self._event()
                self._edges[self.first[filler]].append(self.start[filler])
                if len(returned) >= ACC_HALVES:
                    self._edges[self.first[filler]].append(returned[-ACC_HALVES])
                self._edges[self.end[filler]].append(self.first[filler])
            last = group[-1]
            self.first[taker] = self._event()
            self._edges[self.first[taker]].append(self.start[taker])
            for tile in range(_tiles(self._commands[last])):
                filled, empty = self._event(), self._event()
                self._edges[filled].append(self.first[last])
                if previous is not None:
                    self._edges[filled].append(previous)
                if len(returned) >= ACC_HALVES:
                    self._edges[filled].append(returned[-ACC_HALVES])
                if tile == 0:
                    self._edges[self.first[taker]].append(filled)
                self._edges[empty] += [filled, self.first[taker]]
                if returned:
                    self._edges[empty].append(returned[-1])
                returned.append(empty)
                previous = filled
            assert previous is not None, "a Conv has at least one tile"
            self._edges[self.end[last]].append(previous)
            self.over[last] = previous
            self._edges[self.end[taker]].append(returned[-1])

    def _groups(self, fillers: list[int]) -> list[list[int]]:
        """Group the commands that fill one half together by `hold` and `accumulate`."""
        groups: list[list[int]] = []
        held = False
        for index in fillers:
            conv = self._commands[index]
            assert isinstance(conv, Conv)
            if bool(conv.accumulate) != held:
                raise ProgramError(
                    command_name(index, conv),
                    "hold must be followed by accumulate in the next Conv, and only then",
                    _REMEDY,
                )
            if held:
                groups[-1].append(index)
            else:
                groups.append([index])
            held = bool(conv.hold)
        if held:
            raise ProgramError(
                command_name(fillers[-1], self._commands[fillers[-1]]),
                "holds an accumulator half that no Conv goes on in",
                _REMEDY,
            )
        return groups

    def _check_shape(self, group: list[int], taker: int) -> None:
        names = ("n_oc", "out_h", "out_w", "tile_rows")
        vector = self._commands[taker]
        for filler in group:
            conv = self._commands[filler]
            for name in names:
                if getattr(conv, name) != getattr(vector, name):
                    raise ProgramError(
                        f"{command_name(filler, conv)} and {command_name(taker, vector)}",
                        f"{name} is {getattr(conv, name)} and {getattr(vector, name)}",
                        _REMEDY,
                    )

    def _sort(self) -> list[int]:
        """Return all events in an order in which they can happen."""
        missing = [
            len(edges) + len(queue) + (event in self._unmatched)
            for event, (edges, queue) in enumerate(zip(self._edges, self._queue_edges, strict=True))
        ]
        after: list[list[int]] = [[] for _ in self._edges]
        for graph in (self._edges, self._queue_edges):
            for event, causes in enumerate(graph):
                for cause in causes:
                    after[cause].append(event)
        order = [event for event, count in enumerate(missing) if count == 0]
        for event in order:
            for later in after[event]:
                missing[later] -= 1
                if missing[later] == 0:
                    order.append(later)
        if len(order) < len(self._edges):
            raise ProgramError("the program gets stuck", self._why_stuck(set(order)), _REMEDY)
        return order

    def _why_stuck(self, happened: set[int]) -> str:
        reasons = []
        for engine in Engine:
            for index, command in enumerate(self._commands):
                if command.engine != engine or self.end[index] in happened:
                    continue
                name = command_name(index, command)
                if self._dispatch[index] not in happened:
                    reasons.append(f"{engine.name} never gets {name}")
                elif self.start[index] in happened:
                    reasons.append(f"{engine.name} waits for an accumulator half in {name}")
                else:
                    sources = ", ".join(self._missing_sources(index, engine, happened))
                    reasons.append(f"{engine.name} waits for tokens from {sources} before {name}")
                break
        return "; ".join(reasons)

    def _missing_sources(self, index: int, engine: Engine, happened: set[int]) -> list[str]:
        names = []
        for other in Engine:
            if not self._commands[index].wait >> other & 1:
                continue
            turn = self._waits[other, engine].index(index)
            signals = self._signals[other, engine]
            if turn >= len(signals) or self.end[signals[turn]] not in happened:
                names.append(other.name)
        return names

    def _clocks(self, order: list[int]) -> tuple[Ints, Ints]:
        """Return `started` and `over_before`; queue edges are no promise, so they do not count."""
        engines = len(Engine)
        # What each event adds to the clocks of those behind it: a place and its new value.
        adds: list[list[tuple[int, int]]] = [[] for _ in self._edges]
        for index, command in enumerate(self._commands):
            if command.engine is not None:
                count = self.turn[index] + 1
                adds[self.start[index]].append((command.engine, count))
                adds[self.over[index]].append((engines + command.engine, count))
        before = [(0,) * (2 * engines)] * len(self._edges)
        after = list(before)
        for event in order:
            causes = self._edges[event]
            if causes:
                before[event] = after[causes[0]]
                for cause in causes[1:]:
                    before[event] = tuple(map(max, before[event], after[cause]))
            after[event] = before[event]
            if adds[event]:
                clock = list(before[event])
                for place, count in adds[event]:
                    clock[place] = max(clock[place], count)
                after[event] = tuple(clock)
        clocks = np.array(before, np.int32)
        return clocks[:, :engines], clocks[:, engines:]

    def _check_token_overflow(self) -> None:
        for pair, giving in self._signals.items():
            waiting = self._waits[pair]
            for turn, index in enumerate(giving):
                # Waits that have surely been served when this signal is given.
                oldest = turn - MAX_TOKENS
                if oldest < 0:
                    continue
                started = int(self.started[self.end[index], pair[1]])
                served = oldest < len(waiting) and started > self.turn[waiting[oldest]]
                if not served:
                    raise ProgramError(
                        command_name(index, self._commands[index]),
                        f"more than {MAX_TOKENS} tokens from {pair[0].name} to {pair[1].name}",
                        _REMEDY,
                    )
