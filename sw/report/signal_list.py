"""The signal list that opens with a waveform in GTKWave: groups, formats, names for people.

The format is that of GTKWave's save files. A line with ``@`` and a hexadecimal number sets flags
for the signals behind it (``analyzer.h`` in GTKWave's sources), ``-`` names a group.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from celosia.hw.contract.isa import Engine
from celosia.hw.contract.regs import COUNTERS

__all__ = ["Signal", "declared_signals", "gtkwave_list"]

HEX, DECIMAL, BIT, TEXT = 0x22, 0x24, 0x28, 0x820
"""Formats, with the value right-justified."""
GROUP_OPEN, GROUP_CLOSED, GROUP_END = 0x800200, 0xC00200, 0x1000200
OWN = "celosia"
"""The scope of the signals that are there beside the RTL's."""
NAMES = ("layer", "command", "tensor")
NUMBERS = ("layer_number", "tag")
SEEN_PIXELS = 800
_SCOPE = re.compile(r"\s*\$scope module (\S+) \$end")
_VARIABLE = re.compile(r"\s*\$var \w+\s+(\d+) \S+ (\S+)(?: (\[\d+:\d+\]))? \$end")


@dataclass(frozen=True)
class Signal:
    """A signal of a waveform.

    Attributes
    ----------
    scope : str
        With dots.
    name : str
    bits : int
    range : str
        As it is declared, for example ``[15:0]``; empty for one bit.
    """

    scope: str
    name: str
    bits: int
    range: str = ""

    @property
    def path(self) -> str:
        """What GTKWave calls it."""
        return f"{self.scope}.{self.name}{self.range}"


def declared_signals(header: str) -> Iterator[Signal]:
    """Yield the signals that the header of a VCD file declares, in order."""
    scopes: list[str] = []
    for line in header.splitlines():
        if match := _SCOPE.match(line):
            scopes.append(match[1])
        elif line.strip().startswith("$upscope"):
            scopes.pop()
        elif match := _VARIABLE.match(line):
            yield Signal(".".join(scopes), match[2], int(match[1]), match[3] or "")


def gtkwave_list(path: Path, header: str, cycles: int) -> str:
    """Return the save file for a waveform, with the groups whose signals it has.

    Parameters
    ----------
    path : Path
        Of the waveform.
    header : str
        Its declarations, as VCD has them.
    cycles : int
        About so many are to be seen at first.
    """
    scopes: dict[str, dict[str, Signal]] = {}
    for signal in declared_signals(header):
        # A module's ports are declared twice, as the top level's and as its own.
        scopes.setdefault(signal.scope, {}).setdefault(signal.name, signal)
    lines = [
        f'[dumpfile] "{path.name}"',
        f'[savefile] "{path.with_suffix(".gtkw").name}"',
        "[timestart] 0",
        # Each step of the zoom halves what is seen; then the marker and 26 with names.
        f"*{-math.log2(max(cycles / SEEN_PIXELS, 1)):f}" + " -1" * 27,
        "[size] 1500 1000",
        "[sst_width] 250",
        "[signals_width] 300",
    ]
    lines += _signals((signal, "") for signal in scopes.get(OWN, {}).values())
    for engine in Engine:
        name = engine.name.lower()
        own = scopes.get(f"{OWN}.{name}", {})
        lines += _group(name, [(signal, "") for signal in own.values()])
    for title, closed, entries in (
        ("bus", False, _bus(scopes)),
        ("dispatcher", True, _dispatcher(scopes)),
        ("counters", True, _counters(scopes)),
    ):
        lines += _group(title, entries, closed=closed)
    return "\n".join(lines) + "\n"


Entry = tuple[Signal, str]
"""A signal, and the name that it is shown by; empty: its own."""


def _bus(scopes: dict[str, dict[str, Signal]]) -> list[Entry]:
    """Return what the bus does in words, and its wires."""
    wires = [
        (signal, "")
        for scope, signals in scopes.items()
        for name, signal in signals.items()
        if "." not in scope and name.startswith("bus__")
    ]
    return [(signal, "") for signal in scopes.get(f"{OWN}.bus", {}).values()] + wires


DISPATCHER = {
    "core.frontend.fetch": ("active", "commands_left", "starved"),
    "core.frontend.dispatch": ("active", "tag", "fsm_state", "starved"),
    "core.frontend": ("wait_token", "moves", "done"),
    "core.frontend.queues": ("active", "begun"),
}
"""Signals by the end of their scope, where a machine has them."""


def _dispatcher(scopes: dict[str, dict[str, Signal]]) -> list[Entry]:
    entries: list[Entry] = []
    for ending, names in DISPATCHER.items():
        for scope, signals in scopes.items():
            if scope.endswith(f".{ending}"):
                part = ending.rpartition(".")[2]
                entries += [(signals[name], f"{part} {name}") for name in names if name in signals]
    for scope, signals in scopes.items():
        if scope.endswith(".core.frontend.dispatch"):
            for engine in Engine:
                for wire in ("valid", "ready"):
                    signal = signals.get(f"queues__{int(engine)}__{wire}")
                    if signal is not None:
                        entries.append((signal, f"to {engine.name.lower()} {wire}"))
    return entries


def _counters(scopes: dict[str, dict[str, Signal]]) -> list[Entry]:
    """Return the performance counters: of a machine that has them in a memory, only the first."""
    for scope, signals in scopes.items():
        if scope.endswith(".control.counters"):
            names = [name for name, _ in COUNTERS]
            if "total" in signals:
                return [(signals["total"], "total")]
            return [
                (signals[f"values__{place}"], name)
                for place, name in enumerate(names)
                if f"values__{place}" in signals
            ]
    return []


def _group(title: str, entries: list[Entry], *, closed: bool = False) -> list[str]:
    if not entries:
        return []
    begin, end = (GROUP_CLOSED, GROUP_END | 0x400000) if closed else (GROUP_OPEN, GROUP_END)
    return [f"@{begin:x}", f"-{title}", *_signals(entries), f"@{end:x}", f"-{title}"]


def _signals(entries: Iterable[Entry]) -> list[str]:
    lines: list[str] = []
    flags = 0
    for signal, name in entries:
        wanted = _format(signal)
        if wanted != flags:
            lines.append(f"@{wanted:x}")
            flags = wanted
        lines.append(f"+{{{name}}} {signal.path}" if name else signal.path)
    return lines


def _format(signal: Signal) -> int:
    if signal.scope.split(".")[0] == OWN:
        if signal.name in NAMES:
            return TEXT
        if signal.name in NUMBERS:
            return DECIMAL
    if signal.bits == 1:
        return BIT
    return DECIMAL if signal.name == "total" or signal.name.startswith("values__") else HEX
