"""The performance counters: in registers of their own, or in a memory."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.regs import COUNTERS

__all__ = ["COUNTER_BITS", "Counters", "MemoryCounters"]

COUNTER_BITS = 32
TOTAL = [name for name, _ in COUNTERS].index("total")
KEPT = len(COUNTERS) - 1
"""Counters in the memory: all but the first, which the watchdog looks at."""

assert TOTAL == 0

READ_CYCLES = 4
"""From a read to the next one, at least: what the register bus needs."""

LOCAL_BITS = (KEPT * READ_CYCLES // (READ_CYCLES - 2) + 1).bit_length()
"""Of what is not in the memory yet: a turn takes KEPT cycles, and those of the reads meanwhile."""


def _count(value: Value, pulse: Value) -> Value:
    """Return `value` + `pulse`, bit by bit: in tables, where an adder would have a chain of its own
    behind those of what it adds to.
    """
    bits = []
    carry = pulse
    for place in range(len(value)):
        bits.append(value[place] ^ carry)
        carry = carry & value[place]
    return Cat(bits)


COUNTER_MEMBERS: dict[str, Any] = {
    "events": In(len(COUNTERS)),
    "count": In(1),
    "clear": In(1),
    "read": In(1),
    "select": In(range(len(COUNTERS))),
    "values": Out(COUNTER_BITS).array(len(COUNTERS)),
}
"""Members of the counters, of either kind."""


class Counters(Component):
    """One counter for each of :data:`COUNTERS`.

    Members
    -------
    events : In(number of counters)
        One bit a counter: counts in this cycle.
    count : In(1)
        Counters count; else they stand still.
    clear : In(1)
        Nothing has been counted for two cycles.
    read, select : In
        Not looked at: all are shown all the time.
    values : Out(32).array(number of counters)
    """

    def __init__(self) -> None:
        super().__init__(COUNTER_MEMBERS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pulses = Signal(len(COUNTERS))
        m.d.sync += pulses.eq(self.events & self.count.replicate(len(COUNTERS)))
        for place, value in enumerate(self.values):
            with m.If(pulses[place]):
                m.d.sync += value.eq(value + 1)
        with m.If(self.clear):
            m.d.sync += [value.eq(0) for value in self.values]
        return m


class MemoryCounters(Component):
    """The same counters with all but `total` in a small memory.

    What each has counted since its last turn is in a few bits beside it; one after another they
    are added to the memory. A value that is read is the sum of both, so it is exact in any cycle.

    Members
    -------
    events, count, clear : In
        As of :class:`Counters`.
    read : In(1)
        `select` is looked at; in one of four cycles at most.
    select : In(range(number of counters))
        Counter whose value is wanted in the cycle after the next.
    values : Out(32).array(number of counters)
        The first one, `total`; all others show the one that is wanted, as it was a cycle ago.
    """

    def __init__(self) -> None:
        super().__init__(COUNTER_MEMBERS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=COUNTER_BITS, depth=KEPT, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        total, value = Signal(COUNTER_BITS, name="total"), Signal(COUNTER_BITS, name="value")
        # A sum gets to the memory, and to who reads it, a cycle later. Nothing is stored in the
        # cycle before a read: the memory has by then what came before.
        reads, stores = Signal(), Signal()
        kept = Signal(COUNTER_BITS, reset_less=True)
        m.d.sync += reads.eq(self.read)
        m.d.comb += [
            stores.eq(~reads & ~self.read),
            self.values[TOTAL].eq(total),
            *(shown.eq(kept) for shown in self.values[1:]),
        ]
        pulses = Signal(len(COUNTERS))
        turn = Signal(range(KEPT))
        place = Signal(range(KEPT))
        locals_ = Array(Signal(LOCAL_BITS, name=f"local_{k}") for k in range(KEPT))
        # In the first round the memory has nothing of this program from `turn` on.
        first_round, first_round_follows = Signal(init=1), Signal()
        valid = Signal()  # the word at `place` is of this program
        m.d.comb += [
            read.addr.eq(place),
            value.eq(Mux(valid, read.data, 0) + locals_[place]),
            write.data.eq(kept),
        ]
        m.d.sync += [kept.eq(value), write.addr.eq(place), write.en.eq(stores)]
        m.d.sync += pulses.eq(self.events & self.count.replicate(len(COUNTERS)))
        with m.If(pulses[TOTAL]):
            m.d.sync += total.eq(total + 1)
        for k, local in enumerate(locals_):
            stored = stores & (turn == k)
            m.d.sync += local.eq(_count(Mux(stored, 0, local), pulses[k + 1]))
        following, place_follows = Signal.like(turn), Signal.like(place)
        m.d.comb += [following.eq(turn), first_round_follows.eq(first_round)]
        with m.If(stores):
            m.d.comb += following.eq(Mux(turn == KEPT - 1, 0, turn + 1))
            with m.If(turn == KEPT - 1):
                m.d.comb += first_round_follows.eq(0)
        with m.If(self.clear):
            m.d.comb += [following.eq(0), first_round_follows.eq(1)]
            m.d.sync += [total.eq(0), *(local.eq(0) for local in locals_)]
        # Whose turn it is, or what is read, and whether the memory has it: from registers, as it is
        # far from there to the bus.
        m.d.comb += place_follows.eq(Mux(self.read, self.select - 1, following))
        m.d.sync += [
            turn.eq(following),
            first_round.eq(first_round_follows),
            place.eq(place_follows),
            valid.eq(~first_round_follows | (place_follows < following)),
        ]
        return m
