"""Queues keep count and order, and never lose, repeat or invent a payload."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cover, Module, Signal
from amaranth.lib.wiring import Component, In
from celosia.hw.fabric import buffer

PAYLOAD_BITS = 4


class QueueHarness(Component):
    """One of the payloads that go in, any one, is watched on its way through.

    Members
    -------
    valid, payload : In
        Of the queue's input: they hold while it is not ready.
    ready : In(1)
        Of its output.
    watch : In(1)
        Watch the payload that goes in now, if none has been watched yet.
    """

    def __init__(self, dut: Any, *, capacity: int, latency: int) -> None:
        self.dut = dut
        self.capacity = capacity
        self.latency = latency
        super().__init__(
            {"valid": In(1), "payload": In(PAYLOAD_BITS), "ready": In(1), "watch": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        pushed, popped = Signal(), Signal()
        level = Signal(range(self.capacity + 2))
        m.d.comb += [
            dut.i.valid.eq(self.valid),
            dut.i.payload.eq(self.payload),
            dut.o.ready.eq(self.ready),
            pushed.eq(dut.i.valid & dut.i.ready),
            popped.eq(dut.o.valid & dut.o.ready),
        ]
        m.d.sync += level.eq(level + pushed - popped)
        m.d.comb += [
            Assert(level <= self.capacity, "never holds more than its capacity"),
            Assert((level != 0) | ~dut.o.valid, "an empty queue offers nothing"),
            Cover(level == self.capacity, "full"),
        ]

        # In order: with `ahead` payloads in front of it, the watched one is the next but `ahead`.
        watching, watched = Signal(), Signal(PAYLOAD_BITS)
        over = Signal()
        ahead = Signal.like(level)
        with m.If(watching):
            m.d.sync += ahead.eq(ahead - popped)
            with m.If(popped & (ahead == 0)):
                m.d.sync += [watching.eq(0), over.eq(1)]
        with m.Elif(pushed & self.watch & ~over):
            m.d.sync += [watching.eq(1), watched.eq(self.payload), ahead.eq(level - popped)]
        m.d.comb += [
            Assert(
                ~(watching & popped & (ahead == 0)) | (dut.o.payload == watched),
                "payloads come out in order and unchanged",
            ),
            Cover(over & (watched == 5), "a watched payload has come out"),
        ]

        # Both sides hold what they offer.
        offered, shown = Signal(), Signal()
        was_in, was_out = Signal(PAYLOAD_BITS), Signal(PAYLOAD_BITS)
        m.d.sync += [
            offered.eq(dut.i.valid & ~dut.i.ready),
            was_in.eq(self.payload),
            shown.eq(dut.o.valid & ~dut.o.ready),
            was_out.eq(dut.o.payload),
        ]
        m.d.comb += [
            Assume(~offered | (self.valid & (self.payload == was_in))),
            Assert(
                ~shown | (dut.o.valid & (dut.o.payload == was_out)),
                "an offered payload stays until it is taken",
            ),
        ]

        # What goes in is offered in time.
        hidden = Signal(range(self.latency + 2))
        with m.If((level != 0) & ~dut.o.valid):
            m.d.sync += hidden.eq(hidden + 1)
        with m.Else():
            m.d.sync += hidden.eq(0)
        m.d.comb += Assert(hidden < self.latency, "a payload is offered within the latency")
        return m


QUEUES = {
    # name: component, capacity, cycles from the input to the output
    "buffer": (lambda: buffer.StreamBuffer(PAYLOAD_BITS), 2, 1),
    "queue": (lambda: buffer.StreamQueue(PAYLOAD_BITS, depth=4), 6, 2),
}


def queue_harness(name: str) -> QueueHarness:
    make, capacity, latency = QUEUES[name]
    return QueueHarness(make(), capacity=capacity, latency=latency)


@pytest.mark.parametrize("name", list(QUEUES))
def test_queue(formal: Any, name: str) -> None:
    formal.check(queue_harness(name))


BUGS = {
    # name: queue, class, right, wrong, claim that breaks
    "ready when full": (
        "buffer",
        "StreamBuffer",
        "self.i.ready.eq(ready)",
        "self.i.ready.eq(1)",
        "capacity",
    ),
    "spare forgotten": (
        "buffer",
        "StreamBuffer",
        "Mux(spare_valid, _bits(spare), _bits(self.i.payload))",
        "_bits(self.i.payload)",
        "in order",
    ),
    "too deep": (
        "queue",
        "StreamQueue",
        "self.i.ready.eq(~held[-1])",
        "self.i.ready.eq(1)",
        "capacity",
    ),
    "always valid": (
        "queue",
        "StreamQueue",
        "self.o.valid.eq(head.o.valid)",
        "self.o.valid.eq(head.o.valid | self.i.valid)",
        "empty queue",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, bug: str) -> None:
    name, cls, right, wrong, claim = BUGS[bug]
    formal.seed_bug(buffer, cls, right, wrong)
    formal.refute(queue_harness(name), claim)


def test_an_smt_solver_agrees(second_opinion: Any) -> None:
    assert second_opinion(queue_harness("buffer"), depth=10) == "PASS"
