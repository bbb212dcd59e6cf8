"""How often the nets of a simulated machine change, and what registers and memories it has.

A simulator that was built with ``activity=True`` writes SAIF: for each bit of each named net the
changes from cycle to cycle, and the cycles in which it was high. The Verilog beside the simulator
says which of the nets are registers, on which clock, and which memories there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from celosia.toolchain import BuildError

__all__ = ["Activity", "Memory", "Register", "Structure", "read_activity", "read_structure"]

TOP = "npu"
CLOCK = re.compile(r"(?:(?P<part>\w+)_)?clk(?:_(?P<own>\w+))?")

_INSTANCE = re.compile(r"\s*\(INSTANCE (\S+)")
_NET = re.compile(r"\s*\((\S+?)(?:\\\[\d+\\\])? \(T0 \d+\) \(T1 (\d+)\) .*\(TC (\d+)\)")
_DURATION = re.compile(r"\(DURATION (\d+)\)")

_NAME = r"(?:\\\S+|[A-Za-z_][\w$]*)"
_MODULE = re.compile(rf"^module ({_NAME}) ?\(.*?^endmodule", re.M | re.S)
_DECLARED = re.compile(rf"^  reg (?:\[(\d+):0\] )?({_NAME}) *(?:= [^;]*)?;", re.M)
_CLOCKED = re.compile(
    rf"^  always @\(posedge ({_NAME}) *\)\n    ({_NAME}) *(?:\[(\d+)(?::(\d+))?\] *)?<=", re.M
)
_MEMORY = re.compile(r"^  reg \[(\d+):0\] memory \[(\d+):0\];", re.M)
_CHILD = re.compile(rf"^  ({_NAME}) +({_NAME}) +\(\n    \.", re.M)


@dataclass
class Activity:
    """Changes of nets during some cycles.

    Attributes
    ----------
    cycles : int
        How many.
    high : dict of str to list of int
        By path, instances and name with ``/`` between: for each bit, the cycles in which it was 1.
    changes : dict of str to int
        By path: how often its bits have changed, all together.
    """

    cycles: int = 0
    high: dict[str, list[int]] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)

    def add(self, other: Activity) -> None:
        """Add the cycles of another run of the same machine."""
        self.cycles += other.cycles
        for name, bits in other.high.items():
            own = self.high.get(name, [0] * len(bits))
            self.high[name] = [mine + more for mine, more in zip(own, bits, strict=True)]
        for name, changes in other.changes.items():
            self.changes[name] = self.changes.get(name, 0) + changes

    def high_cycles(self, path: str, bit: int | None = None) -> int:
        """Return the cycles in which a bit was 1; without a bit, of all bits of the net added up.

        Raises
        ------
        BuildError
            If there is no such net.
        """
        bits = self.high.get(path)
        if bits is None:
            raise BuildError(
                "the activity of the RTL",
                f"it has no net {path}",
                "take a machine with engines, not one of firmware",
            )
        return sum(bits) if bit is None else bits[bit]

    def matching(self, pattern: str) -> Iterator[str]:
        """Yield the paths that a regular expression matches as a whole."""
        wanted = re.compile(pattern)
        return (path for path in self.high if wanted.fullmatch(path))

    def changes_of(self, paths: Iterable[str]) -> int:
        """Return how often the bits of some nets have changed; 0 for nets that are not there."""
        return sum(self.changes.get(path, 0) for path in paths)


@dataclass(frozen=True)
class Register:
    """A register: its path, its width, and the part whose clock it has (``sync``: all cycles)."""

    path: str
    width_bits: int
    clock: str


@dataclass(frozen=True)
class Memory:
    """A memory: the path of the instance that is one, the width of a word, and words."""

    path: str
    width_bits: int
    depth: int

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return self.width_bits * self.depth // 8


@dataclass(frozen=True)
class Structure:
    """What a machine is made of, apart from logic."""

    registers: tuple[Register, ...]
    memories: tuple[Memory, ...]


def read_activity(path: Path) -> Activity:
    """Read what a simulator has counted.

    Parameters
    ----------
    path : Path
        SAIF, one cycle a unit of time.
    """
    result = Activity()
    scopes: list[str] = []
    names: list[str] = []
    prefix = ""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if (net := _NET.match(line)) is not None:
                name = prefix + net[1].replace("\\", "")
                result.high.setdefault(name, []).append(int(net[2]))
                result.changes[name] = result.changes.get(name, 0) + int(net[3])
                continue
            if (instance := _INSTANCE.match(line)) is not None:
                scopes.append("INSTANCE")
                names.append(instance[1])
            elif (duration := _DURATION.match(line)) is not None:
                # Counted from the first to the last of the cycles.
                result.cycles = int(duration[1])
                continue
            elif line.strip() == "(NET":
                scopes.append("NET")
            elif line.strip() == ")" and scopes and scopes.pop() == "INSTANCE":
                names.pop()
            # The outermost is the simulator's own.
            prefix = "".join(f"{name}/" for name in names[1:])
    return result


@cache
def read_structure(verilog: Path) -> Structure:
    """Read the registers and memories of the Verilog that a simulator was made from."""
    modules = {_plain(m[1]): m[0] for m in _MODULE.finditer(verilog.read_text(encoding="utf-8"))}
    registers: list[Register] = []
    memories: list[Memory] = []

    def visit(module: str, path: str) -> None:
        text = modules[module]
        widths = {_plain(name): int(high or 0) + 1 for high, name in _DECLARED.findall(text)}
        for clock, name, high, low in _CLOCKED.findall(text):
            width = widths[_plain(name)] if not high else int(high) - int(low or high) + 1
            registers.append(Register(f"{path}/{_plain(name)}", width, _clock_name(_plain(clock))))
        for high, last in _MEMORY.findall(text):
            memories.append(Memory(path, int(high) + 1, int(last) + 1))
        for kind, name in _CHILD.findall(text):
            if _plain(kind) in modules:
                visit(_plain(kind), f"{path}/{_plain(name)}")

    visit(TOP, TOP)
    return Structure(tuple(registers), tuple(memories))


def _plain(name: str) -> str:
    return name.removeprefix("\\").strip()


def _clock_name(clock: str) -> str:
    found = CLOCK.fullmatch(clock)
    assert found is not None, f"{clock} is no clock's name"
    return found["part"] or found["own"] or "sync"
