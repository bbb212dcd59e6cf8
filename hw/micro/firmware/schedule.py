"""The main program: waits for the doorbell, fetches commands, keeps queues and tokens.

Commands run in turn, not side by side. A `Conv` and the `Vector` command that takes its tiles are
coroutines: each gives way while it waits for an accumulator half.
"""

from __future__ import annotations

from celosia.hw.control.units import Unit
from celosia.hw.isa import COMMAND_BYTES, End, Engine, Opcode
from celosia.hw.micro.assembler import Word
from celosia.hw.micro.firmware.shared import COMMAND_WORDS, Shared
from celosia.hw.micro.instructions import In, Op, Out, Status
from celosia.hw.regs import COUNTERS, ErrorCause

__all__ = ["Scheduler"]

ENGINES = len(Engine)
WAIT_BIT, SIGNAL_BIT, TAG_BIT = 8, 12, 16
MOST_TOKENS = 255
FINISH_DONE, FINISH_ERROR = 1, 2
TRACE_ENGINE_BIT, TRACE_BEGINS_BIT = 16, 18


class Scheduler:
    """Emits the main program and the routines that commands begin and end with.

    Parameters
    ----------
    shared : Shared
    """

    def __init__(self, shared: Shared) -> None:
        self.s, self.a = shared, shared.a
        a, depth = shared.a, shared.config.queue_depth
        # From here to the end of the tokens everything is cleared when a program starts.
        self.full_halves = shared.full_halves
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
        self.resume = {
            engine: a.word(f"resume_{engine.name}") for engine in (Engine.ARRAY, Engine.VECTOR)
        }
        self.fetch_at, self.fetch_last = a.word("fetch_at"), a.word("fetch_last")
        self.next_head = a.word("next_head")
        self.entered = a.word("entered")
        self.counter, self.pointer = a.word("counter"), a.word("pointer")
        self.back, self.back_read = a.word("back"), a.word("back_read")
        self.reader = a.word("reader")
        self.busy_counters = a.table(
            "busy_counters", [self.busy_counter(engine).address for engine in Engine]
        )
        self.bit, self.takes = a.word("bit"), a.word("takes")
        self.begun = a.word("begun")

    def busy_counter(self, engine: Engine) -> Word:
        """Return the register that counts the cycles of an engine's commands.

        The array's own cycles are moved from there to ``count_array_busy``.
        """
        if engine is Engine.ARRAY:
            return self.s.register("count_array_start")
        return self.s.register(f"count_{engine.name.lower()}_busy")

    def emit(self) -> None:
        """Emit all of it; the first instruction is that of the reset."""
        a = self.a
        a.label("reset")
        a.read(In.STATUS)
        a.bits_and(1 << Status.RUNNING)
        a.emit(Op.JUMP_ZERO, "reset")
        self._start()
        a.label("turn")
        a.call("dispatch")
        for engine in Engine:
            self._serve(engine)
        a.call("check_watchdog")
        self._end()
        self._dispatch()
        self._begin()
        self._read_command()
        self._finish()
        self._watchdog()
        self._fail()

    def _start(self) -> None:
        a = self.a
        counters = self.s.register(f"count_{COUNTERS[0][0]}")
        for first, count in (
            (counters, len(COUNTERS)),
            (self.full_halves, self.tokens.address + ENGINES**2 - self.full_halves.address),
        ):
            a.move(self.pointer, first.address)
            a.move(self.counter, count)
            with a.repeat(self.counter):
                a.load(self.pointer)
                a.emit(Op.INDEX)
                a.add(1)
                a.store(self.pointer)
                a.load(0)
                a.emit(Op.STORE_INDEXED)
        a.load(0)
        a.store(self.s.register("error_cause"), self.s.register("error_address"))
        a.load(self.s.region_base[0])
        a.store(self.fetch_at)
        a.add(self.s.register("region0_size"))
        a.sub(COMMAND_BYTES)
        a.store(self.fetch_last)

    def _serve(self, engine: Engine) -> None:
        """Let an engine go on, or begin its next command."""
        a, name = self.a, engine.name
        resumes = engine in self.resume
        if resumes:
            a.load(self.active[engine])
            a.emit(Op.JUMP_NONZERO, f"{name}.go_on")
        a.load(self.count[engine])
        a.emit(Op.JUMP_ZERO, f"{name}.next")
        a.move(self.s.unit, int(engine))
        a.call("begin")
        a.load(self.begun)
        a.emit(Op.JUMP_ZERO, f"{name}.next")
        a.read(In.CYCLES)
        a.store(self.entered)
        a.jump(f"{name}.command")
        if resumes:
            a.label(f"{name}.go_on")
            a.move(self.s.unit, int(engine))
            a.move(self.s.tag, self.tags[engine])
            a.call("trace_begin")
            a.read(In.CYCLES)
            a.store(self.entered)
            a.load(self.resume[engine])
            a.emit(Op.JUMP_TO_A)
            a.label(f"{name}.wait")
            a.emit(Op.LINK)
            a.store(self.resume[engine])
            a.call("count_time")
            a.jump(f"{name}.next")
        a.label(f"{name}.done")
        a.call("count_time")
        a.call("finish")
        a.label(f"{name}.next")

    def _end(self) -> None:
        a = self.a
        a.load(self.end_seen)
        a.emit(Op.JUMP_ZERO, "turn")
        a.load(0)
        for engine in Engine:
            a.add(self.count[engine])
        a.emit(Op.JUMP_NONZERO, "turn")
        # Nothing of an engine's command is left when it has ended, so idle is the rest.
        a.read(In.CYCLES)
        for engine in Engine:
            a.sub(self.busy_counter(engine))
        a.sub(self.s.register("count_array_busy"))
        a.store(self.s.register("count_idle"))
        a.write(Out.FINISH, FINISH_DONE)
        a.jump("reset")

    def _dispatch(self) -> None:
        """Fetch the next command's first word and put it into its engine's queue."""
        a, s, depth = self.a, self.s, self.s.config.queue_depth
        with a.routine("dispatch", self.back):
            a.load(self.end_seen)
            a.emit(Op.JUMP_NONZERO, "dispatch.out")
            a.load(self.fetched)
            a.emit(Op.JUMP_NONZERO, "dispatch.decode")
            a.load(self.fetch_at)
            a.sub(self.fetch_last)
            a.add(-1)
            with a.unless(Op.JUMP_NEGATIVE):
                a.move(s.error_address, self.fetch_at)
                a.jump(s.fail(ErrorCause.FETCH_WINDOW, Unit.FETCH))
            a.move(s.unit, int(Unit.FETCH))
            a.load(self.fetch_at)
            a.call("memory_read")
            a.store(self.next_head)
            a.move(self.fetched, 1)
            a.label("dispatch.decode")
            self.shift_tag(self.next_head)
            a.load(self.next_head)
            a.bits_and(0xFF)
            before = 0
            for opcode in sorted(Opcode):
                a.sub(opcode - before)
                before = opcode
                engine = (opcode >> 4) - 1
                target = f"dispatch.{Engine(engine).name}" if engine >= 0 else "dispatch.end"
                a.emit(Op.JUMP_ZERO, target)
            a.jump(s.fail(ErrorCause.ILLEGAL_OPCODE, Unit.FETCH))
            a.label("dispatch.end")
            self._refuse_tokens(*Engine)
            a.move(s.scratch[0], self.fetch_at)
            a.call("read_command")
            s.check_reserved(End)
            a.move(self.end_seen, 1)
            a.jump("dispatch.out")
            for engine in Engine:
                a.label(f"dispatch.{engine.name}")
                self._refuse_tokens(engine)
                a.load(self.count[engine])
                a.sub(depth)
                a.emit(Op.JUMP_ZERO, "dispatch.out")
                a.increase(self.count[engine], 1)
                a.add(self.first[engine])
                a.add(-1)
                a.bits_and(depth - 1)
                a.add(self.queue[engine * depth].address)
                a.jump("dispatch.put")
            a.label("dispatch.put")
            a.emit(Op.INDEX)
            a.add(self.heads.address - self.queue.address)
            a.store(s.scratch[0])
            a.load(self.fetch_at)
            a.emit(Op.STORE_INDEXED)
            a.add(COMMAND_BYTES)
            a.store(self.fetch_at)
            a.load(s.scratch[0])
            a.emit(Op.INDEX)
            a.load(self.next_head)
            a.emit(Op.STORE_INDEXED)
            a.move(self.fetched, 0)
            a.label("dispatch.out")

    def _refuse_tokens(self, *engines: Engine) -> None:
        """Emit ILLEGAL_FIELD if the command to be dispatched takes or gives these tokens."""
        a = self.a
        a.load(self.next_head)
        a.bits_and(sum(1 << WAIT_BIT + e | 1 << SIGNAL_BIT + e for e in engines))
        a.emit(Op.JUMP_NONZERO, self.s.fail(ErrorCause.ILLEGAL_FIELD, Unit.FETCH))

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
            self._load_indexed(self.first, s.unit)
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
            a.load(s.head)
            a.bits_and(self.bit)
            with a.unless(Op.JUMP_ZERO):
                a.load(self.counter)
                a.emit(Op.INDEX)
                a.emit(Op.LOAD_INDEXED)
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
            self._load_indexed(self.first, s.unit)
            a.store(self.pointer)
            a.add(1)
            a.bits_and(depth - 1)
            a.store(s.scratch[0])
            self._store_indexed(self.first, s.scratch[0])
            a.multiply(s.unit, depth, In.PRODUCT_LOW)
            a.add(self.pointer)
            a.add(self.heads.address)
            a.emit(Op.INDEX)
            a.emit(Op.LOAD_INDEXED)
            a.store(s.head)
            self._load_indexed(self.count, s.unit)
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
            a.load(s.head)
            a.bits_and(self.bit)
            with a.unless(Op.JUMP_ZERO):
                a.load(self.counter)
                a.emit(Op.INDEX)
                a.emit(Op.LOAD_INDEXED)
                a.add(1)
                a.emit(Op.STORE_INDEXED)
                a.add(-MOST_TOKENS - 1)
                a.emit(Op.JUMP_ZERO, s.fail(ErrorCause.TOKEN_OVERFLOW))
            a.increase(self.counter, ENGINES)
            a.increase(self.bit, self.bit)
            a.add(-1 << SIGNAL_BIT + ENGINES)
            a.emit(Op.JUMP_NONZERO, "finish.token")

    def _watchdog(self) -> None:
        a, s = self.a, self.s
        limit = s.register("watchdog")
        with a.routine("check_watchdog"):
            a.load(limit)
            with a.unless(Op.JUMP_ZERO):
                a.emit(Op.JUMP_NEGATIVE, "check_watchdog.out")
                a.read(In.CYCLES)
                a.sub(limit)
                a.emit(Op.JUMP_POSITIVE, s.fail(ErrorCause.WATCHDOG, Unit.FETCH))
            a.label("check_watchdog.out")
        with a.routine("count_time"):
            # Since the command went on; to the counter of its engine.
            self._load_indexed(self.busy_counters, s.unit)
            a.emit(Op.INDEX)
            a.read(In.CYCLES)
            a.sub(self.entered)
            a.store(s.scratch[0])
            a.emit(Op.LOAD_INDEXED)
            a.add(s.scratch[0])
            a.emit(Op.STORE_INDEXED)

    def _fail(self) -> None:
        """End with an error: cause in A; `unit`, `tag` and the address are in their words."""
        a, s = self.a, self.s
        a.label("fail.nowhere")
        a.store(s.scratch[0])
        a.move(s.error_address, 0)
        a.load(s.scratch[0])
        a.label("fail")
        a.store(s.scratch[0])
        a.move(s.register("error_address"), s.error_address)
        s.shift_left(s.unit, 8)
        a.add(s.scratch[0])
        a.store(s.scratch[0])
        s.shift_left(s.tag, TAG_BIT)
        a.add(s.scratch[0])
        a.store(s.register("error_cause"))
        a.write(Out.FINISH, FINISH_ERROR)
        # The soft reset is the way out.
        a.label("failed")
        a.jump("failed")

    def _load_indexed(self, array: Word, index: Word) -> None:
        """A = array[index]; X stays there."""
        a = self.a
        a.load(index)
        a.add(array.address)
        a.emit(Op.INDEX)
        a.emit(Op.LOAD_INDEXED)

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
