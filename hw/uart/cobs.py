"""Consistent overhead byte stuffing: frames of any bytes, with zero between them and only there.

Cheshire and Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7(2),
1999. A group is a code byte c and c - 1 bytes that are not zero; between groups there was a zero,
unless the code is 255.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.uart.ring import Ring

__all__ = ["BYTE_OF_FRAME", "CobsDecoder", "CobsEncoder"]

DELIMITER = 0
LONGEST_GROUP = 255
"""Code and bytes; after it there was no zero."""
RING_BYTES = 512
"""Two of the longest groups: one is sent while the other is gathered."""
BLOCK_BITS = 6
"""The block of so many bits of addresses before the oldest byte's is left free, but for what may be
written after the last byte that was taken: codes, a delimiter."""

BYTE_OF_FRAME = data.StructLayout({"data": 8, "last": 1})
"""A byte, and whether it is its frame's last."""


class CobsDecoder(Component):
    """From characters to the bytes of frames; one a cycle at most.

    Members
    -------
    i_valid : In(1), i_data : In(8)
        A character.
    i_error : In(1)
        A character was lost: the frame is not good.
    valid : Out(1), data : Out(8)
        A byte of the frame, in the same cycle.
    end : Out(1)
        The frame is over; never with `valid`.
    good : Out(1)
        With `end`: it was well-formed and had a byte at least.
    empty : Out(1)
        With `end`: there was nothing since the last delimiter.
    """

    i_valid: In(1)
    i_data: In(8)
    i_error: In(1)
    valid: Out(1)
    data: Out(8)
    end: Out(1)
    good: Out(1)
    empty: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(8)  # bytes of the group still to come
        zero = Signal()  # if another group follows, there was a zero before it
        begun = Signal()
        bad = Signal()
        m.d.comb += [
            self.end.eq(self.i_valid & (self.i_data == DELIMITER)),
            self.good.eq(begun & ~bad & (left == 0)),
            self.empty.eq(~begun & ~bad),
            self.data.eq(Mux(left == 0, 0, self.i_data)),
            self.valid.eq(self.i_valid & ~self.end & ((left != 0) | zero)),
        ]
        with m.If(self.i_error):
            m.d.sync += bad.eq(1)
        with m.If(self.end):
            m.d.sync += [left.eq(0), zero.eq(0), begun.eq(0), bad.eq(0)]
        with m.Elif(self.i_valid):
            m.d.sync += begun.eq(1)
            with m.If(left == 0):
                m.d.sync += [left.eq(self.i_data - 1), zero.eq(self.i_data != LONGEST_GROUP)]
            with m.Else():
                m.d.sync += left.eq(left - 1)
        return m


class CobsEncoder(Component):
    """From the bytes of frames to characters, each frame followed by a delimiter.

    A group is sent when its length is known, that is, when it is complete: up to 255 bytes late.
    Two cycles a byte at most; the result is the shortest encoding.

    Members
    -------
    i : In(stream of BYTE_OF_FRAME)
    o : Out(stream of 8 bits)
    empty : Out(1)
        All that was complete has been taken from `o`.
    """

    i: In(stream.Signature(BYTE_OF_FRAME))
    o: Out(stream.Signature(8))
    empty: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ring = ring = Ring(width=8, depth=RING_BYTES)
        connect(m, ring.o, flipped(self.o))
        byte = self.i
        code = Signal(8, init=1)  # of the open group: its bytes so far plus 1
        committed = Signal(range(RING_BYTES))  # the place of this code
        following = Signal(range(RING_BYTES))  # where its next byte goes
        full_group = Signal()
        room = Signal()
        idle = Signal()
        codes = Signal()  # a code is written
        m.d.comb += [
            following.eq(committed + code),
            ring.committed.eq(committed),
            ring.address.eq(Mux(codes, committed, following)),
            ring.data.eq(Mux(codes, code, byte.payload.data)),
            full_group.eq(code == LONGEST_GROUP),
            self.empty.eq(idle & ~byte.valid & ~ring.pending & ~ring.o.valid),
        ]
        # One cycle late, in which one byte and its group's end may come: they fit into a block.
        blocks = following[BLOCK_BITS:] + 1
        m.d.sync += room.eq(blocks[: len(following) - BLOCK_BITS] != ring.oldest[BLOCK_BITS:])

        def end_group(next_code: int) -> None:
            m.d.comb += [ring.write.eq(1), codes.eq(1)]
            m.d.sync += [committed.eq(following), code.eq(next_code)]

        with m.FSM():
            with m.State("GATHER"):
                m.d.comb += idle.eq(1)
                with m.If(full_group & byte.valid):
                    # Only now is it known that the frame goes on.
                    end_group(1)
                with m.Elif(byte.valid & room):
                    m.d.comb += byte.ready.eq(1)
                    with m.If(byte.payload.data == 0):
                        end_group(1)
                    with m.Else():
                        m.d.comb += ring.write.eq(1)
                        m.d.sync += code.eq(code + 1)
                    with m.If(byte.payload.last):
                        m.next = "END_GROUP"
            with m.State("END_GROUP"):
                # The delimiter is written as if it were the code of a group.
                end_group(DELIMITER)
                m.next = "DELIMIT"
            with m.State("DELIMIT"):
                m.d.comb += [ring.write.eq(1), codes.eq(1)]
                m.d.sync += code.eq(1)
                m.next = "BEGIN_GROUP"
            with m.State("BEGIN_GROUP"):
                m.d.sync += committed.eq(following)
                m.next = "GATHER"
        return m
