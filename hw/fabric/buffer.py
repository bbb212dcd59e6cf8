"""Buffers between streams."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Shape, Signal, ValueCastable
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.fabric.count import count

__all__ = ["StreamBuffer", "StreamQueue", "StreamRegister", "StreamWire"]


class StreamBuffer(Component):
    """Two entries: no combinational path between input and output in either direction.

    One transfer a cycle, latency one cycle.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.
    spare : bool
        Without the second entry the input is ready as the output is taken, in the same cycle. The
        cycles are the same.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    follower : Out(stream's valid and payload)
        What follows `o` if `o` is taken in this cycle (depends on `i` in the same cycle).
    """

    def __init__(self, shape: object, *, spare: bool = True) -> None:
        self._spare = spare
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "follower": Out(stream.Signature(shape, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # No reset: nobody looks at a payload that is not valid.
        current = Signal.like(self.o.payload, reset_less=True)
        if not self._spare:
            m.d.comb += [
                self.i.ready.eq(self.o.ready | ~self.o.valid),
                self.o.payload.eq(current),
                self.follower.valid.eq(self.i.valid),
                self.follower.payload.eq(self.i.payload),
            ]
            with m.If(self.i.ready):
                m.d.sync += [self.o.valid.eq(self.i.valid), current.eq(self.i.payload)]
            return m
        spare = Signal.like(self.i.payload, reset_less=True)
        spare_valid = Signal()
        # The same, inverted, in a register that drives nothing in here.
        ready = Signal(init=1)
        m.d.comb += [
            self.i.ready.eq(ready),
            self.follower.valid.eq(spare_valid | self.i.valid),
            self.follower.payload.eq(Mux(spare_valid, _bits(spare), _bits(self.i.payload))),
            self.o.payload.eq(current),
        ]
        moves = Signal()
        m.d.comb += moves.eq(self.o.ready | ~self.o.valid)
        # `o.ready` comes late. Without choices these three have no clock enable and no reset, which
        # would take longer.
        m.d.sync += [
            self.o.valid.eq(~moves | self.follower.valid),
            spare_valid.eq(~moves & self.follower.valid),
            ready.eq(moves | ~self.follower.valid),
        ]
        with m.If(moves):
            m.d.sync += current.eq(self.follower.payload)
        # Whether or not it is needed: a payload may be wide.
        with m.If(~spare_valid):
            m.d.sync += spare.eq(self.i.payload)
        return m


class StreamRegister(StreamBuffer):
    """A buffer without the second entry."""

    def __init__(self, shape: object) -> None:
        super().__init__(shape, spare=False)


class StreamWire(Component):
    """No entry at all: where there may be a :class:`StreamBuffer`, and is none.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    follower : Out(stream's valid and payload)
        Nothing: what follows is not known.
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
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.o.payload.eq(self.i.payload),
            self.i.ready.eq(self.o.ready),
        ]
        return m


def _bits(value: Any) -> Any:
    return value.as_value() if isinstance(value, ValueCastable) else value


class StreamQueue(Component):
    """First in, first out, in a small memory and a :class:`StreamBuffer` behind it.

    One transfer a cycle, latency two cycles. No combinational path between input and output in
    either direction.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.
    depth : int
        Entries of the memory, a power of two; two more are held at the output.
    spare : bool
        Whether there are two; without, one.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    """

    def __init__(self, shape: object, *, depth: int, spare: bool = True) -> None:
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, at least 2, not {depth!r}")
        self._depth = depth
        self._spare = spare
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    @property
    def depth(self) -> int:
        """Entries of the memory."""
        return self._depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width_bits = Shape.cast(self.i.payload.shape()).width
        addr_bits = self._depth.bit_length() - 1
        m.submodules.memory = memory = Memory(shape=width_bits, depth=self._depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.submodules.head = head = StreamBuffer(self.i.payload.shape(), spare=self._spare)
        write_addr, read_addr = Signal(addr_bits), Signal(addr_bits)
        # Full by its highest bit alone.
        held = Signal(addr_bits + 1)
        pushed, popped = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~held[-1]),
            pushed.eq(self.i.valid & self.i.ready),
            write.en.eq(pushed),
            write.addr.eq(write_addr),
            write.data.eq(self.i.payload),
            read.addr.eq(read_addr),
            head.i.valid.eq(held.any()),
            _bits(head.i.payload).eq(read.data),
            popped.eq(head.i.valid & head.i.ready),
            self.o.valid.eq(head.o.valid),
            self.o.payload.eq(head.o.payload),
            head.o.ready.eq(self.o.ready),
        ]
        m.d.sync += [
            write_addr.eq(write_addr + pushed),
            read_addr.eq(read_addr + popped),
        ]
        count(m, held, pushed, popped)
        return m
