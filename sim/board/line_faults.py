"""What goes wrong on a serial line, on purpose: for tests of the link and for simulated boards."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, fields

from celosia.hw.contract.line import Port

__all__ = ["FaultRates", "FaultyPort", "LineFaults"]


@dataclass(frozen=True, kw_only=True)
class FaultRates:
    """Chances, for each character, from 0 to 1.

    Attributes
    ----------
    flip : float
        A bit of it is inverted.
    drop : float
        It is lost.
    duplicate : float
        It comes twice.
    truncate : float
        It is lost with the rest of its frame, the delimiter included.
    stall : float
        Nothing more comes for a while.
    """

    flip: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    truncate: float = 0.0
    stall: float = 0.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{entry.name} must be from 0 to 1, not {value}")


class LineFaults:
    """One direction of a line with faults.

    Parameters
    ----------
    rates : FaultRates
    seed : int
        Equal seeds do the same to equal characters.

    Attributes
    ----------
    counts : dict of str to int
        Faults so far, by kind.
    """

    def __init__(self, rates: FaultRates, *, seed: int) -> None:
        self._rates = rates
        self._random = random.Random(seed)
        self._cutting = False
        self.counts = {entry.name: 0 for entry in fields(rates)}

    def pass_on(self, data: bytes) -> list[bytes]:
        """Return what becomes of characters: runs between which the line stalls."""
        runs = [bytearray()]
        for byte in data:
            if self._cutting:
                self._cutting = byte != 0
                continue
            if self._happens("truncate"):
                self._cutting = byte != 0
                continue
            if self._happens("drop"):
                continue
            if self._happens("flip"):
                byte ^= 1 << self._random.randrange(8)
            runs[-1].append(byte)
            if self._happens("duplicate"):
                runs[-1].append(byte)
            if self._happens("stall"):
                runs.append(bytearray())
        return [bytes(run) for run in runs]

    def _happens(self, kind: str) -> bool:
        rate = getattr(self._rates, kind)
        happens = rate > 0 and self._random.random() < rate
        self.counts[kind] += happens
        return bool(happens)


class FaultyPort:
    """A port whose line has faults in both directions.

    Parameters
    ----------
    port : Port
    rates : FaultRates
    seed : int
    stall_s : float
        How long a stall lasts.
    """

    def __init__(self, port: Port, rates: FaultRates, *, seed: int, stall_s: float = 0.3) -> None:
        self._port = port
        self.outward = LineFaults(rates, seed=2 * seed)
        self.inward = LineFaults(rates, seed=2 * seed + 1)
        self._stall_s = stall_s
        self._to_write: deque[tuple[float, bytes]] = deque()
        self._to_read: deque[tuple[float, bytes]] = deque()

    @property
    def name(self) -> str:
        return self._port.name

    def write(self, data: bytes) -> None:
        self._queue(self._to_write, self.outward.pass_on(data))
        self._write_due()

    def read(self, timeout_s: float) -> bytes:
        deadline = self.now() + timeout_s
        while True:
            self._write_due()
            data = self._take_due()
            left = deadline - self.now()
            if data or left <= 0:
                return data
            dues = [queue[0][0] for queue in (self._to_write, self._to_read) if queue]
            wait_s = max(min([left, *(due - self.now() for due in dues)]), 0.0)
            self._queue(self._to_read, self.inward.pass_on(self._port.read(wait_s)))

    def set_baud(self, baud: int) -> None:
        while self._to_write:
            self._queue(self._to_read, self.inward.pass_on(self._port.read(self._stall_s)))
            self._write_due()
        self._port.set_baud(baud)

    def discard(self) -> None:
        self._to_read.clear()
        self._port.discard()

    def now(self) -> float:
        return self._port.now()

    def close(self) -> None:
        self._port.close()

    def _queue(self, queue: deque[tuple[float, bytes]], runs: list[bytes]) -> None:
        due = max(self.now(), queue[-1][0]) if queue else self.now()
        for index, run in enumerate(runs):
            queue.append((due + index * self._stall_s, run))

    def _write_due(self) -> None:
        while self._to_write and self._to_write[0][0] <= self.now():
            self._port.write(self._to_write.popleft()[1])

    def _take_due(self) -> bytes:
        data = b""
        while self._to_read and self._to_read[0][0] <= self.now():
            data += self._to_read.popleft()[1]
        return data
