"""Something that talks over a serial line, at a pseudo-terminal, in a thread of its own."""

from __future__ import annotations

import threading
from abc import abstractmethod

from celosia.closing import Closing
from celosia.sim.board.pty_line import PtyLine

__all__ = ["ServedLine"]


class ServedLine(Closing):
    """Serves a terminal until it is closed; a context manager.

    Members
    -------
    line : PtyLine

    Raises
    ------
    DeviceError
        If the system has no pseudo-terminals.
    """

    def __init__(self) -> None:
        self.line = PtyLine()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def path(self) -> str:
        """Of the terminal."""
        return self.line.path

    def _start(self) -> None:
        """Begin; a subclass is ready for it at the end of its constructor."""
        self._thread.start()

    @abstractmethod
    def _step(self) -> None:
        """Take what has come and answer it; return before long."""

    def _serve(self) -> None:
        while not self._ending.is_set():
            self._step()

    def close(self) -> None:
        """End the thread and take the terminal away; may be called again."""
        self._ending.set()
        self._thread.join()
        self.line.close()
