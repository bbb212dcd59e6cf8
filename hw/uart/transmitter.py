"""From the bits of replies to characters: appends the CRC and encodes."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.uart.cobs import CobsEncoder
from celosia.hw.uart.crc import SerialCrc

__all__ = ["BIT_OF_FRAME", "FrameTransmitter"]

BIT_OF_FRAME = data.StructLayout({"bit": 1, "last": 1, "silent": 1})
"""A bit, the lowest of each byte first; with the highest: whether the frame ends with this byte;
whether it only enters the CRC."""

BYTE_BITS = 8
CRC_BYTES = 4
LAST_OF_FRAME = 7
LAST_OF_CONTENT = LAST_OF_FRAME - CRC_BYTES


class FrameTransmitter(Component):
    """Sends frames, each followed by its CRC-32.

    Between frames the checksum's logic serves others: silent bits enter the CRC and are not sent.

    Members
    -------
    i : In(stream of BIT_OF_FRAME)
        Whole bytes, without the CRC.
    give : In(1)
        Give a bit of the CRC of the silent bits, which have been taken; not within a frame.
    crc : Out(1)
        The one that is given, the lowest of the CRC first.
    restart : In(1)
        Forget them; not within a frame.
    o : Out(stream of 8 bits)
        Characters.
    empty : Out(1)
        Of frames of which all bits have been taken, all characters have been.
    """

    i: In(stream.Signature(BIT_OF_FRAME))
    give: In(1)
    crc: Out(1)
    restart: In(1)
    o: Out(stream.Signature(8))
    empty: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cobs = cobs = CobsEncoder()
        m.submodules.processor = processor = SerialCrc()
        connect(m, cobs.o, flipped(self.o))
        byte = Signal(BYTE_BITS, reset_less=True)
        count = Signal(range(BYTE_BITS))
        # 0 within the content, then counts the bytes to the end of the frame.
        closing = Signal(range(LAST_OF_FRAME + 1))
        fills, step = Signal(), Signal()
        # A bit comes late in its cycle. The CRC is not asked for in the next one.
        taken, bit_taken = Signal(), Signal()
        m.d.sync += [taken.eq(self.i.valid & self.i.ready), bit_taken.eq(self.i.payload.bit)]
        m.d.comb += [
            self.i.ready.eq(fills & (closing == 0)),
            self.empty.eq(cobs.empty & self.i.ready),
            self.crc.eq(processor.first),
            step.eq(fills & ((closing != 0) | (self.i.valid & ~self.i.payload.silent))),
            processor.shift.eq((fills & (closing != 0)) | self.give | taken),
            processor.bit.eq(bit_taken),
            processor.drain.eq(~taken),
            processor.start.eq(self.restart),
            cobs.i.payload.data.eq(byte),
            cobs.i.payload.last.eq(closing == LAST_OF_FRAME),
        ]
        with m.If(step):
            bit = Mux(closing == 0, self.i.payload.bit, processor.first)
            m.d.sync += [byte.eq(Cat(byte[1:], bit)), count.eq(count + 1)]
        with m.FSM():
            with m.State("FILL"):
                m.d.comb += fills.eq(1)
                with m.If(step & (count == BYTE_BITS - 1)):
                    m.next = "GIVE"
                    with m.If((closing == 0) & self.i.payload.last):
                        m.d.sync += closing.eq(LAST_OF_CONTENT)
            with m.State("GIVE"):
                m.d.comb += cobs.i.valid.eq(1)
                with m.If(cobs.i.ready):
                    with m.If(closing != 0):
                        m.d.sync += closing.eq(closing + 1)
                    with m.If(cobs.i.payload.last):
                        m.d.comb += processor.start.eq(1)
                    m.next = "FILL"
        return m
