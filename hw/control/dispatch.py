"""Checks commands and hands them to the queue of their engine."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw import parts
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BITS, COMMANDS, Command, End, Engine, fields_of
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.control.decode import command_layout
from celosia.hw.control.queue import WORD_BITS, WORDS_PER_COMMAND
from celosia.hw.fabric.ports import FaultPort

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
    kinds_now : Out(number of kinds)
        The command's kind, from word 0 on.
    illegal_opcode, illegal_field : Out(1)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "word": In(WORD_BITS),
                "index": In(range(WORDS_PER_COMMAND)),
                "kinds": In(len(KINDS)),
                "decoded": Out(len(KINDS)),
                "kinds_now": Out(len(KINDS)),
                "illegal_opcode": Out(1),
                "illegal_field": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first = Signal()
        kinds = self.kinds_now
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


_CHECKED = data.StructLayout(
    {
        "word": WORD_BITS,
        "kinds": len(KINDS),
        "last": 1,
        "illegal_opcode": 1,
        "illegal_field": 1,
    }
)
"""A word that has been looked at: of which kind of command, whether its last one."""


class Dispatcher(Component):
    """Routes whole commands by opcode; executes `End`.

    A word is forwarded only if it is legal, so an engine never sees an illegal command. Checked
    are the opcode, that the bits above the last field are zero, and that no command waits for or
    signals its own engine (nor an `End` any); other fields are the engines' business.

    Parameters
    ----------
    config : NpuConfig

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

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
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
        m.submodules.check = check = _WordCheck()
        m.submodules.checked = checked = parts.stage_buffer(self._config)(_CHECKED)
        index = Signal(range(WORDS_PER_COMMAND))
        kinds = Signal(len(KINDS))
        accepting, dropping = Signal(), Signal(init=1)
        accept = Signal()
        header = data.View(
            command_layout(Command), Cat(self.words.payload, Const(0, COMMAND_BITS - WORD_BITS))
        )
        # Words are checked on their way into a buffer, up to the first illegal one or the End.
        last = index == WORDS_PER_COMMAND - 1
        entering = checked.i.payload
        m.d.comb += [
            check.word.eq(self.words.payload),
            check.index.eq(index),
            check.kinds.eq(kinds),
            self.words.ready.eq((accepting & checked.i.ready) | dropping),
            checked.i.valid.eq(self.words.valid & accepting),
            accept.eq(checked.i.valid & checked.i.ready),
            entering.word.eq(self.words.payload),
            entering.last.eq(last),
            entering.illegal_opcode.eq(check.illegal_opcode),
            entering.illegal_field.eq(check.illegal_field),
            entering.kinds.eq(check.kinds_now),
        ]
        is_end = KINDS.index(End)
        with m.If(accept):
            m.d.sync += [
                index.eq(index + 1),
                accepting.eq(
                    ~(check.illegal_opcode | check.illegal_field | (last & kinds[is_end]))
                ),
            ]
            with m.If(index == 0):
                m.d.sync += kinds.eq(check.decoded)
        with m.If(checked.i.valid & (index == 0)):
            m.d.sync += self.tag.eq(header.tag)

        # The queue that the word is for has room; an `End` needs none.
        word = checked.o.payload
        routing = Signal()
        willing = Signal()
        m.d.comb += [
            willing.eq(
                Cat(
                    word.kinds[place] if engine is None else word.kinds[place] & queue_ready
                    for place, engine, queue_ready in self._targets()
                ).any()
            ),
            self.fault.cause.eq(ErrorCause.ILLEGAL_FIELD),
            checked.o.ready.eq(routing & willing & ~(word.illegal_opcode | word.illegal_field)),
            self.active.eq(
                Cat(
                    self.start,
                    self.stop,
                    self.fault.valid,
                    self.words.valid & self.words.ready,
                    checked.o.valid & checked.o.ready,
                ).any()
            ),
        ]
        with m.If(word.illegal_opcode):
            m.d.comb += self.fault.cause.eq(ErrorCause.ILLEGAL_OPCODE)
        for queue in self.queues:
            m.d.comb += queue.payload.eq(word.word)

        with m.FSM():
            with m.State("STOPPED"):
                # What is left over from before the End is dropped.
                with m.If(self.start):
                    m.d.sync += [accepting.eq(1), dropping.eq(0)]
                    m.next = "ROUTE"
            with m.State("ROUTE"):
                m.d.comb += [
                    routing.eq(1),
                    self.starved.eq(~checked.o.valid & ~self.words.valid),
                ]
                with m.If(checked.o.valid & (word.illegal_opcode | word.illegal_field)):
                    m.d.comb += self.fault.valid.eq(1)
                    m.next = "FAULTED"
                with m.Elif(checked.o.valid):
                    self._route(m, word.kinds)
                with m.If(checked.o.valid & checked.o.ready & word.last & word.kinds[is_end]):
                    m.d.sync += dropping.eq(1)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.comb += [self.stop.eq(1), self.done.eq(self.idle)]
                with m.If(self.idle):
                    m.next = "STOPPED"
            with m.State("FAULTED"):
                pass
        return m

    def _targets(self) -> list[tuple[int, Engine | None, Value]]:
        """Return the place of each kind, its engine, and whether the engine's queue has room."""
        found: list[tuple[int, Engine | None, Value]] = []
        for place, kind in enumerate(KINDS):
            engine = _engine_of(kind)
            found.append((place, engine, Const(1) if engine is None else self.queues[engine].ready))
        return found

    def _route(self, m: Module, kinds: Value) -> None:
        for place, engine, _ in self._targets():
            if engine is not None:
                with m.If(kinds[place]):
                    m.d.comb += self.queues[engine].valid.eq(1)
