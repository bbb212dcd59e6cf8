"""The main program: waits for the doorbell, fetches commands, keeps queues and tokens.

Commands run in turn, not side by side. A `Conv` and the `Vector` command that takes its tiles are
coroutines: each gives way while it waits for an accumulator half.
"""

from __future__ import annotations

from celosia.hw.contract.isa import COMMAND_BYTES, End, Engine, Opcode
from celosia.hw.contract.regs import COUNTERS, ErrorCause
from celosia.hw.contract.units import Unit
from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.queues import ENGINES, SIGNAL_BIT, TAG_BIT, WAIT_BIT, Queues
from celosia.hw.nano.firmware.shared import Shared
from celosia.hw.nano.instructions import In, Op, Out, Status

__all__ = ["Scheduler"]

FINISH_DONE, FINISH_ERROR = 1, 2
WORD_BYTES = 4


class Scheduler:
    """Emits the main program and the routines that commands begin and end with.

    Parameters
    ----------
    shared : Shared

    Attributes
    ----------
    queues : Queues
    """

    def __init__(self, shared: Shared) -> None:
        self.s, self.a = shared, shared.a
        a = shared.a
        self.queues = Queues(shared)
        self.resume = {
            engine: a.word(f"resume_{engine.name}") for engine in (Engine.ARRAY, Engine.VECTOR)
        }
        self.fetch_at, self.fetch_last = a.word("fetch_at"), a.word("fetch_last")
        self.next_head = a.word("next_head")
        self.entered = a.word("entered")
        self.back = a.word("back_dispatch")
        self.busy_counters = a.table(
            "busy_counters", [self.busy_counter(engine).address for engine in Engine]
        )

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
        self.queues.emit()
        self._watchdog()
        self._fail()

    def _start(self) -> None:
        a = self.a
        counters = self.s.register(f"count_{COUNTERS[0][0]}")
        for first, count in (
            (counters, len(COUNTERS)),
            (
                self.s.full_halves,
                self.queues.tokens.address + ENGINES**2 - self.s.full_halves.address,
            ),
        ):
            a.move(self.queues.pointer, first.address)
            a.move(self.queues.counter, count)
            with a.repeat(self.queues.counter):
                a.load(self.queues.pointer)
                a.emit(Op.INDEX)
                a.add(1)
                a.store(self.queues.pointer)
                a.load(0)
                a.emit(Op.STORE_INDEXED)
        a.load(0)
        a.store(self.s.register("error_cause"), self.s.register("error_address"))
        a.load(self.s.region_base[0])
        a.bits_and(-WORD_BYTES)
        a.store(self.fetch_at)
        a.add(self.s.register("region0_size"))
        a.sub(COMMAND_BYTES)
        a.store(self.fetch_last)
        # A base that is not aligned: there is no region.
        a.load(self.fetch_at)
        a.sub(self.s.region_base[0])
        with a.unless(Op.JUMP_ZERO):
            a.load(self.fetch_at)
            a.add(-1)
            a.store(self.fetch_last)

    def _serve(self, engine: Engine) -> None:
        """Let an engine go on, or begin its next command."""
        a, name = self.a, engine.name
        resumes = engine in self.resume
        if resumes:
            a.load(self.queues.active[engine])
            a.emit(Op.JUMP_NONZERO, f"{name}.go_on")
        a.load(self.queues.count[engine])
        a.emit(Op.JUMP_ZERO, f"{name}.next")
        a.move(self.s.unit, int(engine))
        a.call("begin")
        a.load(self.queues.begun)
        a.emit(Op.JUMP_ZERO, f"{name}.next")
        a.read(In.CYCLES)
        a.store(self.entered)
        a.jump(f"{name}.command")
        if resumes:
            a.label(f"{name}.go_on")
            a.move(self.s.unit, int(engine))
            a.move(self.s.tag, self.queues.tags[engine])
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
        a.load(self.queues.end_seen)
        a.emit(Op.JUMP_ZERO, "turn")
        a.load(0)
        for engine in Engine:
            a.add(self.queues.count[engine])
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
            a.load(self.queues.end_seen)
            a.emit(Op.JUMP_NONZERO, "dispatch.out")
            a.load(self.queues.fetched)
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
            a.move(self.queues.fetched, 1)
            a.label("dispatch.decode")
            self.queues.shift_tag(self.next_head)
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
            a.move(self.queues.end_seen, 1)
            a.jump("dispatch.out")
            for engine in Engine:
                a.label(f"dispatch.{engine.name}")
                self._refuse_tokens(engine)
                a.load(self.queues.count[engine])
                a.sub(depth)
                a.emit(Op.JUMP_ZERO, "dispatch.out")
                a.increase(self.queues.count[engine], 1)
                a.add(self.queues.first[engine])
                a.add(-1)
                a.bits_and(depth - 1)
                a.add(self.queues.queue[engine * depth].address)
                a.jump("dispatch.put")
            a.label("dispatch.put")
            a.emit(Op.INDEX)
            a.add(self.queues.heads.address - self.queues.queue.address)
            a.store(s.scratch[0])
            a.load(self.fetch_at)
            a.emit(Op.STORE_INDEXED)
            a.add(COMMAND_BYTES)
            a.store(self.fetch_at)
            a.load(s.scratch[0])
            a.emit(Op.INDEX)
            a.load(self.next_head)
            a.emit(Op.STORE_INDEXED)
            a.move(self.queues.fetched, 0)
            a.label("dispatch.out")

    def _refuse_tokens(self, *engines: Engine) -> None:
        """Emit ILLEGAL_FIELD if the command to be dispatched takes or gives these tokens."""
        a = self.a
        a.load(self.next_head)
        a.bits_and(sum(1 << WAIT_BIT + e | 1 << SIGNAL_BIT + e for e in engines))
        a.emit(Op.JUMP_NONZERO, self.s.fail(ErrorCause.ILLEGAL_FIELD, Unit.FETCH))

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
            a.look_up(self.busy_counters, s.unit)
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
