"""An assembler for the firmware: names for words of data memory, labels, and short forms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celosia.hw.nano.instructions import (
    ARGUMENT_BITS,
    CODE_WORDS,
    DATA_WORDS,
    In,
    Op,
    Out,
    encode,
)

__all__ = ["Assembler", "Image", "Word"]

IMMEDIATES = range(-(1 << (ARGUMENT_BITS - 1)), 1 << (ARGUMENT_BITS - 1))


@dataclass(frozen=True)
class Word:
    """A word of data memory."""

    name: str
    address: int

    def __getitem__(self, index: int) -> Word:
        return Word(f"{self.name}[{index}]", self.address + index)


@dataclass(frozen=True)
class Image:
    """What the memories of the processor hold at power-on.

    Attributes
    ----------
    code : tuple of int
        Instructions, 16 bits each.
    data : tuple of int
        Words, 32 bits each.
    labels : dict of str to int
        Addresses of instructions, for people who debug.
    words : dict of str to int
        Addresses of data.
    """

    code: tuple[int, ...]
    data: tuple[int, ...]
    labels: dict[str, int]
    words: dict[str, int]


class Assembler:
    """Collects instructions and data; :meth:`image` gives the result.

    Parameters
    ----------
    first_word : int
        Where data begins: what is below belongs to the registers that the host sees.
    """

    def __init__(self, *, first_word: int) -> None:
        self._code: list[tuple[Op, int | str]] = []
        self._labels: dict[str, int] = {}
        self._words: dict[str, int] = {}
        self._values: dict[int, int] = {}
        self._constants: dict[int, Word] = {}
        self._next_word = first_word
        self._next_label = 0

    # Data.

    def word(self, name: str, *, count: int = 1) -> Word:
        """Reserve words; their values at power-on are 0 and not to be relied on."""
        assert name not in self._words, f"two words are called {name}"
        address = self._next_word
        self._next_word += count
        self._words[name] = address
        return Word(name, address)

    def place(self, name: str, address: int, value: int = 0) -> Word:
        """Name the word at `address` and give it a value at power-on."""
        self._words[name] = address
        self._values[address] = value & 0xFFFF_FFFF
        return Word(name, address)

    def constant(self, value: int) -> Word:
        """Return a word that holds `value`."""
        value &= 0xFFFF_FFFF
        if value not in self._constants:
            word = self.word(f"={value:#x}")
            self._values[word.address] = value
            self._constants[value] = word
        return self._constants[value]

    def table(self, name: str, values: list[int]) -> Word:
        """Reserve words with values."""
        first = self.word(name, count=len(values))
        for index, value in enumerate(values):
            self._values[first.address + index] = value & 0xFFFF_FFFF
        return first

    # Code.

    def emit(self, op: Op, argument: int | str = 0) -> None:
        """Append an instruction; a string is a label."""
        self._code.append((op, argument))

    def label(self, name: str) -> str:
        """Let `name` be the address of the next instruction."""
        assert name not in self._labels, f"two labels are called {name}"
        self._labels[name] = len(self._code)
        return name

    def new_label(self, hint: str) -> str:
        """Return a name that no label has yet."""
        self._next_label += 1
        return f"{hint}.{self._next_label}"

    def load(self, value: Word | int) -> None:
        """A = value."""
        if isinstance(value, int) and value in IMMEDIATES:
            self.emit(Op.IMMEDIATE, value)
        else:
            self.emit(Op.LOAD, self._source(value))

    def add(self, value: Word | int) -> None:
        """A = A + value."""
        if isinstance(value, int) and value in IMMEDIATES:
            self.emit(Op.ADD_IMMEDIATE, value)
        else:
            self.emit(Op.ADD, self._source(value))

    def sub(self, value: Word | int) -> None:
        """A = A - value."""
        if isinstance(value, int) and -value in IMMEDIATES:
            self.emit(Op.ADD_IMMEDIATE, -value)
        else:
            self.emit(Op.SUB, self._source(value))

    def bits_and(self, value: Word | int) -> None:
        """A = A & value."""
        self.emit(Op.AND, self._source(value))

    def bits_or(self, value: Word | int) -> None:
        """A = A | value."""
        self.emit(Op.OR, self._source(value))

    def bits_xor(self, value: Word | int) -> None:
        """A = A ^ value."""
        self.emit(Op.XOR, self._source(value))

    def store(self, *targets: Word) -> None:
        """Write A to each target."""
        for target in targets:
            self.emit(Op.STORE, target.address)

    def move(self, target: Word, value: Word | int) -> None:
        """Target = value, by A."""
        self.load(value)
        self.store(target)

    def increase(self, target: Word, value: Word | int) -> None:
        """Target = target + value; A has it, too."""
        self.load(target)
        self.add(value)
        self.store(target)

    def read(self, port: In) -> None:
        """A = port."""
        self.emit(Op.IN, int(port))

    def write(self, port: Out, value: Word | int | None = None) -> None:
        """Port = value, or A if there is none."""
        if value is not None:
            self.load(value)
        self.emit(Op.OUT, int(port))

    def multiply(self, first: Word | int | None, second: Word | int, result: In) -> None:
        """A = the part `result` of first * second; first is A if it is None."""
        if first is None:
            self.emit(Op.OUT, int(Out.FACTOR_A))
        else:
            self.emit(Op.FACTOR_A, self._source(first))
        self.emit(Op.FACTOR_B, self._source(second))
        self.read(result)

    def look_up(self, array: Word, index: Word | None = None) -> None:
        """A = array[index], or array[A] if there is no index; X stays there."""
        if index is not None:
            self.load(index)
        self.add(array.address)
        self.emit(Op.INDEX)
        self.emit(Op.LOAD_INDEXED)

    def minimum(self, first: Word, second: Word | int) -> None:
        """A = the lesser one."""
        self.load(first)
        self.sub(second)
        with self.unless(Op.JUMP_NEGATIVE):
            self.load(0)
        self.add(second)

    def jump(self, target: str) -> None:
        """Go to a label."""
        self.emit(Op.JUMP, target)

    def call(self, target: str) -> None:
        """Call a routine; there is one return address."""
        self.emit(Op.CALL, target)

    @contextmanager
    def unless(self, op: Op) -> Iterator[None]:
        """Skip the body if the jump `op` is taken."""
        end = self.new_label("end")
        self.emit(op, end)
        yield
        self.label(end)

    @contextmanager
    def repeat(self, counter: Word) -> Iterator[None]:
        """Do the body `counter` times, which is 1 at least and 0 afterwards."""
        start = self.label(self.new_label("repeat"))
        yield
        self.increase(counter, -1)
        self.emit(Op.JUMP_NONZERO, start)

    @contextmanager
    def routine(self, name: str, keep: Word | None = None) -> Iterator[None]:
        """Define a routine. One that calls others keeps its return address in `keep`."""
        self.label(name)
        if keep is not None:
            self.emit(Op.LINK)
            self.store(keep)
        yield
        self.leave(keep)

    def leave(self, keep: Word | None = None) -> None:
        """Return from a routine."""
        if keep is None:
            self.emit(Op.RETURN)
        else:
            self.load(keep)
            self.emit(Op.JUMP_TO_A)

    def image(self) -> Image:
        """Return code and data.

        Raises
        ------
        ValueError
            If they are larger than the memories, a label is missing, or an argument does not fit.
        """
        if len(self._code) > CODE_WORDS or self._next_word > DATA_WORDS:
            raise ValueError(
                f"firmware of {len(self._code)} instructions and {self._next_word} words of data:"
                f" there is room for {CODE_WORDS} and {DATA_WORDS}"
            )
        code = []
        for op, argument in self._code:
            if isinstance(argument, str):
                if argument not in self._labels:
                    raise ValueError(f"the firmware has no label {argument}")
                argument = self._labels[argument]
            code.append(encode(op, argument))
        data = [self._values.get(address, 0) for address in range(self._next_word)]
        return Image(tuple(code), tuple(data), dict(self._labels), dict(self._words))

    def _source(self, value: Word | int) -> int:
        return (self.constant(value) if isinstance(value, int) else value).address
