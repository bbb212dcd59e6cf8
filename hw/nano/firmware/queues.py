"""The queues of the engines and their tokens: how a command begins and ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celosia.hw.contract.isa import Engine
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.contract.units import Unit
from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.shared import COMMAND_WORDS, Shared
from celosia.hw.nano.instructions import In, Op, Out

__all__ = ["ENGINES", "SIGNAL_BIT", "TAG_BIT", "WAIT_BIT", "Queues"]

ENGINES = len(Engine)
WAIT_BIT, SIGNAL_BIT, TAG_BIT = 8, 12, 16
MOST_TOKENS = 255
TRACE_ENGINE_BIT, TRACE_BEGINS_BIT = 16, 18


class Queues:
    """Emits routines ``begin``, ``read_command``, ``trace_begin`` and ``finish``.

    Parameters
    ----------
    shared : Shared

    Attributes
    ----------
    count, first : Word
        Of each engine's queue: how many commands, where the oldest one is.
    queue, heads : Word
        Addresses and first words of the commands, queue after queue.
    tokens : Word
        Of each engine, those that each other one has given it. All words from `full_halves` to
        here are cleared when a program starts.
    active, tags : Word
        Whether an engine has a command, and its tag.
    begun : Word
        What ``begin`` says.
    """

    def __init__(self, shared: Shared) -> None:
        self.s, self.a = shared, shared.a
        a, depth = shared.a, shared.config.queue_depth
        self.count = a.word("queue_count", count=ENGINES)
        self.first = a.word("queue_first", count=ENGINES)
        self.active = a.word("active", count=ENGINES)
        self.fetched = a.word("fetched")
        self.end_seen = a.word("end_seen")
        self.fill_half, self.drain_half = a.word("fill_half"), a.word("drain_half")
        self.held = a.word("held")
        self.tokens = a.word("tokens", count=ENGINES * ENGINES)
        self.queue = a.word("queue", count=ENGINES * depth)
        self.heads = a.word("heads", count=ENGINES * depth)
        self.tags = a.word("tags", count=ENGINES)
        self.counter, self.pointer = a.word("counter"), a.word("pointer")
        self.back, self.back_read = a.word("back"), a.word("back_read")
        self.reader = a.word("reader")
        self.bit, self.takes = a.word("bit"), a.word("takes")
        self.begun = a.word("begun")

    def emit(self) -> None:
        """Emit the routines."""
        self._begin()
        self._read_command()
        self._finish()

    def shift_tag(self, head: Word) -> None:
        """Word `tag` and A = tag in the first word of a command."""
        self.s.shift_right(head, TAG_BIT)
        self.a.bits_and(0xFFFF)
        self.a.store(self.s.tag)

    def _begin(self) -> None:
        """Take the tokens of the command at the head of `unit`'s queue and read it.

        The queue is not empty. Word `begun` is 0 if a token is missing.
        """
        a, s, depth = self.a, self.s, self.s.config.queue_depth
        with a.routine("begin", self.back):
            a.move(self.begun, 0)
            a.look_up(self.first, s.unit)
            a.store(self.pointer)
            a.multiply(s.unit, depth, In.PRODUCT_LOW)
            a.add(self.pointer)
            a.add(self.heads.address)
            a.store(self.pointer)
            a.emit(Op.INDEX)
            a.emit(Op.LOAD_INDEXED)
            a.store(s.head)
            # Twice: are all of them there, and take them.
            a.move(self.takes, 0)
            a.label("begin.tokens")
            a.multiply(s.unit, ENGINES, In.PRODUCT_LOW)
            a.add(self.tokens.address)
            a.store(self.counter)
            a.move(self.bit, 1 << WAIT_BIT)
            a.label("begin.token")
            with self._tokens_of_bit():
                a.emit(Op.JUMP_ZERO, "begin.out")
                a.add(self.takes)
                a.emit(Op.STORE_INDEXED)
            a.increase(self.counter, 1)
            a.increase(self.bit, self.bit)
            a.add(-1 << SIGNAL_BIT)
            a.emit(Op.JUMP_NONZERO, "begin.token")
            a.load(self.takes)
            with a.unless(Op.JUMP_NONZERO):
                a.move(self.takes, -1)
                a.jump("begin.tokens")
            self.shift_tag(s.head)
            self._store_indexed(self.tags, s.tag)
            a.move(self.begun, 1)
            self._store_indexed(self.active, self.begun)
            a.call("trace_begin")
            # `pointer` is a place in `heads`.
            a.load(self.pointer)
            a.add(self.queue.address - self.heads.address)
            a.emit(Op.INDEX)
            a.emit(Op.LOAD_INDEXED)
            a.store(s.scratch[0])
            a.call("read_command")
            a.label("begin.out")

    def _read_command(self) -> None:
        """Show who is at work; read the command at `scratch[0]`; errors are the fetch unit's."""
        a, s = self.a, self.s
        with a.routine("trace_begin"):
            self._trace(begins=True)
        with a.routine("read_command", self.back_read):
            a.move(self.reader, s.unit)
            a.move(s.unit, int(Unit.FETCH))
            a.move(self.counter, COMMAND_WORDS)
            a.move(self.pointer, s.command.address)
            with a.repeat(self.counter):
                a.load(s.scratch[0])
                a.call("memory_read")
                a.store(s.scratch[1])
                a.increase(s.scratch[0], 4)
                a.load(self.pointer)
                a.emit(Op.INDEX)
                a.add(1)
                a.store(self.pointer)
                a.load(s.scratch[1])
                a.emit(Op.STORE_INDEXED)
            a.move(s.unit, self.reader)

    def _finish(self) -> None:
        """Remove `unit`'s command from its queue and give its tokens."""
        a, s, depth = self.a, self.s, self.s.config.queue_depth
        with a.routine("finish", self.back):
            # Its own copy: that of `begin` may be another command's by now.
            a.look_up(self.first, s.unit)
            a.store(self.pointer)
            a.add(1)
            a.bits_and(depth - 1)
            a.store(s.scratch[0])
            self._store_indexed(self.first, s.scratch[0])
            a.multiply(s.unit, depth, In.PRODUCT_LOW)
            a.add(self.pointer)
            a.look_up(self.heads)
            a.store(s.head)
            a.look_up(self.count, s.unit)
            a.add(-1)
            a.emit(Op.STORE_INDEXED)
            a.move(s.scratch[0], 0)
            self._store_indexed(self.active, s.scratch[0])
            self._trace(begins=False)
            a.load(s.unit)
            a.add(self.tokens.address)
            a.store(self.counter)
            a.move(self.bit, 1 << SIGNAL_BIT)
            a.label("finish.token")
            with self._tokens_of_bit():
                a.add(1)
                a.emit(Op.STORE_INDEXED)
                a.add(-MOST_TOKENS - 1)
                a.emit(Op.JUMP_ZERO, s.fail(ErrorCause.TOKEN_OVERFLOW))
            a.increase(self.counter, ENGINES)
            a.increase(self.bit, self.bit)
            a.add(-1 << SIGNAL_BIT + ENGINES)
            a.emit(Op.JUMP_NONZERO, "finish.token")

    @contextmanager
    def _tokens_of_bit(self) -> Iterator[None]:
        """What follows is done if the head has `bit`, with A = the tokens that `counter` names."""
        a = self.a
        a.load(self.s.head)
        a.bits_and(self.bit)
        with a.unless(Op.JUMP_ZERO):
            a.load(self.counter)
            a.emit(Op.INDEX)
            a.emit(Op.LOAD_INDEXED)
            yield

    def _store_indexed(self, array: Word, value: Word) -> None:
        """array[unit] = value."""
        a = self.a
        a.load(self.s.unit)
        a.add(array.address)
        a.emit(Op.INDEX)
        a.load(value)
        a.emit(Op.STORE_INDEXED)

    def _trace(self, *, begins: bool) -> None:
        a, s = self.a, self.s
        s.shift_left(s.unit, TRACE_ENGINE_BIT)
        a.add(s.tag)
        if begins:
            a.add(1 << TRACE_BEGINS_BIT)
        a.write(Out.TRACE)
