"""A port with a bad line."""

from __future__ import annotations

from collections import deque

from celosia.hw.contract.line import Port
from celosia.sim.board.line_faults import FaultRates, LineFaults

__all__ = ["FaultyPort"]


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
