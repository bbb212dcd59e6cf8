"""Opens a page in a browser without a window, and returns what has become of it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from celosia.sw.docgen.screenshots import browser_command, find_browser

__all__ = ["Opened", "needs_browser", "open_page"]

BROWSER = find_browser()
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="there is no browser to show the page: apt install chromium"
)
TIMEOUT_S = 60


@dataclass(frozen=True)
class Opened:
    """A page after its scripts have run.

    Attributes
    ----------
    document : str
        HTML of what they have made of it.
    complaints : list of str
        What the browser's console says.
    """

    document: str
    complaints: list[str]


def open_page(page: Path, folder: Path) -> Opened:
    """Open a file.

    Parameters
    ----------
    page : Path
        The file.
    folder : Path
        Where the browser may leave its own files.
    """
    assert BROWSER is not None
    options = ("--enable-logging=stderr", "--window-size=1280,900", "--dump-dom")
    command = browser_command(BROWSER, folder, *options, page.resolve().as_uri())
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S, check=True
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Opened(done.stdout, complaints)
