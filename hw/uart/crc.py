"""The checksum of frames and of memory: CRC-32 as in Ethernet, zlib and PNG.

Polynomial 0x04C11DB7, reflected, initial value and final complement all ones (CRC-32/ISO-HDLC).
Bit by bit, as in Peterson and Brown, "Cyclic Codes for Error Detection", Proceedings of the IRE
49(1), 1961: a character lasts 40 clocks at least, and a byte at a time takes four times the logic.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["CRC_BITS", "SerialCrc"]

CRC_BITS = 32
POLYNOMIAL = 0xEDB8_8320
"""Reflected: bit 31 for the power 0."""
BEGIN = (1 << CRC_BITS) - 1
RESIDUE = 0xDEBB_20E3
"""What the register is after any content and its CRC."""


class SerialCrc(Component):
    """CRC-32 of bits, the lowest of each byte first.

    Members
    -------
    start : In(1)
        Begin anew. Goes before `shift`.
    shift : In(1), bit : In(1)
        The next bit.
    drain : In(1)
        With `shift`: instead of taking a bit, give the CRC, one bit each time.
    first : Out(1)
        The CRC's lowest bit that has not been given.
    match : Out(1)
        What has been taken ends with the CRC of all before it.
    """

    start: In(1)
    shift: In(1)
    bit: In(1)
    drain: In(1)
    first: Out(1)
    match: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The complement of the CRC.
        state = Signal(CRC_BITS, init=BEGIN)
        feedback = Signal()
        m.d.comb += [
            feedback.eq((self.bit ^ state[0]) & ~self.drain),
            self.first.eq(~state[0]),
            self.match.eq(state == RESIDUE),
        ]
        with m.If(self.start):
            m.d.sync += state.eq(BEGIN)
        with m.Elif(self.shift):
            taps = feedback.replicate(CRC_BITS) & POLYNOMIAL
            m.d.sync += state.eq((state >> 1) ^ taps)
        return m
