"""Ports inside the load and store engines."""

from __future__ import annotations

from amaranth.lib import data
from amaranth.lib.wiring import In, Out, Signature
from celosia.hw.bus.ports import word_addr_bits
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load
from celosia.hw.control.decode import command_layout
from celosia.hw.memory.ports import ADDR_BITS

__all__ = ["TransferPort", "word_layout"]


def word_layout(config: NpuConfig) -> data.StructLayout:
    """Return the layout of one bus word of a transfer.

    ``adr`` is the word's address on the bus, ``sram`` the byte address on chip of its byte 0
    (modulo 2^20), ``banks`` those of the activation SRAM that hold a line from there on, ``mask``
    has a bit for each byte that belongs to the run, ``last`` marks the last word of a run and
    ``final`` that of the transfer. ``space`` is the memory on chip.
    """
    return data.StructLayout(
        {
            "adr": word_addr_bits(config),
            "sram": ADDR_BITS,
            "banks": config.act_banks,
            "mask": config.bus_bytes,
            "last": 1,
            "final": 1,
            "space": 2,
        }
    )


class TransferPort(Signature):
    """Handshake of an engine with its sequencer, seen from the engine.

    Members
    -------
    start : Out(1)
        Begin with `command`; it and the region stay stable while it is `busy`.
    command : Out(command_layout(Load))
        A Store has the same fields.
    region_base, region_size : Out(32)
    busy : In(1)
        Not all runs have been checked. Then words of the last one may still be to come.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": Out(1),
                "command": Out(command_layout(Load)),
                "region_base": Out(32),
                "region_size": Out(32),
                "busy": In(1),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TransferPort)
