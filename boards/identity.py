"""What a build says of itself: names, sizes, and where it comes from."""

from __future__ import annotations

import subprocess
import zlib
from pathlib import Path
from types import ModuleType

from celosia import boards, hw
from celosia.boards.board import Board
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.uart import Identity

__all__ = ["identity_of", "revision_of"]

REVISION_DIGITS = 16
GIT_TIME_OUT_S = 20.0
PACKAGES = (hw, boards)


def identity_of(board: Board, config: NpuConfig, *, clock_hz: int, memory_bytes: int) -> Identity:
    """Return the identification of a build.

    Its `build` is the CRC-32 of all sources of gateware and boards and of what was asked for, so
    equal builds have equal numbers and others most likely have not.
    """
    crc = zlib.crc32(
        f"{board.name} {config.hash:08x} {clock_hz} {board.memory.kind} {memory_bytes}".encode()
    )
    for package in PACKAGES:
        folder = _folder(package)
        for source in sorted(folder.rglob("*.py")):
            crc = zlib.crc32(str(source.relative_to(folder)).encode(), crc)
            crc = zlib.crc32(source.read_bytes(), crc)
    revision, dirty = revision_of(_folder(PACKAGES[0]))
    return Identity(
        board=board.name,
        clock_hz=clock_hz,
        memory_bytes=memory_bytes,
        build=crc,
        revision=revision,
        dirty=dirty,
    )


def revision_of(folder: Path) -> tuple[str, bool]:
    """Return git's revision of a folder, shortened, and whether the tree has changes.

    The revision is empty where the folder is not in a checkout, or git is not installed.
    """
    # A folder that is ignored or installed somewhere inside another checkout is not its source.
    if not _git(folder, "ls-files", "--", "__init__.py"):
        return "", False
    revision = _git(folder, "rev-parse", "HEAD")
    if not revision:
        return "", False
    changes = _git(folder, "--no-optional-locks", "status", "--porcelain")
    return revision[:REVISION_DIGITS], bool(changes)


def _git(folder: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=GIT_TIME_OUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _folder(package: ModuleType) -> Path:
    return Path(str(package.__file__)).parent
