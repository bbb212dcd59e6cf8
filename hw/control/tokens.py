"""Tokens between the engines, and the gate in front of each one."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.isa import MAX_LOADS, TOKEN_BITS, Command, Engine
from celosia.hw.control.decode import command_layout
from celosia.hw.fabric.buffer import StreamQueue
from celosia.hw.fabric.ports import CommandPort

__all__ = ["TOKEN_BITS", "SingleTransferGates", "TokenGates"]

ENGINES = len(Engine)


class _TokenCounter(Component):
    """Tokens that one engine has given to another one.

    Members
    -------
    give, take : In(1)
        Both may be high in one cycle. Nothing is taken from an empty counter.
    present : Out(1)
        There is one to take.
    overflow : Out(1)
        One was given that the counter could not hold.
    """

    def __init__(self) -> None:
        super().__init__({"give": In(1), "take": In(1), "present": Out(1), "overflow": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Of the cycle before: what comes and goes is known late in its cycle.
        count, rises, falls = Signal(TOKEN_BITS), Signal(), Signal()
        # Of this one: what starts an engine waits for it.
        present = Signal()
        single, full = Signal(), Signal()
        most = (1 << TOKEN_BITS) - 1
        m.d.comb += [
            single.eq(count == Mux(falls, 2, ~rises)),
            full.eq((count == Mux(rises, most - 1, most)) & ~falls),
            self.present.eq(present),
            self.overflow.eq(self.give & ~self.take & full),
        ]
        more, less = Signal(), Signal()
        m.d.comb += [
            more.eq(self.give & ~self.take & ~self.overflow),
            less.eq(self.take & ~self.give),
        ]
        m.d.sync += [rises.eq(more), falls.eq(less)]
        with m.If(more | less):
            m.d.sync += present.eq(more | ~single)
        # One adder for both.
        with m.If(rises | falls):
            m.d.sync += count.eq(count + Mux(falls, most, 1))
        return m


class _UnderWay(Component):
    """Commands that have begun and are not done, although their engine has taken the next one.

    Members
    -------
    begins : In(1)
        One more; only while there is `room`.
    signal : In(4), tag : In(16)
        Of it.
    done : In(1)
        The oldest is done.
    room, any : Out(1)
        There is room for one more; there is one.
    oldest : Out
        ``signal`` and ``tag`` of the oldest, of what comes in where it is not known.
    """

    def __init__(self) -> None:
        self._layout = data.StructLayout({"signal": ENGINES, "tag": 16})
        super().__init__(
            {
                "begins": In(1),
                "signal": In(ENGINES),
                "tag": In(16),
                "done": In(1),
                "room": Out(1, init=1),
                "any": Out(1),
                "oldest": Out(self._layout),
            }
        )

    def _show(self, m: Module, known: Value, oldest: data.View) -> None:
        m.d.comb += [self.oldest.signal.eq(self.signal), self.oldest.tag.eq(self.tag)]
        with m.If(known):
            m.d.comb += self.oldest.eq(oldest)


class _LoadsUnderWay(_UnderWay):
    """Loads, from when they begin. The oldest is known two cycles after the first one has begun."""

    def __init__(self, *, spare: bool) -> None:
        self._spare = spare
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.loads = loads = StreamQueue(self._layout, depth=MAX_LOADS, spare=self._spare)
        count = Signal(range(MAX_LOADS + 1))
        after = Signal.like(count)
        m.d.comb += [
            loads.i.valid.eq(self.begins),
            loads.i.payload.signal.eq(self.signal),
            loads.i.payload.tag.eq(self.tag),
            loads.o.ready.eq(self.done),
            after.eq(count + self.begins - self.done),
        ]
        m.d.sync += [count.eq(after), self.any.eq(after != 0), self.room.eq(after != MAX_LOADS)]
        self._show(m, loads.o.valid, loads.o.payload)
        return m


class _ConvUnderWay(_UnderWay):
    """The convolution that has given way to the next one."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = Signal(self._layout, reset_less=True)
        m.d.comb += self.room.eq(~self.any)
        with m.If(self.begins):
            m.d.sync += [self.any.eq(1), kept.signal.eq(self.signal), kept.tag.eq(self.tag)]
        with m.Elif(self.done):
            m.d.sync += self.any.eq(0)
        self._show(m, self.any, kept)
        return m


class TokenGates(Component):
    """A gate in front of each engine.

    A command of engine e that waits for engine f takes one token of the counter (f, e). It takes
    all of its tokens in one cycle, when all are there; in the next cycle the engine sees it. When
    the engine is done its tokens are given, in the same cycle. One cycle later the next command is
    looked at, so an engine sees two commands that wait for nothing two cycles apart.

    The load engine takes a command before the one before it is done: what it is busy with is the
    oldest one, whose tokens are given when `loaded` says that it is done. So does the array, with
    one command before it, and `streamed`.

    Parameters
    ----------
    spare : bool
        Of queues: see :class:`celosia.hw.fabric.buffer.StreamQueue`.

    Members
    -------
    i : In(CommandPort).array(4)
        By :class:`Engine`. The dispatcher has checked that no command waits for its own engine.
    o : Out(CommandPort).array(4)
    loaded, streamed : In(1)
        The oldest load is done; the oldest convolution.
    under_way : Out(1)
        There is a load that has begun and is not done, or a convolution that has given way.
    begun : Out(4)
        Engines that see a command.
    moves : Out(4)
        A command of the engine begins or ends.
    active : Out(4)
        Engines with a command at the head of their queue.
    busy : Out(4)
        Engines with a command that has begun and is not done.
    wake : Out(4)
        Engines that may see one in the next cycle: their clock is needed then.
    wait_token : Out(4)
        Engines with a command that waits for a token, and with none that has begun.
    overflow : Out(4)
        Engine has given one token too many.
    tags : Out(16).array(4)
        Tag of each engine's command, its oldest one.
    """

    def __init__(self, *, spare: bool = True) -> None:
        self._spare = spare
        super().__init__(
            {
                "i": In(CommandPort()).array(ENGINES),
                "o": Out(CommandPort()).array(ENGINES),
                "loaded": In(1),
                "streamed": In(1),
                "under_way": Out(1),
                "begun": Out(ENGINES),
                "moves": Out(ENGINES),
                "active": Out(ENGINES),
                "busy": Out(ENGINES),
                "wake": Out(ENGINES),
                "wait_token": Out(ENGINES),
                "overflow": Out(ENGINES),
                "tags": Out(16).array(ENGINES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counters: dict[tuple[Engine, Engine], _TokenCounter] = {}
        m.submodules.loads = self._loads = loads = _LoadsUnderWay(spare=self._spare)
        m.submodules.conv = conv = _ConvUnderWay()
        self._under_way = {Engine.LOAD: loads, Engine.ARRAY: conv}
        m.d.comb += [
            loads.done.eq(self.loaded),
            conv.done.eq(self.streamed),
            self.under_way.eq(loads.any | conv.any),
        ]
        self._running = [Signal(name=f"{engine.name.lower()}_running") for engine in Engine]
        self._stores = Signal()  # a store has its tokens
        for giver in Engine:
            for taker in Engine:
                if giver is not taker:
                    counter = counters[giver, taker] = _TokenCounter()
                    m.submodules[f"{giver.name}_to_{taker.name}".lower()] = counter
        for engine in Engine:
            inputs = {other: counters[other, engine] for other in Engine if other is not engine}
            outputs = {other: counters[engine, other] for other in Engine if other is not engine}
            self._gate(m, engine, inputs, outputs)
        return m

    def _gate(
        self,
        m: Module,
        engine: Engine,
        inputs: dict[Engine, _TokenCounter],
        outputs: dict[Engine, _TokenCounter],
    ) -> None:
        source, sink = self.i[engine], self.o[engine]
        header = data.View(command_layout(Command), source.payload)
        running, passes = self._running[engine], Signal(name=f"{engine.name.lower()}_passes")
        present = Signal(name=f"{engine.name.lower()}_present")
        taken = Signal(name=f"{engine.name.lower()}_taken")
        complete, busy, signal, tag = taken, running, header.signal, header.tag
        others = self._under_way.get(engine)
        if others is not None:
            complete, busy = others.done, running | others.any
            signal, tag = others.oldest.signal, others.oldest.tag
            m.d.comb += [
                others.begins.eq(passes if engine is Engine.LOAD else taken),
                others.signal.eq(header.signal),
                others.tag.eq(header.tag),
            ]
        m.d.comb += [
            present.eq(
                Cat(
                    ~header.wait[other] | counter.present for other, counter in inputs.items()
                ).all()
            ),
            passes.eq(source.valid & ~running & present & ~self._held_back(engine)),
            taken.eq(running & sink.ready),
            sink.valid.eq(running),
            sink.payload.eq(source.payload),
            source.ready.eq(taken),
            self.moves[engine].eq(passes | taken | complete),
            self.active[engine].eq(source.valid | busy),
            self.begun[engine].eq(running),
            self.busy[engine].eq(busy),
            self.wake[engine].eq(running | (source.valid & present)),
            self.wait_token[engine].eq(source.valid & ~busy & ~present),
            self.overflow[engine].eq(Cat(counter.overflow for counter in outputs.values()).any()),
            self.tags[engine].eq(tag),
        ]
        if engine is Engine.STORE:
            m.d.comb += self._stores.eq(source.valid & present)
        for other, counter in inputs.items():
            m.d.comb += counter.take.eq(passes & header.wait[other])
        for other, counter in outputs.items():
            m.d.comb += counter.give.eq(complete & signal[other])
        with m.If(passes):
            m.d.sync += running.eq(1)
        with m.Elif(taken):
            m.d.sync += running.eq(0)

    def _held_back(self, engine: Engine) -> Value:
        """Return whether `engine` must not begin, whatever tokens there are."""
        return ~self._loads.room if engine is Engine.LOAD else Const(0)


class SingleTransferGates(TokenGates):
    """Of load and store engine only one runs at a time, the store engine first.

    What it stores makes room for what is computed, and most loads come ahead of their time.
    """

    def _held_back(self, engine: Engine) -> Value:
        if engine is Engine.LOAD:
            return self._stores | self._running[Engine.STORE] | ~self._loads.room
        return self._loads.any if engine is Engine.STORE else Const(0)
