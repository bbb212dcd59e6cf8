"""The processor that runs the firmware."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.nano.assembler import Image
from celosia.hw.nano.instructions import (
    ARGUMENT_BITS,
    CODE_WORDS,
    DATA_ADDRESS_BITS,
    DATA_WORDS,
    INSTRUCTION_BITS,
    PORT_BITS,
    Class,
    Op,
)

__all__ = ["Processor"]

WORD_BITS = 32
CODE_PARTS = (2048, CODE_WORDS - 2048)
"""Words of the memories that hold the code: each of a depth that block memories have."""


class Processor(Component):
    """An accumulator machine, two cycles an instruction (:mod:`celosia.hw.nano.instructions`).

    In the first cycle of an instruction its operand is read, in the second it is carried out, and
    the next instruction is read. At power-on the first instruction has no operand yet: it has to be
    one that needs none. Data memory has one read and one write port; in the cycles in which the
    processor does not use them the host does.

    Parameters
    ----------
    image : Image
        Code, and data at power-on.

    Members
    -------
    restart : In(1)
        Go to the first instruction.
    stay : In(1)
        Carry out no other than that one; the host keeps its turns.
    hold : In(1)
        What WAIT waits for the end of.
    port : Out(8)
        The port's number, of IN and OUT.
    read_data : In(32)
        Of port `port`, in the same cycle.
    read, write : Out(1)
        IN or OUT is carried out.
    write_data : Out(32)
    factor_a, factor_b : Out(1)
        `factor` is a factor of the multiplier.
    factor : Out(32)
    host_turn : Out(1)
        In this cycle the host may give an address; `host_data` is there in the next one.
        In cycles without it the host may write.
    host_address : In(9)
    host_data : Out(32)
    host_write : In(4)
        Bytes of `host_write_data` to be written.
    host_write_data : In(32)
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        super().__init__(
            {
                "restart": In(1),
                "stay": In(1),
                "hold": In(1),
                "port": Out(PORT_BITS),
                "read_data": In(WORD_BITS),
                "read": Out(1),
                "write": Out(1),
                "write_data": Out(WORD_BITS),
                "factor_a": Out(1),
                "factor_b": Out(1),
                "factor": Out(WORD_BITS),
                "host_turn": Out(1),
                "host_address": In(DATA_ADDRESS_BITS),
                "host_data": Out(WORD_BITS),
                "host_write": In(WORD_BITS // 8),
                "host_write_data": In(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The second cycle of an instruction.
        second = Signal()
        m.d.sync += second.eq(~second)
        accumulator = Signal(WORD_BITS, reset_less=True)
        follows = Signal(ARGUMENT_BITS)
        link = Signal(ARGUMENT_BITS, reset_less=True)
        instruction = Signal(INSTRUCTION_BITS)
        m.d.comb += instruction.eq(self._code(m, follows))
        ops = self._decode(m, instruction)
        operand = self._data(m, ops, instruction, second, accumulator)
        result, takes = self._result(m, ops, instruction, accumulator, operand, link)
        with m.If(second & takes):
            m.d.sync += accumulator.eq(result)
        m.d.comb += [
            self.port.eq(instruction),
            self.read.eq(second & ops[Op.IN]),
            self.write.eq(second & ops[Op.OUT]),
            self.write_data.eq(accumulator),
            self.factor_a.eq(second & ops[Op.FACTOR_A]),
            self.factor_b.eq(second & ops[Op.FACTOR_B]),
            self.factor.eq(operand),
        ]
        self._sequence(m, ops, instruction, second, accumulator, link, follows)
        with m.If(self.restart):
            # The instruction is there in the next cycle: its first one.
            m.d.sync += second.eq(0)
        return m

    @staticmethod
    def _decode(m: Module, instruction: Signal) -> dict[Op, Signal]:
        """Return a flag for each operation."""
        kind = instruction[ARGUMENT_BITS:]
        ops = {}
        for op in Op:
            matches = kind == op >> 4
            if op >> 4 == Class.OTHER:
                matches &= instruction[PORT_BITS : PORT_BITS + 4] == op & 0xF
            elif op >> 4 == Class.DATA:
                matches &= instruction[DATA_ADDRESS_BITS:ARGUMENT_BITS] == op & 0x7
            ops[op] = Signal(name=f"is_{op.name.lower()}")
            m.d.comb += ops[op].eq(matches)
        return ops

    def _data(
        self,
        m: Module,
        ops: dict[Op, Signal],
        instruction: Signal,
        second: Signal,
        accumulator: Signal,
    ) -> Signal:
        """Data memory, the processor's and the host's by turns. Return the word that was read."""
        index = Signal(DATA_ADDRESS_BITS, reset_less=True)
        with m.If(second & ops[Op.INDEX]):
            m.d.sync += index.eq(accumulator)
        m.submodules.data = data = Memory(
            shape=WORD_BITS,
            depth=DATA_WORDS,
            init=list(self._image.data),
            attrs={"no_rw_check": 1},
        )
        read_port = data.read_port(domain="comb")
        write_port = data.write_port(granularity=8)
        place, operand = Signal(DATA_ADDRESS_BITS), Signal(WORD_BITS)
        indexed = ops[Op.LOAD_INDEXED] | ops[Op.STORE_INDEXED]
        stores = ops[Op.STORE] | ops[Op.STORE_INDEXED]
        m.d.sync += operand.eq(read_port.data)
        m.d.comb += [
            place.eq(Mux(indexed, index, instruction)),
            read_port.addr.eq(Mux(second, self.host_address, place)),
            write_port.addr.eq(Mux(second, place, self.host_address)),
            write_port.data.eq(Mux(second, accumulator, self.host_write_data)),
            write_port.en.eq(Mux(second, stores.replicate(4), self.host_write)),
            self.host_turn.eq(second),
            self.host_data.eq(operand),
        ]
        return operand

    def _result(
        self,
        m: Module,
        ops: dict[Op, Signal],
        instruction: Signal,
        accumulator: Signal,
        operand: Signal,
        link: Signal,
    ) -> tuple[Signal, Signal]:
        """Return what the accumulator gets, and whether it gets it."""
        kind, argument = instruction[ARGUMENT_BITS:], instruction[:ARGUMENT_BITS]
        assert not Class.DATA & 2
        assert Class.IMMEDIATE & Class.ADD_IMMEDIATE & 2
        other, total, result = (
            Signal(WORD_BITS, name=name) for name in ("other", "total", "result")
        )
        takes = Signal()
        subtracts = ops[Op.SUB]
        m.d.comb += [
            other.eq(Mux(kind[1], argument.as_signed(), operand)),
            total.eq(accumulator + (other ^ subtracts.replicate(WORD_BITS)) + subtracts),
            takes.eq(
                ((kind == Class.DATA) & ~ops[Op.FACTOR_A] & ~ops[Op.FACTOR_B])
                | ops[Op.IMMEDIATE]
                | ops[Op.ADD_IMMEDIATE]
                | ops[Op.IN]
                | ops[Op.LOAD_INDEXED]
                | ops[Op.LINK]
            ),
            result.eq(other),
        ]
        for flag, value in (
            (ops[Op.ADD] | subtracts | ops[Op.ADD_IMMEDIATE], total),
            (ops[Op.AND], accumulator & operand),
            (ops[Op.OR], accumulator | operand),
            (ops[Op.XOR], accumulator ^ operand),
            (ops[Op.IN], self.read_data),
            (ops[Op.LOAD_INDEXED], operand),
            (ops[Op.LINK], link),
        ):
            with m.If(flag):
                m.d.comb += result.eq(value)
        return result, takes

    def _sequence(
        self,
        m: Module,
        ops: dict[Op, Signal],
        instruction: Signal,
        second: Signal,
        accumulator: Signal,
        link: Signal,
        follows: Signal,
    ) -> None:
        """Make `follows`, the address of the next instruction, and `link`."""
        counter = Signal(ARGUMENT_BITS)
        # What can be known in the first cycle is.
        after, zero, negative = Signal(ARGUMENT_BITS), Signal(), Signal()
        m.d.sync += [
            after.eq(counter + 1),
            zero.eq(accumulator == 0),
            negative.eq(accumulator[-1]),
        ]
        goes = Cat(
            ops[Op.JUMP],
            ops[Op.CALL],
            ops[Op.JUMP_ZERO] & zero,
            ops[Op.JUMP_NONZERO] & ~zero,
            ops[Op.JUMP_NEGATIVE] & negative,
            ops[Op.JUMP_POSITIVE] & ~negative,
        ).any()
        m.d.comb += follows.eq(counter)
        with m.If(second):
            with m.If(goes):
                m.d.comb += follows.eq(instruction)
            with m.Elif(ops[Op.RETURN]):
                m.d.comb += follows.eq(link)
            with m.Elif(ops[Op.JUMP_TO_A]):
                m.d.comb += follows.eq(accumulator)
            with m.Elif(~(ops[Op.WAIT] & self.hold)):
                m.d.comb += follows.eq(after)
            with m.If(ops[Op.CALL]):
                m.d.sync += link.eq(after)
            m.d.sync += counter.eq(follows)
        with m.If(self.restart | self.stay):
            m.d.comb += follows.eq(0)
            m.d.sync += counter.eq(0)

    def _code(self, m: Module, address: Signal) -> Signal:
        """Return the instruction at the address of the cycle before."""
        words = []
        first = 0
        for number, depth in enumerate(CODE_PARTS):
            part = Memory(
                shape=INSTRUCTION_BITS,
                depth=depth,
                init=list(self._image.code[first : first + depth]),
            )
            m.submodules[f"code_{number}"] = part
            port = part.read_port()
            m.d.comb += port.addr.eq(address)
            words.append(port.data)
            first += depth
        upper = Signal()
        m.d.sync += upper.eq(address[-1])
        instruction = Signal(INSTRUCTION_BITS)
        assert CODE_PARTS[0] == 1 << (ARGUMENT_BITS - 1), "the address's last bit picks the part"
        m.d.comb += instruction.eq(Mux(upper, words[1], words[0]))
        return instruction
