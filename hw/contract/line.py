"""A serial line, as the host sees it: what the driver needs of one, and simulated boards give."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Port"]


class Port(Protocol):
    """A line to a board."""

    @property
    def name(self) -> str:
        """As the user knows it."""

    def write(self, data: bytes) -> None:
        """Send characters; may return before they are on the line."""

    def read(self, timeout_s: float) -> bytes:
        """Return what has come, at least a character, or nothing after `timeout_s`."""

    def set_baud(self, baud: int) -> None:
        """Change the rate, when all that was written has been sent."""

    def discard(self) -> None:
        """Forget what has come and was not read."""

    def now(self) -> float:
        """Return the time in seconds on the clock that time-outs are measured with."""

    def close(self) -> None:
        """Give up the port; may be called again."""
