"""Where the benchmark's runner finds the device: a pseudo-terminal, or a serial port."""

from __future__ import annotations

import errno
import os
import select
from types import TracebackType
from typing import Self

from celosia.sw.errors import DeviceError

__all__ = ["PseudoTerminal"]

READ_BYTES = 4096


class PseudoTerminal:
    """A terminal that other programs open by its path.

    Attributes
    ----------
    path : str
        For the other program.

    Raises
    ------
    DeviceError
        If the system has none.
    """

    def __init__(self) -> None:
        try:
            import pty
            import tty
        except ImportError:
            raise DeviceError(
                "pseudo-terminal", "this system has none", "use Linux or macOS"
            ) from None
        self._own, self._other = pty.openpty()
        # Kept open: the runner opens, closes and opens it again.
        tty.setraw(self._own)
        tty.setraw(self._other)
        self.path = os.ttyname(self._other)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the terminal away; may be called again."""
        for name in ("_own", "_other"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def read(self, timeout_s: float) -> bytes:
        """Return what has come, or nothing after `timeout_s`."""
        ready, _, _ = select.select([self._own], [], [], timeout_s)
        if not ready:
            return b""
        try:
            return os.read(self._own, READ_BYTES)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise

    def write(self, data: bytes) -> None:
        """Send all of `data`; waits while the other program does not read."""
        while data:
            data = data[os.write(self._own, data) :]
