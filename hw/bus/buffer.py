"""Buffers between streams."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal, ValueCastable
from amaranth.lib import fifo, stream
from amaranth.lib.wiring import Component, In, Out

__all__ = ["StreamBuffer", "StreamQueue"]


class StreamBuffer(Component):
    """Two entries: no combinational path between input and output in either direction.

    One transfer a cycle, latency one cycle.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    follower : Out(stream's valid and payload)
        What follows `o` if `o` is taken in this cycle (depends on `i` in the same cycle).
    """

    def __init__(self, shape: object) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "follower": Out(stream.Signature(shape, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spare = Signal.like(self.i.payload)
        spare_valid = Signal()
        m.d.comb += [
            self.i.ready.eq(~spare_valid),
            self.follower.valid.eq(spare_valid | self.i.valid),
            self.follower.payload.eq(Mux(spare_valid, _bits(spare), _bits(self.i.payload))),
        ]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                self.o.valid.eq(self.follower.valid),
                self.o.payload.eq(self.follower.payload),
                spare_valid.eq(0),
            ]
        with m.Elif(~spare_valid):
            m.d.sync += [spare.eq(self.i.payload), spare_valid.eq(self.i.valid)]
        return m


def _bits(value: object) -> object:
    return value.as_value() if isinstance(value, ValueCastable) else value


class StreamQueue(Component):
    """First in, first out, in a memory with one synchronous read port.

    One transfer a cycle, latency two cycles. ``i.ready`` and ``o.valid`` come from registers.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.
    depth : int
        Entries of the memory, a power of two; one more is held at the output.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    """

    def __init__(self, shape: object, *, depth: int) -> None:
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, at least 2, not {depth!r}")
        self._depth = depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    @property
    def depth(self) -> int:
        """Entries of the memory."""
        return self._depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = Shape.cast(self.i.payload.shape()).width
        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(width=width, depth=self._depth + 1)
        m.d.comb += [
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            self.o.payload.eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m
