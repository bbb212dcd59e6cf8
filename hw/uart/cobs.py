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
LONGEST_RUN = 254
RING_BYTES = 512
"""Two of the longest groups: one is sent while the other is gathered."""
CLOSING_BYTES = 3
"""What may be written after a byte was taken: a code, a delimiter, the next code's place."""

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
                m.d.sync += [left.eq(self.i_data - 1), zero.eq(self.i_data != LONGEST_RUN + 1)]
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
        code_place = Signal(range(RING_BYTES))  # where the code of the open group will be
        following = Signal(range(RING_BYTES), init=1)  # where its next byte goes
        committed = Signal(range(RING_BYTES))
        run = Signal(range(LONGEST_RUN + 1))  # its bytes so far
        full_run = Signal()
        room = Signal()
        used = Signal(range(RING_BYTES))
        m.d.comb += [
            ring.committed.eq(committed),
            full_run.eq(run == LONGEST_RUN),
            used.eq(following - ring.oldest),
            self.empty.eq((ring.oldest == committed) & ~ring.o.valid),
        ]
        # One cycle late, in which one byte and its group's end may come.
        m.d.sync += room.eq(used < RING_BYTES - 3 * CLOSING_BYTES)

        def end_group() -> None:
            m.d.comb += [ring.write.eq(1), ring.address.eq(code_place), ring.data.eq(run + 1)]
            m.d.sync += run.eq(0)

        def begin_group(place: object, *, complete: object) -> None:
            m.d.sync += [
                committed.eq(complete),
                code_place.eq(place),
                following.eq(place + 1),  # type: ignore[operator]
            ]

        with m.FSM():
            with m.State("GATHER"):
                with m.If(full_run & self.i.valid):
                    # Only now is it known that the frame goes on.
                    end_group()
                    begin_group(following, complete=following)
                with m.Elif(self.i.valid & room):
                    m.d.comb += self.i.ready.eq(1)
                    with m.If(self.i.payload.data == 0):
                        end_group()
                        begin_group(following, complete=following)
                    with m.Else():
                        m.d.comb += [
                            ring.write.eq(1),
                            ring.address.eq(following),
                            ring.data.eq(self.i.payload.data),
                        ]
                        m.d.sync += [following.eq(following + 1), run.eq(run + 1)]
                    with m.If(self.i.payload.last):
                        m.next = "END_GROUP"
            with m.State("END_GROUP"):
                end_group()
                m.next = "DELIMIT"
            with m.State("DELIMIT"):
                m.d.comb += [
                    ring.write.eq(1),
                    ring.address.eq(following),
                    ring.data.eq(DELIMITER),
                ]
                begin_group((following + 1)[: len(following)], complete=following + 1)
                m.next = "GATHER"
        return m
