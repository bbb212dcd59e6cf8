"""Takes the pictures of the report that the documents show; ``make screenshots`` runs it.

A browser without a window opens what ``celosia report`` writes. Another browser, or other fonts,
give another picture: no test compares them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from celosia.errors import CelosiaError
from celosia.sw.docgen.sources import Sources

__all__ = ["browser_command", "find_browser", "main"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
TIME_OUT_S = 120
DARK = "--blink-settings=preferredColorScheme=0"


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes
    ----------
    name : str
        Of the file below ``docs``.
    width, height : int
        What is seen of the page.
    options : tuple of str
        Of the browser.
    """

    name: str
    width: int
    height: int
    options: tuple[str, ...] = ()


PICTURES = (
    Picture("report_light.png", 1180, 1320),
    Picture("report_dark.png", 1180, 1320, (DARK,)),
)


def find_browser() -> str | None:
    """Return the path of a browser that works without a window, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def browser_command(browser: str, folder: Path, *options: str) -> list[str]:
    """Return how a browser is started without a window, a network and a trace.

    Parameters
    ----------
    browser : str
        From `find_browser`.
    folder : Path
        Where it may leave its own files.
    *options : str
        What it shall do, and the page.
    """
    return [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={folder}",
        *options,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a report and take its pictures."""
    parser = argparse.ArgumentParser(description="Take the pictures of the report below docs/.")
    parser.add_argument("model", nargs="?", type=Path, help="default: kws_int8.tflite")
    model: Path | None = parser.parse_args(arguments).model
    root = Path(__file__).resolve().parents[2]
    browser = find_browser()
    if browser is None:
        raise CelosiaError("screenshots", "there is no browser", "apt install chromium")
    with tempfile.TemporaryDirectory(prefix="celosia-") as name:
        folder = Path(name)
        page = folder / "report.html"
        celosia = str(Path(sys.executable).with_name("celosia"))
        source = model or Sources(root).model("kws_int8")
        _run([celosia, "report", str(source), "-o", str(page)])
        for picture in PICTURES:
            target = root / "docs" / picture.name
            options = (
                *picture.options,
                "--hide-scrollbars",
                f"--window-size={picture.width},{picture.height}",
                f"--screenshot={folder / picture.name}",
                page.as_uri(),
            )
            _run(browser_command(browser, folder / "browser", *options))
            shutil.copyfile(folder / picture.name, target)
            print(target.relative_to(root))


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_OUT_S, check=False)
    if done.returncode:
        raise CelosiaError(" ".join(command[:2]), done.stderr.strip(), "see what it says")


if __name__ == "__main__":
    main()
