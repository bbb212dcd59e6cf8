"""Which simulated boards are being served at pseudo-terminals, on this machine and by this user.

A serving process leaves a record, a small file in the cache folder, and removes it at its end. A
record whose process has been killed is recognised and dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from celosia.schema import SchemaError, build, parse
from celosia.sim.rtl.verilator import cache_folder

__all__ = ["Terminal", "recorded", "simulated_terminals"]

FOLDER = "terminals"
MAX_RECORD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """A terminal behind which a simulated board is.

    Attributes
    ----------
    path : str
    board : str
        The board's name.
    pid : int
        The process that serves it.
    """

    path: str
    board: str
    pid: int


@contextlib.contextmanager
def recorded(path: str, board: str) -> Iterator[None]:
    """Let others know of a terminal while this process serves it.

    Where the record cannot be written the board is served all the same, and not listed.
    """
    terminal = Terminal(path=path, board=board, pid=os.getpid())
    # A process may serve several, and they come and go: the terminal's name tells them apart.
    record = _folder() / f"{terminal.pid}-{path.strip('/').replace('/', '-')}.json"
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        # Who looks meanwhile would drop a record that is half written.
        part = record.with_suffix(".part")
        part.write_text(json.dumps(asdict(terminal)), encoding="utf-8")
        part.replace(record)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            record.unlink(missing_ok=True)


def simulated_terminals() -> list[Terminal]:
    """Return the terminals that are served now; records of ended processes are deleted."""
    found = []
    with contextlib.suppress(OSError):
        for record in sorted(_folder().glob("*.json")):
            terminal = _read(record)
            if terminal is not None and _is_served(terminal):
                found.append(terminal)
            else:
                with contextlib.suppress(OSError):
                    record.unlink(missing_ok=True)
    return found


def _folder() -> Path:
    return cache_folder() / FOLDER


def _read(record: Path) -> Terminal | None:
    try:
        with open(record, "rb") as file:
            return build(Terminal, parse(file.read(MAX_RECORD_BYTES), ""), "")
    except (OSError, SchemaError):
        return None


def _is_served(terminal: Terminal) -> bool:
    """Whether the process is there, and the terminal: either's name may have a new owner."""
    try:
        os.kill(terminal.pid, 0)
        return terminal.pid > 0 and stat.S_ISCHR(os.stat(terminal.path).st_mode)
    except (OSError, OverflowError, ValueError):
        return False
