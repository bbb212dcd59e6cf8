"""The whole firmware, assembled for a configuration."""

from __future__ import annotations

from functools import cache

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.operations import Operation
from celosia.hw.contract.regs import IDENTITY, REGISTERS, VERSION, address_of, capability_words
from celosia.hw.nano.assembler import Assembler, Image
from celosia.hw.nano.firmware.conv import Convolutions
from celosia.hw.nano.firmware.schedule import Scheduler
from celosia.hw.nano.firmware.shared import Shared
from celosia.hw.nano.firmware.softmax import Softmaxes
from celosia.hw.nano.firmware.transfer import Transfers
from celosia.hw.nano.firmware.vector import Vectors

__all__ = ["firmware"]

WORD_BYTES = 4


@cache
def firmware(config: NpuConfig) -> Image:
    """Return the firmware of a configuration.

    The lowest words of data are the registers, at their word addresses.

    Raises
    ------
    ValueError
        If it does not fit the processor's memories.
    """
    a = Assembler(first_word=1 + max(entry.address for entry in REGISTERS) // WORD_BYTES)
    for name, value in (
        ("identity", IDENTITY),
        ("version", VERSION),
        ("config_hash", config.hash),
        *((f"capability{index}", word) for index, word in enumerate(capability_words(config))),
    ):
        a.place(name, address_of(name) // WORD_BYTES, value)
    shared = Shared(a, config)
    scheduler = Scheduler(shared)
    scheduler.emit()
    Transfers(shared).emit()
    Convolutions(shared, scheduler.queues).emit()
    Vectors(shared, scheduler.queues).emit()
    if config.can(Operation.SOFTMAX):
        Softmaxes(shared).emit()
    shared.emit_reserved()
    shared.emit_fails()
    return a.image()
