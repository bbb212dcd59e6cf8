"""Checks commands and hands them to the queue of their engine."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.buffer import StreamBuffer
from celosia.hw.control.decode import command_layout
from celosia.hw.control.ports import FaultPort
from celosia.hw.control.queue import WORD_BITS, WORDS_PER_COMMAND
from celosia.hw.isa import COMMAND_BITS, COMMANDS, Command, End, Engine, fields_of
from celosia.hw.regs import ErrorCause

__all__ = ["Dispatcher"]

KINDS = tuple(COMMANDS.values())


def _engine_of(kind: type[Command]) -> Engine | None:
    return None if kind is End else Engine((kind.OPCODE >> 4) - 1)


class _WordCheck(Component):
    """Looks at one word of a command; combinational.

    Members
    -------
    word : In(64)
    index : In(3)
        Its place in the command.
    kinds : In(number of kinds)
        The command's kind, one-hot; nothing for an unknown opcode. Not looked at for word 0.
    decoded : Out(number of kinds)
        Kind by the opcode in word 0.
    illegal_opcode, illegal_field : Out(1)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "word": In(WORD_BITS),
                "index": In(range(WORDS_PER_COMMAND)),
                "kinds": In(len(KINDS)),
                "decoded": Out(len(KINDS)),
                "illegal_opcode": Out(1),
                "illegal_field": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first = Signal()
        kinds = Signal(len(KINDS))
        whole = Signal()
        header = data.View(
            command_layout(Command), Cat(self.word, Const(0, COMMAND_BITS - WORD_BITS))
        )
        m.d.comb += [
            first.eq(self.index == 0),
            whole.eq(self.word.any()),
            kinds.eq(self.kinds),
            self.illegal_opcode.eq(first & ~self.decoded.any()),
        ]
        with m.If(first):
            m.d.comb += kinds.eq(self.decoded)
        illegal: list[Value] = []
        for place, kind in enumerate(KINDS):
            m.d.comb += self.decoded[place].eq(header.opcode == int(kind.OPCODE))
            # Reserved bits: the part of one word above the last field, and all words above it.
            used_bits = sum(spec.width_bits for spec in fields_of(kind))
            boundary, bit = divmod(used_bits, WORD_BITS)
            bad = Signal(name=f"bad_{kind.__name__.lower()}")
            m.d.comb += bad.eq(
                ((self.index == boundary) & self.word[bit:].any())
                | ((self.index > boundary) & whole)
            )
            illegal.append(kinds[place] & bad)
            engine = _engine_of(kind)
            tokens = header.wait | header.signal
            own = tokens.any() if engine is None else tokens[engine]
            illegal.append(first & kinds[place] & own)
        m.d.comb += self.illegal_field.eq(Cat(illegal).any())
        return m


class Dispatcher(Component):
    """Routes whole commands by opcode; executes `End`.

    A word is forwarded only if it is legal, so an engine never sees an illegal command. Checked
    are the opcode, that the bits above the last field are zero, and that no command waits for or
    signals its own engine (nor an `End` any); other fields are the engines' business.

    Members
    -------
    start : In(1)
        Begin with word 0 of a command.
    words : In(stream of 64)
        Eight a command.
    queues : Out(stream of 64).array(4)
        By :class:`Engine`.
    idle : In(1)
        Queues are empty, engines idle, and nothing is being fetched.
    starved : Out(1)
        A command is wanted and no part of one is here.
    stop : Out(1)
        An `End` is being executed: fetch no more.
    done : Out(1)
        The `End` is complete; one cycle.
    active : Out(1)
        A word moves, or an `End` is being executed.
    fault : Out(FaultPort)
        ILLEGAL_OPCODE or ILLEGAL_FIELD; address 0.
    tag : Out(16)
        Tag of the command that was looked at last.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "words": In(stream.Signature(WORD_BITS)),
                "queues": Out(stream.Signature(WORD_BITS)).array(len(Engine)),
                "idle": In(1),
                "starved": Out(1),
                "stop": Out(1),
                "done": Out(1),
                "active": Out(1),
                "fault": Out(FaultPort()),
                "tag": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.buffer = buffer = StreamBuffer(WORD_BITS)
        m.submodules.check = check = _WordCheck()
        index = Signal(range(WORDS_PER_COMMAND))
        kinds = Signal(len(KINDS))
        # The word that has been checked.
        valid = Signal()
        word = Signal(WORD_BITS)
        last = Signal()
        illegal_opcode = Signal()
        illegal_field = Signal()
        forwarded = Signal()
        accept = Signal()
        header = data.View(
            command_layout(Command), Cat(buffer.o.payload, Const(0, COMMAND_BITS - WORD_BITS))
        )
        m.d.comb += [
            buffer.i.valid.eq(self.words.valid),
            buffer.i.payload.eq(self.words.payload),
            self.words.ready.eq(buffer.i.ready),
            check.word.eq(buffer.o.payload),
            check.index.eq(index),
            check.kinds.eq(kinds),
            self.fault.cause.eq(ErrorCause.ILLEGAL_FIELD),
        ]
        # The queue that the word is for has room; an `End` needs none.
        willing = Signal()
        ready = []
        for place, kind in enumerate(KINDS):
            engine = _engine_of(kind)
            ready.append(
                kinds[place] if engine is None else kinds[place] & self.queues[engine].ready
            )
        m.d.comb += willing.eq(Cat(ready).any())
        for queue in self.queues:
            m.d.comb += queue.payload.eq(word)
        with m.If(illegal_opcode):
            m.d.comb += self.fault.cause.eq(ErrorCause.ILLEGAL_OPCODE)
        with m.If(forwarded):
            m.d.sync += valid.eq(0)
        with m.If(accept):
            m.d.sync += [
                valid.eq(1),
                word.eq(buffer.o.payload),
                last.eq(index == WORDS_PER_COMMAND - 1),
                illegal_opcode.eq(check.illegal_opcode),
                illegal_field.eq(check.illegal_field),
                index.eq(index + 1),
            ]
            with m.If(index == 0):
                m.d.sync += [kinds.eq(check.decoded), self.tag.eq(header.tag)]

        m.d.comb += self.active.eq(
            Cat(
                self.start,
                self.stop,
                self.fault.valid,
                forwarded,
                buffer.o.valid & buffer.o.ready,
                buffer.i.valid & buffer.i.ready,
            ).any()
        )
        with m.FSM():
            with m.State("STOPPED"):
                m.d.comb += buffer.o.ready.eq(1)  # left over from before the End
                with m.If(self.start):
                    m.next = "ROUTE"
            with m.State("ROUTE"):
                m.d.comb += [
                    self.starved.eq(~valid & ~buffer.o.valid),
                    buffer.o.ready.eq(~valid | forwarded),
                    accept.eq(buffer.o.valid & buffer.o.ready),
                ]
                with m.If(valid & (illegal_opcode | illegal_field)):
                    m.d.comb += self.fault.valid.eq(1)
                    m.next = "FAULTED"
                with m.Elif(valid):
                    m.d.comb += forwarded.eq(willing)
                    self._route(m, kinds)
                with m.If(forwarded & last & kinds[KINDS.index(End)]):
                    m.d.comb += buffer.o.ready.eq(0)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += [buffer.o.ready.eq(1), self.stop.eq(1), self.done.eq(self.idle)]
                with m.If(self.idle):
                    m.next = "STOPPED"
            with m.State("FAULTED"):
                pass
        return m

    def _route(self, m: Module, kinds: Signal) -> None:
        for place, kind in enumerate(KINDS):
            engine = _engine_of(kind)
            if engine is not None:
                with m.If(kinds[place]):
                    m.d.comb += self.queues[engine].valid.eq(1)
