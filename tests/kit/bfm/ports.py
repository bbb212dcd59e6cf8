"""Models of the ports between the parts of the machine (``docs/machine.md``, "Memory ports")."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.kit.bfm.cycles import Cycles, Pins

__all__ = [
    "AccReader",
    "AccSource",
    "CommandDriver",
    "FaultMonitor",
    "LineReader",
    "LineSource",
    "LineSink",
    "LineWriter",
    "WindowSink",
    "WindowWriter",
]

LINE_LATENCY_CYCLES = 2
"""From the grant of a line, or the request of an accumulator vector, to its data."""


class _Delayed:
    """Data lines that show a value a fixed number of cycles later, and nonsense else."""

    def __init__(self, pins: Pins, name: str, rng: random.Random) -> None:
        self._pins, self._name, self._random = pins, name, rng
        self._bits = pins.width(name)
        self._coming: deque[int | None] = deque([None] * (LINE_LATENCY_CYCLES - 1))

    def sample(self, value: int | None) -> None:
        self._coming.append(value)

    def drive(self) -> None:
        value = self._coming.popleft() if len(self._coming) >= LINE_LATENCY_CYCLES else None
        self._pins.set(self._name, self._random.getrandbits(self._bits) if value is None else value)


class CommandDriver:
    """Gives commands to an engine, one after the other.

    The payload is stable while ``valid`` is high; between commands it is nonsense.

    Parameters
    ----------
    cycles : Cycles
        The agent adds itself.
    dut : cocotb handle
    prefix : str
        Name of the stream.
    seed : int
    max_gap : int
        Greatest number of cycles between commands.
    done : str
        Port that says when the oldest command is done; empty: one is done when it is answered.

    Attributes
    ----------
    completed : int
        Commands that are done.
    """

    def __init__(
        self,
        cycles: Cycles,
        dut: Any,
        prefix: str,
        *,
        seed: int,
        max_gap: int = 5,
        done: str = "",
    ) -> None:
        self.completed = 0
        self._done = partial(Pins(dut, "", (done,)).get, done) if done else None
        self._answered = 0
        self._pins = Pins(dut, prefix, ("valid", "payload", "ready"))
        self._bits = self._pins.width("payload")
        self._random = random.Random(seed)
        self._max_gap = max_gap
        self._queue: deque[bytes] = deque()
        self._gap = 0
        self._valid = False
        cycles.agents.append(self)

    @property
    def idle(self) -> bool:
        """Whether every command is done."""
        return not self._queue and self._answered == self.completed

    def push(self, command: bytes) -> None:
        """Queue an encoded command."""
        self._queue.append(command)

    def drop(self) -> None:
        """Forget all commands, as a reset of the front end does."""
        self._queue.clear()
        self._valid = False
        self._answered = self.completed

    def sample(self) -> None:
        ready = self._pins.get("ready")
        if self._done is not None and self._done():
            self.completed += 1
        if self._valid and ready:
            self._queue.popleft()
            self._answered += 1
            if self._done is None:
                self.completed += 1
            self._valid = False
            self._gap = self._random.randint(0, self._max_gap)

    def drive(self) -> None:
        if not self._valid and self._queue:
            if self._gap:
                self._gap -= 1
            else:
                self._valid = True
                self._pins.set("payload", int.from_bytes(self._queue[0], "little"))
        if not self._valid:
            self._pins.set("payload", self._random.getrandbits(self._bits))
        self._pins.set("valid", self._valid)


class FaultMonitor:
    """Keeps the first report of a fault port.

    Attributes
    ----------
    seen : tuple of int or None
        Cause and address.
    """

    def __init__(self, cycles: Cycles, dut: Any, prefix: str) -> None:
        self.seen: tuple[int, int] | None = None
        self._pins = Pins(dut, prefix, ("valid", "cause", "address"))
        cycles.agents.append(self)

    def sample(self) -> None:
        if self.seen is None and self._pins.get("valid"):
            self.seen = (self._pins.get("cause"), self._pins.get("address"))

    def drive(self) -> None:
        pass


class LineSource:
    """A memory behind a ``LineRead`` of the design: grants at random.

    Parameters
    ----------
    memory : callable
        From a line address to the line as a number; called in the cycle of the grant.
    grant : float
        Chance of a grant.
    """

    def __init__(
        self,
        cycles: Cycles,
        dut: Any,
        prefix: str,
        memory: Callable[[int], int],
        *,
        seed: int,
        grant: float = 1.0,
    ) -> None:
        self.grant = grant
        self.refused = 0
        self._memory = memory
        self._random = random.Random(seed)
        self._pins = Pins(dut, prefix, ("req", "line", "gnt", "data"))
        self._data = _Delayed(self._pins, "data", self._random)
        self._granting = False
        cycles.agents.append(self)

    def sample(self) -> None:
        wanted = self._pins.get("req")
        taken = wanted and self._granting
        self.refused += bool(wanted and not taken)
        self._data.sample(self._memory(self._pins.get("line")) if taken else None)

    def drive(self) -> None:
        self._granting = self._random.random() < self.grant
        self._pins.set("gnt", self._granting)
        self._data.drive()


class LineSink:
    """Receives a ``LineWrite`` of the design.

    Parameters
    ----------
    write : callable
        Called with line address and data in the cycle of the write.
    """

    def __init__(
        self, cycles: Cycles, dut: Any, prefix: str, write: Callable[[int, int], None]
    ) -> None:
        self._pins = Pins(dut, prefix, ("req", "outside", "line", "data"))
        self._write = write
        cycles.agents.append(self)

    def sample(self) -> None:
        if self._pins.get("req") and not self._pins.get("outside"):
            self._write(self._pins.get("line"), self._pins.get("data"))

    def drive(self) -> None:
        pass


class WindowSink:
    """Receives a ``WindowWrite`` of the design: grants at random, checks that requests are held.

    Parameters
    ----------
    write : callable
        Called with address, data and mask when a write is granted.
    grant : float
        Chance of a grant.
    """

    REQUEST = ("space", "addr", "data", "mask")

    def __init__(
        self,
        cycles: Cycles,
        dut: Any,
        prefix: str,
        write: Callable[[int, int, int], None],
        *,
        seed: int,
        grant: float,
    ) -> None:
        self.grant = grant
        self._write = write
        self._random = random.Random(seed)
        self._pins = Pins(dut, prefix, ("req", "gnt", *self.REQUEST))
        self._granting = False
        self._held: tuple[int, ...] | None = None
        cycles.agents.append(self)

    def forget(self) -> None:
        """Expect no more what was asked for: the design has been reset."""
        self._held = None

    def sample(self) -> None:
        if not self._pins.get("req"):
            assert self._held is None, "a refused write was withdrawn"
            return
        request = tuple(self._pins.get(name) for name in self.REQUEST)
        assert self._held in (None, request), "a refused write has changed"
        self._held = None if self._granting else request
        if self._granting:
            self._write(*request[1:])

    def drive(self) -> None:
        self._granting = self._random.random() < self.grant
        self._pins.set("gnt", self._granting)


class LineReader:
    """Reads lines through a ``LineRead`` that the design offers.

    Parameters
    ----------
    noise_lines : int
        While there is nothing else to read, and `noise` allows: any of the first `noise_lines`
        lines, to be in the others' way. `check` gets what comes.
    noise : float
        Chance of such a read.
    check : callable, optional
        Called with line address and data of each read for noise.
    """

    def __init__(
        self,
        cycles: Cycles,
        dut: Any,
        prefix: str,
        *,
        seed: int,
        noise_lines: int = 0,
        noise: float = 0.0,
        check: Callable[[int, int], None] | None = None,
    ) -> None:
        self.noise = noise
        self._cycles = cycles
        self._random = random.Random(seed)
        self._pins = Pins(dut, prefix, ("req", "line", "gnt", "data"))
        self._noise_lines, self._check = noise_lines, check
        self._wanted: deque[int] = deque()
        self._results: dict[int, int] = {}
        self._current: tuple[int, bool] | None = None  # line, asked for by the test
        self._coming: deque[tuple[int, bool] | None] = deque([None] * LINE_LATENCY_CYCLES)
        cycles.agents.append(self)

    async def read(self, lines: range) -> list[int]:
        """Return lines of the memory, as numbers."""
        self._results = {}
        self._wanted.extend(lines)
        await self._cycles.until(lambda: len(self._results) == len(lines))
        return [self._results[line] for line in lines]

    def sample(self) -> None:
        taken = self._current is not None and self._pins.get("gnt")
        self._coming.append(self._current if taken else None)
        if taken:
            self._current = None
        arrived = self._coming.popleft()
        if arrived is None:
            return
        line, wanted = arrived
        data = self._pins.get("data")
        if wanted:
            self._results[line] = data
        elif self._check is not None:
            self._check(line, data)

    def drive(self) -> None:
        if self._current is None:
            if self._wanted:
                self._current = (self._wanted.popleft(), True)
            elif self._random.random() < self.noise:
                self._current = (self._random.randrange(self._noise_lines), False)
        self._pins.set("req", self._current is not None)
        if self._current is not None:
            self._pins.set("line", self._current[0])


class LineWriter:
    """Writes lines through a ``LineWrite`` that the design offers.

    Parameters
    ----------
    noise : callable, optional
        What to write when there is nothing else: line and data, or None.
    """

    def __init__(
        self,
        cycles: Cycles,
        dut: Any,
        prefix: str,
        *,
        noise: Callable[[], tuple[int, int] | None] | None = None,
    ) -> None:
        self._cycles = cycles
        self._pins = Pins(dut, prefix, ("req", "outside", "line", "data"))
        self._pins.set("outside", 0)
        self._noise = noise
        self._queue: deque[tuple[int, int]] = deque()
        cycles.agents.append(self)

    async def write(self, lines: dict[int, int]) -> None:
        """Write lines of the memory."""
        self._queue.extend(lines.items())
        await self._cycles.until(lambda: not self._queue)
        await self._cycles.wait(2)

    def sample(self) -> None:
        pass

    def drive(self) -> None:
        item = self._queue.popleft() if self._queue else self._noise() if self._noise else None
        self._pins.set("req", item is not None)
        if item is not None:
            self._pins.set("line", item[0])
            self._pins.set("data", item[1])


class WindowWriter:
    """Writes bytes through a ``WindowWrite`` that the design offers, one bus word at a time."""

    def __init__(
        self, cycles: Cycles, dut: Any, prefix: str, *, word_bytes: int, space: int = 0
    ) -> None:
        self._cycles = cycles
        self._pins = Pins(dut, prefix, ("req", "space", "addr", "data", "mask", "gnt"))
        self._word_bytes, self._space = word_bytes, space
        self._queue: deque[tuple[int, bytes]] = deque()
        self._busy = False
        cycles.agents.append(self)

    async def write(self, data: bytes) -> None:
        """Write the memory from its start."""
        step = self._word_bytes
        self._queue.extend((at, data[at : at + step]) for at in range(0, len(data), step))
        await self._cycles.until(lambda: not self._queue)
        await self._cycles.wait(2)

    def sample(self) -> None:
        if self._busy and self._pins.get("gnt"):
            self._queue.popleft()

    def drive(self) -> None:
        self._busy = bool(self._queue)
        self._pins.set("req", self._busy)
        if self._busy:
            address, word = self._queue[0]
            self._pins.set("space", self._space)
            self._pins.set("addr", address)
            self._pins.set("data", int.from_bytes(word, "little"))
            self._pins.set("mask", (1 << len(word)) - 1)


class AccReader:
    """Takes tiles from an ``AccRead`` that the design offers, with random pauses.

    Every other tile is taken steadily, and the design told so.

    Parameters
    ----------
    max_pause : int
        Greatest number of cycles between a full half and its first read.
    gap : float
        Chance of a cycle without a read of the other tiles.

    Attributes
    ----------
    tiles : list of list of int
        Vectors of every tile taken.
    """

    def __init__(
        self, cycles: Cycles, dut: Any, prefix: str, *, seed: int, max_pause: int, gap: float
    ) -> None:
        self.tiles: list[list[int]] = []
        self.max_pause, self.gap = max_pause, gap
        self._cycles = cycles
        self._random = random.Random(seed)
        self._pins = Pins(dut, prefix, ("avail", "req", "index", "steady", "data", "release"))
        self._steady = False
        self._sizes: deque[int] = deque()
        self._pause: int | None = None
        self._next = 0
        self._asked = self._released = False
        self._coming: deque[bool] = deque([False] * LINE_LATENCY_CYCLES)
        self._sizes_open: deque[int] = deque()
        self._full = 0
        cycles.agents.append(self)

    @property
    def idle(self) -> bool:
        """Whether every tile expected has been taken and has arrived."""
        return not self._sizes and not self._sizes_open

    def expect(self, vectors: int) -> None:
        """Take one more tile, of so many vectors."""
        self._sizes.append(vectors)
        self._sizes_open.append(vectors)

    def drop(self) -> None:
        """Expect nothing any more."""
        self._sizes.clear()
        self._sizes_open.clear()
        self.tiles.clear()
        self._pause, self._next = None, 0

    def sample(self) -> None:
        self._coming.append(self._asked)
        if self._coming.popleft() and self._sizes_open:
            if not self.tiles or len(self.tiles[-1]) == self._full:
                self.tiles.append([])
                self._full = self._sizes_open[0]
            self.tiles[-1].append(self._pins.get("data"))
            if len(self.tiles[-1]) == self._full:
                self._sizes_open.popleft()
        if self._released:
            self._pause = None
            self._next = 0
            self._sizes.popleft()
            self._steady = not self._steady
        elif self._pause is None and self._sizes and self._pins.get("avail"):
            self._pause = self._random.randint(0, self.max_pause)

    def drive(self) -> None:
        self._asked = self._released = False
        if self._pause:
            self._pause -= 1
        elif self._pause == 0 and (self._steady or self._random.random() >= self.gap):
            size = self._sizes[0]
            if self._next < size:
                self._asked = True
                self._pins.set("index", self._next)
                self._next += 1
                # The half may be given back with the last read or later.
                last = self._next == size
                self._released = last and (self._steady or self._random.random() < 0.5)
            else:
                self._released = True
        self._pins.set("steady", self._steady)
        self._pins.set("req", self._asked)
        self._pins.set("release", self._released)


class AccSource:
    """The accumulator behind an ``AccRead`` of the design; full halves come at random.

    Parameters
    ----------
    avail : float
        Chance, in each cycle, that the next half is full.

    Attributes
    ----------
    tiles : collections.deque
        Tiles to come, each a list of vectors as numbers.
    """

    def __init__(self, cycles: Cycles, dut: Any, prefix: str, *, seed: int, avail: float) -> None:
        self.tiles: deque[list[int]] = deque()
        self.avail = avail
        self._random = random.Random(seed)
        self._pins = Pins(dut, prefix, ("avail", "req", "index", "data", "release"))
        self._data = _Delayed(self._pins, "data", self._random)
        self._there = False
        cycles.agents.append(self)

    def sample(self) -> None:
        value = None
        if self._pins.get("req"):
            assert self._there, "a read of a half that is not the reader's"
            index = self._pins.get("index")
            assert index < len(self.tiles[0]), f"vector {index} is not in the tile"
            value = self.tiles[0][index]
        self._data.sample(value)
        if self._pins.get("release"):
            assert self._there, "a half was given back that is not the reader's"
            self.tiles.popleft()
            self._there = False

    def drive(self) -> None:
        # A half that is there stays there until it is given back.
        if not self._there:
            self._there = bool(self.tiles) and self._random.random() < self.avail
        self._pins.set("avail", self._there)
        self._data.drive()
