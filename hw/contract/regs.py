"""The register map, in one schema.

The CSR gateware, the driver's constants, the C header and ``docs/registers.md`` are derived from
these declarations. Registers are 32 bits wide; addresses are byte offsets in the Wishbone slave.

Pure standard library: the driver imports it without Amaranth.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Region
from celosia.hw.contract.operations import Operation

__all__ = [
    "ACCESS",
    "ErrorCause",
    "IDENTITY",
    "REGISTERS",
    "Register",
    "RegisterField",
    "VERSION",
    "address_of",
    "capability_words",
    "register",
]

IDENTITY = int.from_bytes(b"CELO", "little")
VERSION = 0x0001_0001
"""Version of the hardware interface: major in the high half, minor in the low half."""


class ACCESS(Enum):
    """What a bus access does to a field."""

    R = "read only"
    RW = "read and write"
    RW1C = "read; writing one clears"
    W = "write only: a pulse"


class ErrorCause(IntEnum):
    """What stopped the machine."""

    NONE = 0
    ILLEGAL_OPCODE = 1
    ILLEGAL_FIELD = 2
    ACT_RANGE = 3
    WGT_RANGE = 4
    PARAM_RANGE = 5
    ACC_OVERFLOW = 6
    BANK_CONFLICT = 7
    MEM_WINDOW = 8
    BUS_ERROR = 9
    BUS_TIMEOUT = 10
    WATCHDOG = 11
    FETCH_WINDOW = 12
    TOKEN_OVERFLOW = 13


@dataclass(frozen=True)
class RegisterField:
    """A run of bits in a register."""

    name: str
    offset_bits: int
    width_bits: int
    access: ACCESS
    doc: str


@dataclass(frozen=True)
class Register:
    """A 32-bit register at a byte address."""

    name: str
    address: int
    fields: tuple[RegisterField, ...]
    doc: str


def _whole(name: str, address: int, access: ACCESS, doc: str) -> Register:
    return Register(name, address, (RegisterField("value", 0, 32, access, doc),), doc)


R, RW, RW1C, W = ACCESS.R, ACCESS.RW, ACCESS.RW1C, ACCESS.W
_F = RegisterField

COUNTERS: tuple[tuple[str, str], ...] = (
    ("total", "cycles from the doorbell to the end or the error"),
    ("array_busy", "cycles in which the array took a window"),
    ("array_wait_token", "array had a command that waited for a token"),
    ("array_wait_weights", "array waited for weights to be shifted in"),
    ("array_wait_acc", "array waited for a free accumulator half"),
    ("array_start", "array took up a command or drained"),
    ("vector_busy", "cycles in which the vector engine issued a vector"),
    ("vector_wait_token", "vector engine had a command that waited for a token"),
    ("vector_wait_acc", "vector engine waited for a full accumulator half"),
    ("vector_wait_act", "vector engine waited for a port of the activation SRAM"),
    ("load_busy", "load engine had a command in progress"),
    ("load_wait_token", "load engine had a command that waited for a token"),
    ("store_busy", "store engine had a command in progress"),
    ("bus_read", "bus words read"),
    ("bus_write", "bus words written"),
    ("bus_wait", "a request was on the bus and stalled, or no answer came to one in flight"),
    ("idle", "no engine busy between doorbell and end"),
)
"""Performance counters: 32 bits, cleared by the doorbell, frozen at the end."""

REGISTERS: tuple[Register, ...] = (
    _whole("identity", 0x00, R, "0x4F4C4543: the letters CELO"),
    _whole("version", 0x04, R, "Version of the hardware interface, major.minor"),
    _whole("config_hash", 0x08, R, "Hash of the configuration; a program names the one it needs"),
    Register(
        "capability0",
        0x0C,
        (
            _F("rows", 0, 8, R, "Array rows"),
            _F("cols", 8, 8, R, "Array columns"),
            _F("bus_bytes", 16, 8, R, "Bytes of a bus word"),
            _F("isa_version", 24, 8, R, "Version of the instruction set"),
        ),
        "Sizes of the machine",
    ),
    Register(
        "capability1",
        0x10,
        (
            _F("act_kib", 0, 16, R, "Activation SRAM in KiB"),
            _F("wgt_kib", 16, 16, R, "Weight SRAM in KiB"),
        ),
        "Sizes of the memories",
    ),
    Register(
        "capability2",
        0x14,
        (
            _F("acc_depth", 0, 16, R, "Vectors in an accumulator half"),
            _F("param_kib", 16, 16, R, "Parameter SRAM in KiB"),
        ),
        "Sizes of the memories",
    ),
    Register(
        "capability3",
        0x18,
        tuple(
            _F(operation.name.lower(), int(operation), 1, R, f"It {operation.doc}")
            for operation in Operation
        ),
        "Operations of the vector engine that there are",
    ),
    Register(
        "control",
        0x20,
        (
            _F("soft_reset", 0, 1, W, "Return everything but these registers to its start"),
            _F("sleep", 1, 1, RW, "Stop the clock enables of everything but these registers"),
        ),
        "Control",
    ),
    Register(
        "status",
        0x24,
        (
            _F("busy", 0, 1, R, "A program is running"),
            _F("done", 1, 1, R, "The last program ran to its End"),
            _F("error", 2, 1, R, "The last program was stopped by an error"),
            _F("load_active", 4, 1, R, "Load engine has work"),
            _F("store_active", 5, 1, R, "Store engine has work"),
            _F("array_active", 6, 1, R, "Array has work"),
            _F("vector_active", 7, 1, R, "Vector engine has work"),
        ),
        "Status",
    ),
    Register(
        "doorbell",
        0x28,
        (_F("start", 0, 1, W, "Start fetching at offset 0 of region CODE; ignored while busy"),),
        "Doorbell",
    ),
    Register(
        "irq_enable",
        0x2C,
        (
            _F("done", 0, 1, RW, "Interrupt when a program ends"),
            _F("error", 1, 1, RW, "Interrupt when an error stops a program"),
        ),
        "Interrupt enable",
    ),
    Register(
        "irq_pending",
        0x30,
        (
            _F("done", 0, 1, RW1C, "A program has ended"),
            _F("error", 1, 1, RW1C, "An error has stopped a program"),
        ),
        "Interrupt pending",
    ),
    Register(
        "error_cause",
        0x34,
        (
            _F("cause", 0, 8, R, "ErrorCause"),
            _F("unit", 8, 8, R, "Engine (0 load, 1 store, 2 array, 3 vector, 4 fetch)"),
            _F("tag", 16, 16, R, "Tag of the command in error"),
        ),
        "First error since the doorbell",
    ),
    _whole("error_address", 0x38, R, "Address in error: system memory or on-chip byte"),
    _whole("watchdog", 0x3C, RW, "Cycles that a program may take; 0: no limit"),
    _whole("bus_timeout", 0x40, RW, "Cycles that one bus answer may take; 0: no limit"),
    _whole("scratch", 0x44, RW, "Has no effect; for testing the link"),
    *(
        _whole(
            f"region{region.value}_{part}",
            0x50 + 8 * region + 4 * index,
            RW,
            f"{text} of region {region.name}",
        )
        for region in Region
        for index, (part, text) in enumerate(
            (
                (
                    "base",
                    "Byte address, a multiple of the bus word (else the region has no bytes),",
                ),
                ("size", "Bytes"),
            )
        )
    ),
    *(
        _whole(f"count_{name}", 0x80 + 4 * index, R, doc)
        for index, (name, doc) in enumerate(COUNTERS)
    ),
)
"""Every register, by rising address."""

_BY_NAME = {entry.name: entry for entry in REGISTERS}
assert len(_BY_NAME) == len(REGISTERS)


def register(name: str) -> Register:
    """Return the register called `name` (KeyError if there is none)."""
    return _BY_NAME[name]


def address_of(name: str) -> int:
    """Return the byte address of the register called `name`."""
    return _BY_NAME[name].address


def capability_words(config: NpuConfig) -> tuple[int, int, int, int]:
    """Return the values of capability0 to capability3 for `config`."""
    from celosia.hw.contract.isa import FORMAT_VERSION

    return (
        config.rows | config.cols << 8 | config.bus_bytes << 16 | FORMAT_VERSION << 24,
        config.act_bytes // 1024 | config.wgt_bytes // 1024 << 16,
        config.acc_depth | config.param_bytes // 1024 << 16,
        sum(config.can(operation) << operation for operation in Operation),
    )
