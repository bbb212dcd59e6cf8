"""A pseudo-terminal as a serial line: any program that opens serial ports can talk to what is here.

Only for systems that have them (not Windows).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import termios
import tty

__all__ = ["PtyLine"]

CHUNK = 4096

_SPEEDS = {
    getattr(termios, name): int(name[1:])
    for name in dir(termios)
    if name[0] == "B" and name[1:].isdigit()
}


class PtyLine:
    """The board's end of a serial line whose other end is a terminal.

    Attributes
    ----------
    path : str
        Of the terminal that other programs open.
    """

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)

    @property
    def baud(self) -> int:
        """Rate that the other program has set, or 0 if it is one without a name."""
        return _SPEEDS.get(termios.tcgetattr(self._slave)[5], 0)

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

    def close(self) -> None:
        """Take the terminal away, as if the board was unplugged; may be called again."""
        for name in ("_master", "_slave"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                setattr(self, name, -1)
                os.close(descriptor)
