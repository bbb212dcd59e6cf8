"""The configuration of one NPU: everything that gateware, compiler and emulator must agree on.

Pure standard library: the compiler and the driver import it without Amaranth.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property

from celosia.errors import CelosiaError
from celosia.hw.contract.operations import OPERATIONS, Operation
from celosia.hw.contract.parts import COMPACT, FULL, LEAN, Part
from celosia.quantities import KIB

__all__ = [
    "ACT_BANKS",
    "FIRMWARE_OPERATIONS",
    "ConfigError",
    "NpuConfig",
    "PRESETS",
    "differences",
    "preset",
]


MAX_BEATS = 16
"""Cycles that the vector engine may take for a vector at most."""

FIRMWARE_OPERATIONS = tuple(
    name for name in OPERATIONS if name not in ("MUL", "SQUARED_DIFFERENCE", "PAIR", "SPREAD")
)
"""What there is firmware for."""

MAX_FIRMWARE_QUEUE = 8
"""Commands in an engine's queue that the firmware has room for, at most."""

ACT_BANKS = 4
"""Banks of the activation SRAM, whatever the configuration."""


class ConfigError(CelosiaError, ValueError):
    """A configuration that no hardware can be generated for."""


def _impossible(cause: str) -> ConfigError:
    return ConfigError("configuration", cause, "give a value that it takes")


def _names_of(what: str, given: object, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the known names that are given, in their order."""
    names = list(given) if isinstance(given, (tuple, list, set, frozenset)) else [given]
    for name in names:
        if name not in known:
            raise _impossible(f"{what} names of {', '.join(known)}, not {name!r}")
    return tuple(name for name in known if name in names)


_SIZES = (
    "act_bytes",
    "wgt_bytes",
    "param_bytes",
    "acc_depth",
    "queue_depth",
    "max_outstanding",
)


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _is_size(field: str, value: int) -> bool:
    """Return whether a memory can have this size; nothing wraps in that of the weights."""
    if field == "wgt_bytes" and value % 3 == 0:
        value //= 3
    return _is_power_of_two(value)


@dataclass(frozen=True, kw_only=True)
class NpuConfig:
    """Parameters of one NPU instance.

    Parameters
    ----------
    name : str
        For people; not part of :attr:`hash`.
    rows, cols : int
        Array rows (reduction) and columns (output channels). Equal, a power of two, 4 to 32.
        The *line*, the unit of every on-chip memory, is ``rows`` bytes.
    bus_bits : int
        Width of the Wishbone master, 32, 64 or 128 bits; at most one line.
    act_bytes : int
        Activation SRAM, in :attr:`act_banks` line-interleaved banks. A power of two.
    wgt_bytes : int
        Weight SRAM. A power of two, or three times one.
    param_bytes : int
        Per-channel parameters (bias, multiplier, shift). A power of two.
    acc_depth : int
        Vectors of ``cols`` int32 in each half of the accumulator. A power of two.
    queue_depth : int
        Commands that each engine's queue can hold.
    max_outstanding : int
        Bus reads in flight at once.
    lanes : int or None
        Channels that the vector engine works on in a cycle, a power of two from ``cols / 16`` to
        ``cols``; None: all of a vector's. With fewer a vector takes several cycles,
        :attr:`vector_beats`.
    compact : bool or tuple of str
        True: the small variant of every part; spend cycles to save flip-flops and tables
        (docs/parts.md). Or the names of those :class:`celosia.hw.contract.parts.Part` that are
        small. Results are the same.
    operations : tuple of str
        Names of :class:`celosia.hw.contract.operations.Operation`, in any order: what the vector
        engine can do. What nobody needs is left out of the hardware, if it has hardware of its own.
        With firmware all of them stands for all that there is firmware for.
    firmware : bool
        A processor with firmware in place of the engines: the smallest machine, and the slowest
        (docs/firmware.md). Results are the same. For 4 rows and a bus of 32 bits.

    Raises
    ------
    ConfigError
        Naming the parameter, the value it got and the values it takes.
    """

    name: str = "custom"
    rows: int = 8
    cols: int = 8
    bus_bits: int = 64
    act_bytes: int = 64 * KIB
    wgt_bytes: int = 32 * KIB
    param_bytes: int = 8 * KIB
    acc_depth: int = 512
    queue_depth: int = 16
    max_outstanding: int = 16
    lanes: int | None = None
    compact: bool | tuple[str, ...] = False
    operations: tuple[str, ...] = OPERATIONS
    firmware: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise _impossible(f"name must be a text, not {self.name!r}")
        for field in ("rows", "cols", "bus_bits", *_SIZES, "lanes"):
            value = getattr(self, field)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole and (field != "lanes" or value is not None):
                raise _impossible(f"{field} must be a whole number, not {value!r}")
        if self.rows not in (4, 8, 16, 32):
            raise _impossible(f"rows must be 4, 8, 16 or 32, not {self.rows!r}")
        if self.cols != self.rows:
            raise _impossible(
                f"cols must equal rows ({self.rows}), not {self.cols!r}: one line of the"
                " activation SRAM is both a window of the array and a vector of outputs"
            )
        if self.bus_bits not in (32, 64, 128):
            raise _impossible(f"bus_bits must be 32, 64 or 128, not {self.bus_bits!r}")
        if self.bus_bytes > self.line_bytes:
            raise _impossible(
                f"bus_bits must be at most one line ({8 * self.line_bytes} bits with"
                f" rows={self.rows}), not {self.bus_bits!r}"
            )
        for field, low, high in (
            ("act_bytes", 16 * self.line_bytes, 1 << 20),
            ("wgt_bytes", 2 * self.rows * self.line_bytes, 1 << 20),
            ("param_bytes", 32 * self.line_bytes, 1 << 20),
            ("acc_depth", 16, 4096),
            ("queue_depth", 2, 64),
            ("max_outstanding", 2, 64),
        ):
            value = getattr(self, field)
            if not _is_size(field, value) or not low <= value <= high:
                thrice = ", or three times one," if field == "wgt_bytes" else ""
                raise _impossible(
                    f"{field} must be a power of two{thrice} from {low} to {high}, not {value!r}"
                )
        if self.lanes is not None:
            # The scratch memories hold 16 beats: one vector at least.
            fewest = max(1, self.cols // MAX_BEATS)
            if not _is_power_of_two(self.lanes) or not fewest <= self.lanes <= self.cols:
                raise _impossible(
                    f"lanes must be a power of two from {fewest} to {self.cols} (cols), or None,"
                    f" not {self.lanes!r}"
                )
        self._check_parts()
        if not isinstance(self.firmware, bool):
            raise _impossible(f"firmware must be true or false, not {self.firmware!r}")
        self._check_operations()
        if self.firmware and (self.rows, self.bus_bits) != (4, 32):
            raise _impossible(
                "firmware must be false, unless rows is 4 and bus_bits is 32, not"
                f" {self.rows} and {self.bus_bits}"
            )
        if self.firmware and self.queue_depth > MAX_FIRMWARE_QUEUE:
            raise _impossible(
                f"queue_depth must be at most {MAX_FIRMWARE_QUEUE} with firmware, not"
                f" {self.queue_depth!r}: its data memory has no room for more"
            )

    def _check_parts(self) -> None:
        if isinstance(self.compact, bool):
            return
        known = tuple(part.name for part in Part)
        ordered = _names_of("compact must be true or false, or", self.compact, known)
        for name in ordered:
            for need in Part[name].value.needs:
                if need not in ordered:
                    raise _impossible(f"compact must have {need} as well: {name} needs it")
        whole = len(ordered) == len(known)
        object.__setattr__(self, "compact", whole if whole or not ordered else ordered)

    def _check_operations(self) -> None:
        ordered = _names_of("operations must be", self.operations, OPERATIONS)
        if self.firmware:
            lacking = [name for name in ordered if name not in FIRMWARE_OPERATIONS]
            if ordered == OPERATIONS:
                ordered = FIRMWARE_OPERATIONS
            elif lacking:
                raise _impossible(
                    f"operations must be without {', '.join(lacking)} with firmware: its memory of"
                    " instructions has no room for more"
                )
        # Without it nothing gets out of the array.
        if Operation.REQUANT.name not in ordered:
            raise _impossible("operations must have REQUANT: it takes what the array has summed up")
        object.__setattr__(self, "operations", ordered)

    def can(self, operation: Operation) -> bool:
        """Return whether the machine has an operation."""
        return operation.name in self.operations

    @property
    def parts(self) -> frozenset[Part]:
        """Parts of the machine that are small, not fast: those that `compact` says."""
        if isinstance(self.compact, bool):
            return COMPACT if self.compact else FULL
        return frozenset(Part[name] for name in self.compact)

    @property
    def line_bytes(self) -> int:
        """Bytes of a line: the window that the array reads and the vector that is written."""
        return self.rows

    @property
    def bus_bytes(self) -> int:
        """Bytes of a bus word."""
        return self.bus_bits // 8

    @property
    def act_banks(self) -> int:
        """Line-interleaved banks of the activation SRAM: three kernel rows in one cycle."""
        return ACT_BANKS

    @property
    def act_lines(self) -> int:
        """Lines of the activation SRAM."""
        return self.act_bytes // self.line_bytes

    @property
    def wgt_lines(self) -> int:
        """Lines of the weight SRAM."""
        return self.wgt_bytes // self.line_bytes

    @property
    def param_lines(self) -> int:
        """Lines of the parameter SRAM."""
        return self.param_bytes // self.line_bytes

    @property
    def vector_lanes(self) -> int:
        """Channels that the vector engine works on in a cycle."""
        return self.cols if self.lanes is None else self.lanes

    @property
    def vector_beats(self) -> int:
        """Cycles that the vector engine takes for a vector of :attr:`cols` channels."""
        return self.cols // self.vector_lanes

    @property
    def min_pass_cycles(self) -> int:
        """Cycles from pass to pass at least: weights go in two rows a cycle, or one, directly
        (docs/machine.md)."""
        direct = Part.DIRECT_WEIGHTS in self.parts
        return max(self.rows if direct else self.rows // 2 + 1, 4)

    @property
    def dw_segments(self) -> int:
        """Kernel rows of a depthwise convolution that one pass covers: :meth:`segment_taps` each.

        One in a compact machine: the ways for more are a thirtieth of it, and images whose rows
        may have any length need less memory.
        """
        return 1 if Part.ONE_SEGMENT in self.parts else min(3, (self.rows + 1) // 3)

    def segment_taps(self, segment: int) -> int:
        """Return the taps of a kernel row in mode ROWS: three, or what rows of the array are left.

        With 8 rows the third kernel row has two: a tap of every second pixel and one behind.
        """
        return min(3, self.rows - 3 * segment)

    @property
    def joins_rows(self) -> bool:
        """Whether a window may end in the next input row (mode JOINED): it takes four lines."""
        return not self.firmware and Part.ONE_SEGMENT not in self.parts

    @property
    def macs_per_cycle(self) -> int:
        """Multipliers of the array: with firmware it does a row of weights at a time."""
        return self.cols if self.firmware else self.rows * self.cols

    @cached_property
    def hash(self) -> int:
        """CRC-32 of every field that changes the hardware; a program names it."""
        fields = asdict(self)
        del fields["name"]
        return zlib.crc32(json.dumps(fields, sort_keys=True).encode())

    def with_(self, **changes: int | str | tuple[str, ...] | None) -> NpuConfig:
        """Copy with some fields changed and, unless it is given, the name ``custom``."""
        changes.setdefault("name", "custom")
        return replace(self, **changes)  # type: ignore[arg-type]


def _all_but(*fast: Part) -> tuple[str, ...]:
    """Return the names of all parts but those that are to be fast."""
    return tuple(part.name for part in Part if part not in fast)


PRESETS: dict[str, NpuConfig] = {
    config.name: config
    for config in (
        NpuConfig(
            name="nano",
            rows=4,
            cols=4,
            bus_bits=32,
            act_bytes=32 * KIB,
            wgt_bytes=16 * KIB,
            param_bytes=4 * KIB,
            acc_depth=128,
            queue_depth=4,
            firmware=True,
        ),
        NpuConfig(
            name="tiny",
            rows=8,
            cols=8,
            bus_bits=32,
            act_bytes=16 * KIB,
            wgt_bytes=8 * KIB,
            param_bytes=4 * KIB,
            acc_depth=256,
            queue_depth=8,
            max_outstanding=16,
            lanes=2,
            compact=True,
        ),
        NpuConfig(name="base", acc_depth=256, compact=tuple(part.name for part in LEAN)),
        NpuConfig(
            name="wide",
            rows=16,
            cols=16,
            act_bytes=128 * KIB,
            wgt_bytes=192 * KIB,
            param_bytes=8 * KIB,
            acc_depth=256,
            lanes=8,
            compact=_all_but(
                Part.DIRECT_WEIGHTS,
                Part.ONE_SEGMENT,
                Part.COMBINATIONAL_PRODUCTS,
                Part.SINGLE_STEPS,
                Part.PLAIN_STAGES,
                Part.PLAIN_ERRORS,
            ),
        ),
        NpuConfig(
            name="large",
            rows=16,
            cols=16,
            bus_bits=128,
            act_bytes=128 * KIB,
            wgt_bytes=64 * KIB,
            param_bytes=8 * KIB,
            acc_depth=512,
        ),
    )
}
"""The named presets, smallest first."""


def preset(name: str) -> NpuConfig:
    """Return the preset called `name`.

    Raises
    ------
    ConfigError
        With the names there are.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(
            "configuration", f"no preset {name!r}; there are {', '.join(PRESETS)}", "name one"
        ) from None


def differences(found: NpuConfig, wanted: NpuConfig, instead: str = "not") -> list[str]:
    """Say what a machine has otherwise than it should: the fields that differ, and no others.

    Parameters
    ----------
    found, wanted : NpuConfig
        Their names are no difference.
    instead : str
        Comes before what is wanted.

    Returns
    -------
    list of str
        For example ``bus_bits is 32, not 64``; of operations those that only one has.
    """
    texts = []
    for field in fields(NpuConfig):
        ours, theirs = getattr(found, field.name), getattr(wanted, field.name)
        if field.name == "lanes":
            ours, theirs = found.vector_lanes, wanted.vector_lanes
        if field.name == "name" or ours == theirs:
            continue
        if field.name == "operations":
            for word, some, others in (("lacks", theirs, ours), ("also has", ours, theirs)):
                if only := [name for name in some if name not in others]:
                    texts.append(f"it {word} {' and '.join(only)}")
        else:
            texts.append(f"{field.name} is {ours}, {instead} {theirs}")
    return texts
