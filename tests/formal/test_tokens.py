"""Tokens are neither lost nor invented, and no command starts without its own."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In
from celosia.hw.contract.isa import Command, Engine
from celosia.hw.control import tokens
from celosia.hw.control.decode import command_layout

ENGINES = len(Engine)


class CounterHarness(Component):
    """One counter and a count of its own, one bit wider.

    Members
    -------
    give, take : In(1)
        Nothing is taken from an empty counter.
    """

    def __init__(self) -> None:
        super().__init__({"give": In(1), "take": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = tokens._TokenCounter()
        full = (1 << tokens.TOKEN_BITS) - 1
        # Given less taken, less those that were given too many.
        held = Signal(tokens.TOKEN_BITS + 1)
        lost = Signal()
        m.d.comb += [
            dut.give.eq(self.give),
            dut.take.eq(self.take),
            lost.eq(self.give & ~self.take & (held == full)),
            Assume(~self.take | dut.present),
            Assert(dut.present == (held != 0), "a token is present iff given and not taken"),
            Assert(~self.take | (held != 0), "the count never falls below zero"),
            Assert(held <= full, "the count never exceeds what the counter holds"),
            Assert(dut.overflow == lost, "overflow is reported when a token is lost"),
            Cover(self.take & (held == 1), "the last token is taken"),
        ]
        m.d.sync += held.eq(held + self.give - self.take - lost)
        if tokens.TOKEN_BITS <= 4:
            m.d.comb += Cover(dut.overflow, "an overflow")
        return m


class GatesHarness(Component):
    """The gates of four engines with any commands.

    Members
    -------
    valid : In(4), ready : In(4)
        By engine: a command is there; the engine completes it, or, load engine and array, takes it.
    loaded, streamed : In(1)
        The oldest load is done; the oldest convolution.
    wait, signal : In(16)
        Four bits an engine: those fields of its command.
    """

    def __init__(self, *, one_transfer: bool = False) -> None:
        self._one_transfer = one_transfer
        super().__init__(
            {
                "valid": In(ENGINES),
                "ready": In(ENGINES),
                "loaded": In(1),
                "streamed": In(1),
                "wait": In(ENGINES * ENGINES),
                "signal": In(ENGINES * ENGINES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = (
            tokens.SingleTransferGates() if self._one_transfer else tokens.TokenGates()
        )
        full = (1 << tokens.TOKEN_BITS) - 1
        waits = [self.wait.word_select(engine, ENGINES) for engine in Engine]
        signals = [self.signal.word_select(engine, ENGINES) for engine in Engine]
        started, completed = Signal(ENGINES), Signal(ENGINES)
        held_back = Signal(ENGINES)
        begun, taken, given = self._loads(m, dut, started, signals[Engine.LOAD])
        signals[Engine.LOAD] = given
        before, signals[Engine.ARRAY] = self._convs(m, dut, signals[Engine.ARRAY])
        works = {engine: dut.o[engine].valid for engine in Engine}
        works[Engine.LOAD] = begun != 0
        works[Engine.ARRAY] = before | dut.o[Engine.ARRAY].valid
        ends = {Engine.LOAD: self.loaded, Engine.ARRAY: self.streamed}
        m.d.comb += Assert(
            dut.under_way == ((begun != 0) | before), "loads and convolutions under way are shown"
        )
        m.d.comb += held_back[Engine.LOAD].eq(begun == tokens.MAX_LOADS)
        if self._one_transfer:
            store, stores = dut.o[Engine.STORE], Signal()
            m.d.comb += [
                held_back[Engine.LOAD].eq(store.valid | stores | (begun == tokens.MAX_LOADS)),
                held_back[Engine.STORE].eq(begun != 0),
                Assert(~((begun != 0) & store.valid), "one kind of transfers at a time"),
                Cover(store.valid & dut.i[Engine.LOAD].valid, "a load waits for a store"),
                Cover((begun != 0) & stores, "a store waits for loads"),
            ]
        held = {
            (giver, taker): Signal(
                tokens.TOKEN_BITS + 1, name=f"held_{giver.name}_{taker.name}".lower()
            )
            for giver in Engine
            for taker in Engine
            if giver is not taker
        }
        for engine in Engine:
            source, sink = dut.i[engine], dut.o[engine]
            header = data.View(command_layout(Command), source.payload)
            was_waiting, stays = Signal(name=f"was_{engine}"), Signal(name=f"stays_{engine}")
            old_wait, old_signal = Signal(ENGINES), Signal(ENGINES)
            present = Signal(name=f"present_{engine}")
            m.d.comb += [
                source.valid.eq(self.valid[engine]),
                header.wait.eq(waits[engine]),
                header.signal.eq(self.signal.word_select(engine, ENGINES)),
                sink.ready.eq(self.ready[engine]),
                completed[engine].eq(ends.get(engine, sink.valid & sink.ready)),
                present.eq(
                    Cat(
                        ~waits[engine][other] | (held[other, engine] != 0)
                        for other in Engine
                        if other is not engine
                    ).all()
                ),
                started[engine].eq(source.valid & ~sink.valid & present & ~held_back[engine]),
            ]
            if self._one_transfer and engine is Engine.STORE:
                m.d.comb += stores.eq(source.valid & ~sink.valid & present)
            m.d.sync += [
                was_waiting.eq(source.valid & ~sink.valid),
                stays.eq(source.valid & ~source.ready),
                old_wait.eq(waits[engine]),
                old_signal.eq(header.signal),
            ]
            has_begun = Signal(name=f"begun_{engine}")
            m.d.sync += has_begun.eq(started[engine])
            m.d.comb += [
                # The queue's side of the contract, and the dispatcher's check.
                Assume(
                    ~stays
                    | (source.valid & (waits[engine] == old_wait) & (header.signal == old_signal))
                ),
                Assume(~waits[engine][engine]),
                Assert(~sink.valid | source.valid, "an engine only sees a command that is there"),
                Assert(
                    ~was_waiting | (sink.valid == has_begun), "a command starts with its tokens"
                ),
                Assert(
                    source.ready == (sink.valid & sink.ready),
                    "a command ends when its engine says so",
                ),
                Assert(dut.busy[engine] == works[engine], "an engine's work is shown"),
                Assert(
                    dut.wait_token[engine] == (source.valid & ~works[engine] & ~present),
                    "who waits is shown",
                ),
            ]
        overflow = {engine: [] for engine in Engine}
        for (giver, taker), count in held.items():
            give, take, lost = (Signal(name=f"{n}_{giver}_{taker}") for n in ("g", "t", "l"))
            m.d.comb += [
                give.eq(completed[giver] & signals[giver][taker]),
                take.eq(started[taker] & waits[taker][giver]),
                lost.eq(give & ~take & (count == full)),
                Assert(~take | (count != 0), "no token is taken that was not given"),
            ]
            m.d.sync += count.eq(count + give - take - lost)
            overflow[giver].append(lost)
        for engine in Engine:
            m.d.comb += Assert(
                dut.overflow[engine] == Cat(overflow[engine]).any(), "every lost token is reported"
            )
        m.d.comb += [
            Cover(started[Engine.VECTOR] & waits[Engine.VECTOR].any(), "a wait is over"),
            Cover(dut.overflow[Engine.LOAD], "an overflow"),
        ]
        return m

    def _loads(
        self, m: Module, dut: Any, started: Signal, signal: Any
    ) -> tuple[Signal, Signal, Signal]:
        """Return loads that are not done, those of them that were taken, the oldest's `signal`."""
        begun, taken = Signal(range(tokens.MAX_LOADS + 1)), Signal(range(tokens.MAX_LOADS + 1))
        # Cycles since the last one began: the engine takes some before it is done.
        since = Signal(2)
        queue = Signal(ENGINES * tokens.MAX_LOADS)
        after = Signal.like(queue)
        begins = started[Engine.LOAD]
        load = dut.o[Engine.LOAD]
        m.d.comb += [
            dut.loaded.eq(self.loaded),
            Assume(~self.loaded | (taken != 0)),
            Assume(~(load.valid & self.ready[Engine.LOAD]) | since.all()),
            after.eq(Mux(self.loaded, queue >> ENGINES, queue)),
            Assert(begun <= tokens.MAX_LOADS, "no more loads than there is room for"),
            Cover(begun == tokens.MAX_LOADS, "as many loads as there is room for"),
        ]
        m.d.sync += [
            begun.eq(begun + begins - self.loaded),
            taken.eq(taken + (load.valid & self.ready[Engine.LOAD]) - self.loaded),
            since.eq(Mux(begins, 0, Mux(since.all(), since, since + 1))),
            queue.eq(after),
        ]
        for place in range(tokens.MAX_LOADS):
            with m.If(begins & (begun - self.loaded == place)):
                m.d.sync += queue.word_select(place, ENGINES).eq(signal)
        return begun, taken, queue[:ENGINES]

    def _convs(self, m: Module, dut: Any, signal: Value) -> tuple[Signal, Signal]:
        """Return whether a convolution was taken and is not done, the oldest one's `signal`."""
        conv = dut.o[Engine.ARRAY]
        before, kept = Signal(), Signal(ENGINES)
        oldest = Signal(ENGINES)
        takes = conv.valid & self.ready[Engine.ARRAY]
        m.d.comb += [
            dut.streamed.eq(self.streamed),
            # The engine's side of the contract.
            Assume(~self.streamed | before),
            Assume(~takes | ~before),
            oldest.eq(Mux(before, kept, signal)),
            Cover(before & conv.valid, "a convolution behind another one"),
        ]
        m.d.sync += before.eq(takes | (before & ~self.streamed))
        with m.If(takes):
            m.d.sync += kept.eq(signal)
        return before, oldest


@pytest.mark.parametrize("bits", [3, 8])
def test_counter(formal: Any, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(tokens, "TOKEN_BITS", bits)
    formal.check(CounterHarness())


@pytest.mark.parametrize("one_transfer", [False, True])
def test_gates(formal: Any, monkeypatch: pytest.MonkeyPatch, one_transfer: bool) -> None:
    monkeypatch.setattr(tokens, "TOKEN_BITS", 2)
    formal.check(GatesHarness(one_transfer=one_transfer))


BUGS = {
    "wraps": ("_TokenCounter", "& ~self.overflow)", ")", "overflow"),
    "taking forgets giving": (
        "_TokenCounter",
        "more.eq(self.give & ~self.take & ~self.overflow)",
        "more.eq(self.give & ~self.overflow)",
        "",
    ),
    "one token is enough": ("TokenGates", ").all()", ").any()", "who waits"),
    "gives at the start": (
        "TokenGates",
        "counter.give.eq(complete & signal[other])",
        "counter.give.eq(passes & signal[other])",
        "",
    ),
    "gives what the next convolution signals": (
        "_ConvUnderWay",
        "self._show(m, self.any, kept)",
        "self._show(m, self.any & ~self.done, kept)",
        "",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    cls, right, wrong, claim = BUGS[bug]
    monkeypatch.setattr(tokens, "TOKEN_BITS", 2)
    formal.seed_bug(tokens, cls, right, wrong)
    formal.refute(CounterHarness() if cls == "_TokenCounter" else GatesHarness(), claim)


def test_an_smt_solver_agrees(second_opinion: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "TOKEN_BITS", 3)
    assert second_opinion(CounterHarness(), depth=12) == "PASS"


def test_an_smt_solver_finds_a_seeded_bug(
    formal: Any, second_opinion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, right, wrong, _ = BUGS["one token is enough"]
    monkeypatch.setattr(tokens, "TOKEN_BITS", 2)
    formal.seed_bug(tokens, cls, right, wrong)
    assert second_opinion(GatesHarness(), depth=10, covers=False) == "FAIL"
