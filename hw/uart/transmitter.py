"""From the bytes of replies to characters: appends the CRC and encodes."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.uart.cobs import BYTE_OF_FRAME, CobsEncoder
from celosia.hw.uart.crc import byte_crc

__all__ = ["FrameTransmitter"]

CRC_BYTES = 4


class FrameTransmitter(Component):
    """Sends frames, each followed by its CRC-32.

    Between frames the checksum's logic serves others: bytes with `silent` enter the CRC and are
    not sent.

    Members
    -------
    i : In(stream of BYTE_OF_FRAME)
        Without the CRC.
    silent : In(1)
        With the stream's payload.
    crc : Out(32)
        Of all bytes since the last frame, or `restart`.
    restart : In(1)
        Forget them; not within a frame.
    o : Out(stream of 8 bits)
        Characters.
    empty : Out(1)
        No frame is under way.
    """

    i: In(stream.Signature(BYTE_OF_FRAME))
    silent: In(1)
    crc: Out(32)
    restart: In(1)
    o: Out(stream.Signature(8))
    empty: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cobs = cobs = CobsEncoder()
        m.submodules.processor = processor = byte_crc()
        connect(m, cobs.o, flipped(self.o))
        index = Signal(range(CRC_BYTES))
        open_frame = Signal()
        m.d.comb += [
            self.empty.eq(cobs.empty & ~open_frame),
            self.crc.eq(processor.crc),
            processor.start.eq(self.restart),
            processor.data.eq(self.i.payload.data),
            cobs.i.payload.data.eq(self.i.payload.data),
        ]
        with m.FSM():
            with m.State("CONTENT"):
                m.d.comb += [
                    cobs.i.valid.eq(self.i.valid & ~self.silent),
                    self.i.ready.eq(cobs.i.ready | self.silent),
                    processor.valid.eq(self.i.valid & self.i.ready),
                ]
                with m.If(cobs.i.valid):
                    m.d.sync += open_frame.eq(1)
                with m.If(cobs.i.valid & cobs.i.ready & self.i.payload.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [
                    cobs.i.valid.eq(1),
                    cobs.i.payload.data.eq(processor.crc.word_select(index, 8)),
                    cobs.i.payload.last.eq(index == CRC_BYTES - 1),
                ]
                with m.If(cobs.i.ready):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == CRC_BYTES - 1):
                        m.next = "RESTART"
            with m.State("RESTART"):
                m.d.comb += processor.start.eq(1)
                m.next = "COMMIT"
            with m.State("COMMIT"):
                # The encoder needs as long to say that there is something to send.
                m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.sync += open_frame.eq(0)
                m.next = "CONTENT"
        return m
