"""Ports between the parts that use system memory and the bus arbiter."""

from __future__ import annotations

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature
from celosia.hw.bus.wishbone import Wishbone
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Region

__all__ = [
    "REGION_TABLE",
    "MemPort",
    "initiator_signature",
    "request_layout",
    "word_addr_bits",
]

REGION_TABLE = data.ArrayLayout(data.StructLayout({"base": 32, "size": 32}), len(Region))
"""Base (byte address, a multiple of the bus word) and size (bytes) of every region."""


def word_addr_bits(config: NpuConfig) -> int:
    """Return the width of a word address on the bus."""
    return 32 - (config.bus_bytes.bit_length() - 1)


def initiator_signature(config: NpuConfig) -> Wishbone:
    """Return the signature of the machine's pipelined Wishbone initiator."""
    return Wishbone(
        addr_width=word_addr_bits(config),
        data_width=config.bus_bits,
        features=("err", "stall", "cti", "bte"),
    )


def request_layout(config: NpuConfig) -> data.StructLayout:
    """Return the layout of one request.

    ``adr`` is a word address, ``last`` ends a burst: without it the next request of the same
    port is for the next word.
    """
    return data.StructLayout(
        {
            "adr": word_addr_bits(config),
            "we": 1,
            "dat_w": config.bus_bits,
            "sel": config.bus_bytes,
            "last": 1,
        }
    )


class MemPort(Signature):
    """Access to system memory, seen from the part that uses it.

    Every request is answered by one cycle of ``ack``, in order. There is no back-pressure on the
    answers: who asks must have room. After a bus error there are no more answers.

    Members
    -------
    request : Out(stream of request_layout)
    ack : In(1)
        The oldest unanswered request is complete.
    dat_r : In(bus_bits)
        What it read.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "request": Out(stream.Signature(request_layout(config))),
                "ack": In(1),
                "dat_r": In(config.bus_bits),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemPort) and self.members == other.members
