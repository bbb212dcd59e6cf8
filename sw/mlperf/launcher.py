"""Starts the public runner of MLPerf Tiny, unmodified, with a port for it to find.

This file is run in a process of its own, by its path: it imports nothing of Celosia. The runner
looks for its device among the serial ports by USB vendor and product, and among USB devices. Both
questions are answered here: with the one port that is given, which may be a pseudo-terminal, and
with no device. An energy meter, whose package it imports in every mode, is not there either.

Arguments: the port, vendor and product in hexadecimal, the runner's ``main.py``, and its own.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Run ``main.py`` as if its folder was where it was started."""
    port, vendor, product, script = sys.argv[1:5]
    _offer_port(port, int(vendor, 16), int(product, 16))
    _offer_no_usb()
    _offer_no_meter()
    sys.argv = [script, *sys.argv[5:]]
    # In place of the folder of this file.
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


def _offer_port(path: str, vendor: int, product: int) -> None:
    from serial.tools import list_ports
    from serial.tools.list_ports_common import ListPortInfo

    def comports(include_links: bool = False) -> list[ListPortInfo]:
        info = ListPortInfo(path)
        info.vid, info.pid = vendor, product
        info.description = "Celosia"
        return [info]

    list_ports.__dict__["comports"] = comports


def _offer_no_usb() -> None:
    """Answer ``usb.core.find``, also where pyusb or what it needs of the system is missing."""

    def find(find_all: bool = False, **which: Any) -> Iterator[Any] | None:
        return iter(()) if find_all else None

    try:
        core = importlib.import_module("usb.core")
    except ImportError:
        package, core = ModuleType("usb"), ModuleType("usb.core")
        package.__dict__["core"] = core
        sys.modules |= {"usb": package, "usb.core": core}
    core.__dict__["find"] = find


def _offer_no_meter() -> None:
    """Answer ``joulescope.scan`` where the package is missing."""
    try:
        importlib.import_module("joulescope")
    except ImportError:
        meter = ModuleType("joulescope")
        meter.__dict__["scan"] = list
        sys.modules["joulescope"] = meter


if __name__ == "__main__":
    main()
