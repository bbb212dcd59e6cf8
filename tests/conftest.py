"""What holds for all tests."""

from __future__ import annotations

import os
import signal

# Where pytest runs several processes, readline has told them the width of a terminal.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


def pytest_configure() -> None:
    """Let programs that the tests start be ended by Ctrl-C, wherever the tests run.

    A shell without job control starts what it puts into the background with this signal ignored
    (POSIX, Shell Command Language, 2.11), and every program after it inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
