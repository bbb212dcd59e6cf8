"""A pseudo-terminal as a serial line: programs that open serial ports can talk to what is here."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from functools import cache
from importlib import import_module
from typing import Any

from celosia.closing import Closing
from celosia.errors import DeviceError

__all__ = ["PtyLine"]

CHUNK = 4096


class PtyLine(Closing):
    """The device's end of a serial line whose other end is a terminal; a context manager.

    Other programs may open, close and open it again.

    Attributes
    ----------
    path : str
        Of the terminal that other programs open.

    Raises
    ------
    DeviceError
        If the system has none.
    """

    def __init__(self) -> None:
        tty = _terminal_module("tty")
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)

    @property
    def baud(self) -> int:
        """Rate that the other program has set, or 0 if it is one without a name."""
        return _speeds().get(_terminal_module("termios").tcgetattr(self._slave)[5], 0)

    def read(self, timeout_s: float = 0.0) -> bytes:
        """Return what the other program has written; nothing if that takes longer."""
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return b""
        try:
            return os.read(self._master, CHUNK)
        except OSError as error:
            if error.errno in (errno.EIO, errno.EAGAIN):
                return b""
            raise

    def write(self, data: bytes) -> None:
        """Send; what nobody reads is lost when the terminal's buffer is full, as on a line."""
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[os.write(self._master, data) :]

    def write_all(self, data: bytes) -> None:
        """Send all of `data`; waits while the other program does not read."""
        while data:
            select.select([], [self._master], [])
            # Room for a character is not room for all of them.
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self._master, data) :]

    def close(self) -> None:
        """Take the terminal away, as if the board was unplugged; may be called again."""
        for name in ("_master", "_slave"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                setattr(self, name, -1)
                os.close(descriptor)


def _terminal_module(name: str) -> Any:
    """Return ``tty`` or ``termios``, which not all systems have."""
    try:
        return import_module(name)
    except ImportError:
        raise DeviceError("pseudo-terminal", "this system has none", "use Linux or macOS") from None


@cache
def _speeds() -> dict[int, int]:
    """Return the rates in baud by the system's numbers for them."""
    termios = _terminal_module("termios")
    names = [name for name in dir(termios) if name[0] == "B" and name[1:].isdigit()]
    return {getattr(termios, name): int(name[1:]) for name in names}
