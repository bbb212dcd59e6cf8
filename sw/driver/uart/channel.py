"""Frames on a port: what is sent, what arrives, and how long that may take."""

from __future__ import annotations

from dataclasses import dataclass

from celosia.hw.contract.line import Port
from celosia.hw.contract.uart import DEFAULT_BAUD, EVENT
from celosia.sw.driver.uart.codec import FrameSplitter, Reply

__all__ = ["CHARACTER_BITS", "Channel", "LinkStatistics", "Patience"]

CHARACTER_BITS = 10
LINE_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the host waits.

    Attributes
    ----------
    latency_s : float
        For an answer, beyond the time that the characters take on the line: USB, scheduling.
    hello_s : float
        For the first sign of a board, in all.
    tries : int
        For an answer to PING before the board is given up.
    slowdown : float
        How much longer than the rate says characters take: simulated boards are slow.
    """

    latency_s: float = 0.15
    hello_s: float = 6.0
    tries: int = 14
    slowdown: float = 1.0


@dataclass
class LinkStatistics:
    """What happened on a link since it was opened.

    Attributes
    ----------
    requests, replies, events : int
        Sequenced requests sent; replies that were taken; interrupts reported.
    recoveries : int
        Times that replies were missing and the board was asked for its state.
    repeated : int
        Requests that were sent again.
    damaged : int
        Frames of the board that were not good.
    sent_bytes, received_bytes : int
        Characters on the line.
    """

    requests: int = 0
    replies: int = 0
    events: int = 0
    recoveries: int = 0
    repeated: int = 0
    damaged: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Channel:
    """A port on which frames are sent and replies arrive.

    Parameters
    ----------
    port : Port
    patience : Patience

    Attributes
    ----------
    baud : int
        The rate at present.
    irq : bool
        Level of the interrupt, as last heard.
    heard_s : float
        When a good frame was last heard, on the port's clock.
    statistics : LinkStatistics
    """

    def __init__(self, port: Port, patience: Patience) -> None:
        self.port = port
        self.patience = patience
        self.baud = DEFAULT_BAUD
        self.irq = False
        self.heard_s = port.now()
        self.statistics = LinkStatistics()
        self._splitter = FrameSplitter()
        self._arrived: list[Reply] = []

    def send(self, data: bytes) -> None:
        """Send characters."""
        self.port.write(data)
        self.statistics.sent_bytes += len(data)

    def receive(self, deadline_s: float) -> Reply | None:
        """Return the next good reply, or event, or None at the deadline."""
        while not self._arrived:
            left = deadline_s - self.port.now()
            data = self.port.read(max(left, 0.0))
            self.statistics.received_bytes += len(data)
            self._arrived += self._splitter.feed(data)
            self.statistics.damaged = self._splitter.damaged
            if left <= 0 and not self._arrived:
                return None
        reply = self._arrived.pop(0)
        self.heard_s = self.port.now()
        self.irq = reply.irq
        if reply.kind == EVENT:
            self.statistics.events += 1
        return reply

    def time_for(self, characters: int) -> float:
        """Return how long to wait for so many characters, in seconds."""
        line_s = LINE_MARGIN * characters * CHARACTER_BITS / self.baud
        return self.patience.latency_s + line_s * self.patience.slowdown

    def switch(self, baud: int) -> None:
        """Change the rate of the port; what has arrived is forgotten."""
        self.port.set_baud(baud)
        self.baud = baud
        self.port.discard()
        self._splitter.clear()
        self._arrived.clear()
