"""The queues of all engines in one memory."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BITS, Engine
from celosia.hw.control.queue import WORD_BITS, WORDS_PER_COMMAND, used_bits
from celosia.hw.fabric.block import BlockMemory
from celosia.hw.fabric.ports import CommandPort

__all__ = ["TRANSFERS", "SharedQueues"]

ENGINES = len(Engine)
PART_BITS = 32
PARTS_PER_COMMAND = COMMAND_BITS // PART_BITS
HEADER_PARTS = 1
"""Opcode, tokens and tag."""

TRANSFERS = (Engine.LOAD, Engine.STORE)
"""Engines of which one runs at a time."""


class SharedQueues(Component):
    """Commands in 64-bit words in, whole commands out.

    One block memory has the commands that wait, in parts of 32 bits. A command is put together in
    the registers that show it to its engine, a part a cycle, once it is all here and the one before
    it is complete: there is no second set of registers. Of engines that wait at the same time the
    array comes first, then the vector, the load and the store engine.

    Loads and stores, of which one runs at a time, share their registers but for the header, which
    the gates look at. The rest of one comes, before anything else, when its gate has let it pass.

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    i : In(stream of 64).array(4)
        By :class:`Engine`; words, eight a command, each taken in the second cycle in which it is
        shown. At most one is valid.
    o : Out(CommandPort).array(4)
        Of a transfer `valid` is about the header only.
    begun : In(4)
        The gate of the engine is open for its command.
    whole : Out(4)
        All of the engine's command is there.
    active : Out(1)
        Something moves.
    empty : Out(4)
        There is no command, and no part of one.
    waiting : Out(4)
        There is a command behind the one that is shown.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(WORD_BITS)).array(ENGINES),
                "o": Out(CommandPort()).array(ENGINES),
                "begun": In(ENGINES),
                "whole": Out(ENGINES),
                "active": Out(1),
                "empty": Out(ENGINES),
                "waiting": Out(ENGINES),
            }
        )

    @property
    def depth(self) -> int:
        """Commands that the memory holds for each engine."""
        return self._config.queue_depth

    def add_to(self, m: Module) -> None:
        """Make them a submodule."""
        m.submodules.queues = self

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth_bits = self.depth.bit_length() - 1
        index_bits = PARTS_PER_COMMAND.bit_length() - 1
        m.submodules.memory = memory = BlockMemory(
            width_bits=PART_BITS, depth=ENGINES * self.depth * PARTS_PER_COMMAND
        )

        # Commands that are all here; full by the highest bit alone.
        held = [Signal(depth_bits + 1, name=f"held_{e}") for e in range(ENGINES)]
        write_slot = Array(Signal(depth_bits, name=f"write_slot_{e}") for e in range(ENGINES))
        read_slot = Array(Signal(depth_bits, name=f"read_slot_{e}") for e in range(ENGINES))
        stored = Signal(ENGINES)
        issued = Signal(ENGINES)
        for e in range(ENGINES):
            m.d.sync += held[e].eq(held[e] + stored[e] - issued[e])

        # Write: the upper half of a word in the cycle in which it is taken.
        upper = Signal()
        word_index = Signal(range(WORDS_PER_COMMAND))
        sender = Signal(range(ENGINES))
        word = self.i[0].payload
        for e in range(1, ENGINES):
            with m.If(self.i[e].valid):
                m.d.comb += sender.eq(e)
        writes = Cat(self.i[e].valid & ~held[e][-1] for e in range(ENGINES))
        m.d.comb += [
            *(self.i[e].ready.eq(upper & ~held[e][-1]) for e in range(ENGINES)),
            memory.write_en.eq(writes.any()),
            memory.write_addr.eq(Cat(upper, word_index, write_slot[sender], sender)),
            memory.write_data.eq(word.word_select(upper, PART_BITS)),
        ]
        with m.If(writes.any()):
            m.d.sync += upper.eq(~upper)
            with m.If(upper):
                m.d.sync += word_index.eq(word_index + 1)
                with m.If(word_index == WORDS_PER_COMMAND - 1):
                    m.d.comb += stored.eq(1 << sender)
                    m.d.sync += write_slot[sender].eq(write_slot[sender] + 1)

        self._read(m, memory, held, read_slot, issued, index_bits)
        m.d.comb += [
            self.active.eq(
                Cat(writes.any(), self._moves, *(port.ready for port in self.o)).any(),
            ),
            self.waiting.eq(Cat(held[e].any() for e in range(ENGINES))),
            self.empty.eq(
                Cat(
                    ~(held[e].any() | self._complete[e] | self.o[e].valid | (word_index != 0))
                    for e in range(ENGINES)
                )
            ),
        ]
        return m

    def _read(
        self,
        m: Module,
        memory: BlockMemory,
        held: list[Signal],
        read_slot: Array,
        issued: Signal,
        index_bits: int,
    ) -> None:
        """Put the commands together, one after another."""
        # What is to be shown first has been asked for, and the command is not done.
        self._complete = complete = Signal(ENGINES)
        wanted = Cat(held[e].any() & ~complete[e] for e in range(ENGINES))
        # The same of the rest of a transfer.
        rest_asked, any_rest = Signal(), Signal()
        m.d.comb += any_rest.eq(Cat(self.begun[e] for e in TRANSFERS).any() & ~rest_asked)
        reader = Signal(range(ENGINES))
        index = Signal(index_bits)
        reading, last, ends = Signal(), Signal(), Signal()
        with m.If(~reading):
            with m.If(wanted.any() | any_rest):
                m.d.sync += reading.eq(1)
            for engine in (Engine.STORE, Engine.LOAD, Engine.VECTOR, Engine.ARRAY):
                with m.If(wanted[engine]):
                    m.d.sync += [reader.eq(engine), index.eq(0)]
            for engine in TRANSFERS:
                with m.If(self.begun[engine] & ~rest_asked):
                    m.d.sync += [reader.eq(engine), index.eq(HEADER_PARTS), rest_asked.eq(1)]
        with m.Switch(reader):
            for engine in Engine:
                with m.Case(int(engine)):
                    m.d.comb += ends.eq(index == _parts_of(engine) - 1)
                    m.d.comb += last.eq(
                        ends | ((index == HEADER_PARTS - 1) if engine in TRANSFERS else 0)
                    )
        m.d.comb += memory.read_addr.eq(Cat(index, read_slot[reader], reader))
        with m.If(reading):
            m.d.sync += index.eq(index + 1)
            with m.If(last):
                m.d.sync += [reading.eq(0), complete.bit_select(reader, 1).eq(1)]
            with m.If(ends):
                m.d.comb += issued.eq(1 << reader)
                m.d.sync += read_slot[reader].eq(read_slot[reader] + 1)

        arrives, arrives_last = Signal(), Signal()
        arrived_reader = Signal.like(reader, reset_less=True)
        arrived_index = Signal.like(index, reset_less=True)
        m.d.sync += [
            arrives.eq(reading),
            arrives_last.eq(reading & last),
            arrived_reader.eq(reader),
            arrived_index.eq(index),
        ]
        self._moves: Value = wanted.any() | any_rest | reading | arrives

        def shown(name: str, parts: int, shifts: Value) -> Signal:
            """Return the register of parts that come one after another, the lowest first.

            They are shifted through it: what the memory gives goes to few places.
            """
            register = Signal(parts * PART_BITS, name=f"current_{name}", reset_less=True)
            with m.If(shifts):
                m.d.sync += register.eq(Cat(register[PART_BITS:], memory.read_data))
            return register

        arrives_rest = arrives & (arrived_index >= HEADER_PARTS)
        of_transfer = Cat(arrived_reader == int(engine) for engine in TRANSFERS).any()
        rest_parts = max(_parts_of(engine) for engine in TRANSFERS) - HEADER_PARTS
        rest = shown("rest", rest_parts, arrives_rest & of_transfer)
        for engine in Engine:
            port = self.o[engine]
            name = engine.name.lower()
            here = Signal(name=f"arrives_{name}")
            m.d.comb += here.eq(arrives & (arrived_reader == int(engine)))
            with m.If(here & arrives_last):
                m.d.sync += port.valid.eq(1)
            with m.If(port.valid & port.ready):
                m.d.sync += [port.valid.eq(0), complete[engine].eq(0)]
            if engine not in TRANSFERS:
                command = shown(name, _parts_of(engine), here)
                m.d.comb += [port.payload.eq(command), self.whole[engine].eq(port.valid)]
                continue
            header = shown(name, HEADER_PARTS, here & ~arrives_rest)
            whole = Signal(name=f"whole_{name}")
            m.d.comb += [port.payload.eq(Cat(header, rest)), self.whole[engine].eq(whole)]
            with m.If(here & arrives_rest & arrives_last):
                m.d.sync += whole.eq(1)
            with m.If(whole & port.ready):
                m.d.sync += [whole.eq(0), rest_asked.eq(0)]


def _parts_of(engine: Engine) -> int:
    """Return the parts of a command of the engine that have fields in them."""
    return -(-used_bits(engine) // PART_BITS)
