"""The pseudo-terminal: what nobody reads is lost or waited for, and what is missing is said."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
from celosia.errors import DeviceError
from celosia.sim.board.pty_line import PtyLine

pytest.importorskip("termios", reason="this system has no pseudo-terminals")

LONG = bytes(range(256)) * 1024
"""More than the buffer of a terminal."""
PAUSE_S = 0.2


def read_slowly(path: str, count: int) -> bytes:
    """Return what comes over a terminal, of which nothing is read at first."""
    time.sleep(PAUSE_S)
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
    data = b""
    try:
        while len(data) < count:
            data += os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    return data


def test_write_all_waits_for_the_reader() -> None:
    with PtyLine() as line:
        seen: list[bytes] = []
        reader = threading.Thread(
            target=lambda: seen.append(read_slowly(line.path, len(LONG))), daemon=True
        )
        reader.start()
        line.write_all(LONG)
        reader.join(10)
        assert seen == [LONG]


def test_write_does_not_wait() -> None:
    with PtyLine() as line:
        line.write(LONG)
        line.write(b"lost")
        descriptor = os.open(line.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            first = os.read(descriptor, len(LONG))
        finally:
            os.close(descriptor)
        assert LONG.startswith(first)


def test_both_ends_and_the_rate() -> None:
    import termios

    with PtyLine() as line:
        assert line.read() == b""
        descriptor = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
        settings = termios.tcgetattr(descriptor)
        settings[4] = settings[5] = termios.B57600
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        os.write(descriptor, b"hello\n\x03")
        os.close(descriptor)
        assert line.read(1.0) == b"hello\n\x03"
        assert line.baud == 57600
    line.close()


def test_a_system_without_terminals_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tty", "termios"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match=r"pseudo-terminal.*has none.*Linux"):
        PtyLine()
