"""What all parts of the firmware use: words of data memory, and reading a command's fields."""

from __future__ import annotations

from collections.abc import Collection

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Command, Region, Space, counts_of, fields_of
from celosia.hw.contract.regs import ErrorCause, address_of
from celosia.hw.contract.units import Unit
from celosia.hw.nano.assembler import Assembler, Word
from celosia.hw.nano.instructions import In, Op
from celosia.hw.nano.layout import LocalMap

__all__ = ["Shared"]

COMMAND_WORDS = COMMAND_BYTES // 4
WORD_BITS = 32
LINE_BIT = 2
"""A line is four bytes."""
WITH_ADDRESS = frozenset(
    {
        ErrorCause.ACT_RANGE,
        ErrorCause.WGT_RANGE,
        ErrorCause.PARAM_RANGE,
        ErrorCause.MEM_WINDOW,
        ErrorCause.BUS_ERROR,
        ErrorCause.BUS_TIMEOUT,
        ErrorCause.FETCH_WINDOW,
    }
)
"""Errors that are about an address; the others report 0."""
FRACTION_BITS = 31
"""Of the multiplier's middle result: product * 2^-31."""


class Shared:
    """Words and short forms that more than one part uses.

    Parameters
    ----------
    a : Assembler
    config : NpuConfig

    Attributes
    ----------
    command : Word
        The 16 words of the command that begins.
    power : Word
        32 words: 2^0 to 2^31.
    unit, tag : Word
        Whose command runs, for errors.
    error_address : Word
        To be written before a jump to :meth:`fail`, for causes that have an address.
    """

    def __init__(self, a: Assembler, config: NpuConfig) -> None:
        self.a = a
        self.config = config
        self.local = LocalMap(config)
        self.power = a.table("power", [1 << n for n in range(WORD_BITS)])
        self.command = a.word("command", count=COMMAND_WORDS)
        self.unit, self.tag = a.word("unit"), a.word("tag")
        self.head = a.word("head")
        self.error_address = a.word("fault_address")
        self.scratch = [a.word(f"scratch{index}") for index in range(4)]
        self.region_base = [self.register(f"region{region}_base") for region in map(int, Region)]
        self.full_halves = a.word("full_halves")
        """Accumulator halves that wait for the vector engine."""
        self._fails: set[tuple[ErrorCause, Unit | None]] = set()

    def register(self, name: str) -> Word:
        """Return the word that the host sees as a register."""
        return Word(name, address_of(name) // 4)

    def fail(self, cause: ErrorCause, unit: Unit | None = None) -> str:
        """Return a label to jump to: an error of the unit at work, or of `unit`."""
        self._fails.add((cause, unit))
        return f"fail.{cause.name}.{'' if unit is None else unit.name}"

    def emit_fails(self) -> None:
        """Emit what :meth:`fail` promised, and routine ``reserved``.

        All errors go to label ``fail`` or, without an address, ``fail.nowhere``, the cause in A.
        """
        a = self.a
        for cause, unit in sorted(self._fails, key=str):
            a.label(self.fail(cause, unit))
            if unit is not None:
                a.move(self.unit, int(unit))
            a.load(int(cause))
            a.jump("fail" if cause in WITH_ADDRESS else "fail.nowhere")

    def emit_reserved(self) -> None:
        """Emit routine ``reserved``: words of the command, from the address in A on, must be 0."""
        a = self.a
        with a.routine("reserved"):
            a.label("reserved.next")
            a.emit(Op.INDEX)
            a.add(1)
            a.store(self.scratch[0])
            a.emit(Op.LOAD_INDEXED)
            a.emit(Op.JUMP_NONZERO, self.fail(ErrorCause.ILLEGAL_FIELD, Unit.FETCH))
            a.load(self.scratch[0])
            a.sub(self.command[COMMAND_WORDS].address)
            with a.unless(Op.JUMP_ZERO):
                a.load(self.scratch[0])
                a.jump("reserved.next")

    def shift_right(self, source: Word | None, bits: int) -> None:
        """A = source (or A) >> bits, arithmetic; 1 to 31."""
        self.a.multiply(source, self.power[FRACTION_BITS - bits], In.PRODUCT_Q31)

    def shift_left(self, source: Word | None, bits: int) -> None:
        """A = source (or A) << bits; 0 to 31."""
        self.a.multiply(source, self.power[bits], In.PRODUCT_LOW)

    def check_reserved(self, kind: type[Command]) -> None:
        """Emit ILLEGAL_FIELD of the fetch unit for bits of a command that belong to no field."""
        a = self.a
        last = fields_of(kind)[-1]
        word, bit = divmod(last.offset_bits + last.width_bits, WORD_BITS)
        assert word < COMMAND_WORDS - 1
        if bit:
            a.load(self.command[word])
            a.bits_and(-1 << bit)
            a.emit(Op.JUMP_NONZERO, self.fail(ErrorCause.ILLEGAL_FIELD, Unit.FETCH))
            word += 1
        a.load(self.command[word].address)
        a.call("reserved")

    def unpack(
        self, kind: type[Command], prefix: str, *, refused: Collection[str] = ()
    ) -> dict[str, Word]:
        """Emit code that takes a command's fields apart; return a word for each.

        The fields that every command has are not among them, nor those that are refused: flags
        that must be 0. Reserved bits are looked at first.
        """
        self.check_reserved(kind)
        common = {spec.name for spec in fields_of(Command)}
        flags: dict[int, int] = {}
        words = {}
        for spec in fields_of(kind):
            if spec.name in common:
                continue
            if spec.name in refused:
                word, bit = divmod(spec.offset_bits, WORD_BITS)
                flags[word] = flags.get(word, 0) | 1 << bit
                continue
            words[spec.name] = self.a.word(f"{prefix}.{spec.name}")
            self._take(spec.offset_bits, spec.width_bits, signed=spec.signed)
            self.a.store(words[spec.name])
        for word, bits in flags.items():
            self.a.load(self.command[word])
            self.a.bits_and(bits)
            self.a.emit(Op.JUMP_NONZERO, self.fail(ErrorCause.ILLEGAL_FIELD))
        return words

    def _take(self, offset_bits: int, width_bits: int, *, signed: bool) -> None:
        a = self.a
        word, bit = divmod(offset_bits, WORD_BITS)
        last = bit + width_bits
        if bit == 0:
            a.load(self.command[word])
        else:
            self.shift_right(self.command[word], bit)
        if last > WORD_BITS:
            a.bits_and((1 << (WORD_BITS - bit)) - 1)
            a.store(self.scratch[0])
            self.shift_left(self.command[word + 1], WORD_BITS - bit)
            a.bits_or(self.scratch[0])
        if width_bits < WORD_BITS and not (signed and last == WORD_BITS and bit):
            a.bits_and((1 << width_bits) - 1)
            if signed:
                sign = 1 << (width_bits - 1)
                a.bits_xor(sign)
                a.sub(a.constant(sign))

    def refuse_zero_counts(self, kind: type[Command], fields: dict[str, Word]) -> None:
        """Emit ILLEGAL_FIELD for a count of 0 in a command."""
        self.refuse_zero(*(fields[name] for name in counts_of(kind)))

    def refuse_zero(self, *counts: Word) -> None:
        """Emit ILLEGAL_FIELD for a count of 0."""
        for count in counts:
            self.a.load(count)
            self.a.emit(Op.JUMP_ZERO, self.fail(ErrorCause.ILLEGAL_FIELD))

    def fail_lines(self, first: Word, limit: int, cause: ErrorCause, *, base: int = 0) -> None:
        """Emit `cause` about the first of the lines from `first` on that is not below `limit`.

        Both are lines of local memory or, with `base` 0, of a memory in it; `base` is its first.
        """
        a = self.a
        a.load(first)
        a.sub(limit)
        with a.unless(Op.JUMP_POSITIVE):
            a.load(0)
        a.add(limit - base)
        self.shift_left(None, LINE_BIT)
        a.store(self.error_address)
        a.jump(self.fail(cause))

    def range_cause(self, space: Space) -> ErrorCause:
        """Return the error of an address beyond an on-chip memory."""
        return {
            Space.ACT: ErrorCause.ACT_RANGE,
            Space.WGT: ErrorCause.WGT_RANGE,
        }.get(space, ErrorCause.PARAM_RANGE)
