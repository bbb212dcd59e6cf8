"""CRC-32 of words, so that the host can know what memory holds without reading it."""

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.uart.crc import byte_crc

__all__ = ["WordChecksum"]


class WordChecksum(Component):
    """Takes a word in four cycles, the lowest byte first.

    Members
    -------
    clear : In(1)
    start : In(1), data : In(32)
        Take this word; `data` is constant while `busy`.
    busy : Out(1)
    crc : Out(32)
    """

    clear: In(1)
    start: In(1)
    data: In(32)
    busy: Out(1)
    crc: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.processor = processor = byte_crc()
        lane = Signal(2)
        m.d.comb += [
            processor.start.eq(self.clear),
            processor.valid.eq(self.busy),
            processor.data.eq(self.data.word_select(lane, 8)),
            self.crc.eq(processor.crc),
        ]
        with m.If(self.busy):
            m.d.sync += [lane.eq(lane + 1), self.busy.eq(lane != 3)]
        with m.Else():
            m.d.sync += self.busy.eq(self.start)
        return m
