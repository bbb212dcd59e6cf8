"""The queue of one engine's commands."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BITS, COMMANDS, Engine, fields_of
from celosia.hw.fabric.block import BlockMemory
from celosia.hw.fabric.count import count
from celosia.hw.fabric.ports import CommandPort

__all__ = [
    "CommandQueue",
    "DirectCommandQueue",
    "SeparateQueues",
    "WORD_BITS",
    "WORDS_PER_COMMAND",
    "used_bits",
]

WORD_BITS = 64
WORDS_PER_COMMAND = COMMAND_BITS // WORD_BITS
_INDEX_BITS = WORDS_PER_COMMAND.bit_length() - 1


def used_bits(engine: Engine) -> int:
    """Return the bits that the longest of the engine's commands has fields in."""
    kinds = [kind for kind in COMMANDS.values() if engine == (kind.OPCODE >> 4) - 1]
    return max(sum(spec.width_bits for spec in fields_of(kind)) for kind in kinds)


class CommandQueue(Component):
    """Commands in 64-bit words in, whole commands out.

    The words wait in one block RAM. The command at the head is put together in registers while
    the one before it runs, so that it can follow in the next cycle. Only words in which the
    engine's commands have fields are kept; the dispatcher has checked that the rest is zero.

    Parameters
    ----------
    config : NpuConfig
    engine : Engine
        Whose commands they are.

    Members
    -------
    i : In(stream of 64)
        Words, eight a command.
    o : Out(CommandPort)
        Its first word is there with `valid`, in time for the gate; the others a cycle later.
    active : Out(1)
        Something moves.
    empty : Out(1)
        There is no command, and no part of one.
    waiting : Out(1)
        There is a command behind the one that is shown.
    """

    def __init__(self, config: NpuConfig, *, engine: Engine) -> None:
        self._config = config
        self._used_bits = used_bits(engine)
        super().__init__(
            {
                "i": In(stream.Signature(WORD_BITS)),
                "o": Out(CommandPort()),
                "active": Out(1),
                "empty": Out(1),
                "waiting": Out(1),
            }
        )

    @property
    def depth(self) -> int:
        """Commands that the memory holds."""
        return self._config.queue_depth

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slot_bits = self.depth.bit_length()  # one more than an address needs: full or empty
        used_words = -(-self._used_bits // WORD_BITS)
        m.submodules.memory = memory = BlockMemory(
            width_bits=WORD_BITS, depth=self.depth * WORDS_PER_COMMAND
        )

        write_index = Signal(_INDEX_BITS)
        write_slot = Signal(slot_bits)
        read_index = Signal(_INDEX_BITS)
        read_slot = Signal(slot_bits)
        kept_index = Signal(_INDEX_BITS)
        # All words of a command but the last one are shifted through: what the memory gives late in
        # its cycle goes to two places only.
        first = Signal((used_words - 1) * WORD_BITS, reset_less=True)
        last = Signal(self._used_bits - len(first), reset_less=True)
        # Commands in the memory; full by its highest bit alone, as the dispatcher waits for it.
        held = Signal(slot_bits)
        written, released = Signal(), Signal()
        taken = Signal()
        # Write.
        m.d.comb += [
            self.i.ready.eq(~held[-1]),
            taken.eq(self.i.valid & self.i.ready),
            memory.write_addr.eq(Cat(write_index, write_slot[:-1])),
            memory.write_data.eq(self.i.payload),
            memory.write_en.eq(taken & (write_index < used_words)),
        ]
        with m.If(taken):
            m.d.sync += write_index.eq(write_index + 1)
            with m.If(write_index == WORDS_PER_COMMAND - 1):
                m.d.comb += written.eq(1)
                m.d.sync += [kept_index.eq(0), write_slot.eq(write_slot + 1)]
            with m.Elif(write_index < used_words - 1):
                m.d.sync += kept_index.eq(write_index + 1)

        # Read, word by word, until a command is complete. The last word is held back until all of
        # the command is here: the dispatcher may yet refuse it.
        issue = Signal()
        complete = Signal()
        arrived, arrived_last = Signal(), Signal()
        m.d.comb += [
            memory.read_addr.eq(Cat(read_index, read_slot[:-1])),
            issue.eq(~complete & ((read_slot != write_slot) | (read_index != kept_index))),
            self.empty.eq(
                (read_slot == write_slot) & (write_index == 0) & ~complete & ~self.o.valid
            ),
        ]
        m.d.sync += [arrived.eq(issue), arrived_last.eq(read_index == used_words - 1)]
        count(m, held, written, released)
        with m.If(issue):
            m.d.sync += read_index.eq(read_index + 1)
            with m.If(read_index == used_words - 1):
                m.d.comb += released.eq(1)
                m.d.sync += [read_index.eq(0), read_slot.eq(read_slot + 1), complete.eq(1)]
        with m.If(arrived & ~arrived_last):
            m.d.sync += first.eq(Cat(first[WORD_BITS:], memory.read_data))
        with m.If(arrived & arrived_last):
            m.d.sync += last.eq(memory.read_data)
        ends = arrived & arrived_last
        moves = self._show(m, Cat(first, last), ends, complete, held.any())
        m.d.comb += self.active.eq(taken | issue | arrived | moves | self.o.ready)
        return m

    def _show(
        self, m: Module, following: Value, ends: Value, complete: Signal, more: Value
    ) -> Value:
        """Show what is put together, which is there in the cycle after `ends`, when it may be.

        Return whether something moves. `complete`, as all of it has been asked for, is cleared when
        the next one may be read; there may be `more` in the memory.
        """
        current = Signal(self._used_bits, reset_less=True)
        following_valid = Signal()
        move, moved = Signal(), Signal()
        m.d.comb += [
            # An engine's `ready` comes late in the cycle: what does not have to follow at once does
            # so in the next one.
            move.eq(following_valid & ~moved & (~self.o.valid | self.o.ready)),
            self.o.payload.eq(current),
            self.waiting.eq(complete | more),
        ]
        with m.If(ends):
            m.d.sync += following_valid.eq(1)
        m.d.sync += moved.eq(move)
        with m.If(moved):
            m.d.sync += [
                current[WORD_BITS:].eq(following[WORD_BITS:]),
                following_valid.eq(0),
                complete.eq(0),
            ]
        with m.If(move):
            m.d.sync += current[:WORD_BITS].eq(following[:WORD_BITS])
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += self.o.valid.eq(following_valid & ~moved)
        return move | moved


class DirectCommandQueue(CommandQueue):
    """A queue that puts a command together where it is shown.

    There is no second set of registers. A command follows the one before it later by as many cycles
    as it has words, and one.
    """

    def _show(
        self, m: Module, following: Value, ends: Value, complete: Signal, more: Value
    ) -> Value:
        m.d.comb += [self.o.payload.eq(following), self.waiting.eq(more)]
        with m.If(ends):
            m.d.sync += self.o.valid.eq(1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), complete.eq(0)]
        return Const(0)


class SeparateQueues:
    """A :class:`CommandQueue` for each engine.

    It is no component, so that each queue is one of whoever has them.

    Parameters
    ----------
    config : NpuConfig
    direct : tuple of Engine
        Whose is a :class:`DirectCommandQueue`.

    Attributes
    ----------
    i, o, begun, whole, empty, waiting
        As the members of :class:`celosia.hw.control.shared_queue.SharedQueues`; whatever is shown
        is a whole command, and `begun` is not looked at.
    active : Value
        One bit for each engine: something moves.
    """

    def __init__(self, config: NpuConfig, *, direct: tuple[Engine, ...] = ()) -> None:
        self._queues = {
            engine: (DirectCommandQueue if engine in direct else CommandQueue)(
                config, engine=engine
            )
            for engine in Engine
        }
        queues = self._queues.values()
        self.i = [queue.i for queue in queues]
        self.o = [queue.o for queue in queues]
        self.begun = Signal(len(Engine))
        self.whole = Const(~0, len(Engine))
        self.active = Cat(queue.active for queue in queues)
        self.empty = Cat(queue.empty for queue in queues)
        self.waiting = Cat(queue.waiting for queue in queues)

    def add_to(self, m: Module) -> None:
        """Make them submodules."""
        for engine, queue in self._queues.items():
            m.submodules[f"queue_{engine.name.lower()}"] = queue
