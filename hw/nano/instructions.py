"""The processor's own instruction set: what the firmware is made of.

An accumulator machine. An instruction is 16 bits: a class in the upper four, an argument in the
lower twelve. ``A`` is the accumulator (32 bits), ``D`` the data memory (words of 32 bits), ``X`` an
index into it, ``L`` the return address. In class DATA the argument is a function (3 bits) and an
address (9), in class OTHER an operation (4) and a port (8).

Pure standard library.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "ARGUMENT_BITS",
    "CODE_WORDS",
    "DATA_ADDRESS_BITS",
    "DATA_WORDS",
    "INSTRUCTION_BITS",
    "PORT_BITS",
    "Class",
    "In",
    "Op",
    "Out",
    "Status",
    "encode",
]

INSTRUCTION_BITS = 16
ARGUMENT_BITS = 12
DATA_ADDRESS_BITS = 9
PORT_BITS = 8
CODE_WORDS = 3072
"""Instructions there is room for: twelve block memories of an iCE40."""
DATA_WORDS = 1 << DATA_ADDRESS_BITS


class Class(IntEnum):
    """Upper four bits of an instruction."""

    DATA = 0
    STORE = 1
    IMMEDIATE = 2
    ADD_IMMEDIATE = 3
    JUMP = 4
    JUMP_ZERO = 5
    JUMP_NONZERO = 6
    JUMP_NEGATIVE = 7
    JUMP_POSITIVE = 8
    CALL = 9
    OTHER = 10


class Op(IntEnum):
    """What an instruction does. Each takes two cycles, WAIT as many as it waits.

    The value is the class and, in classes DATA and OTHER, the function.
    """

    LOAD = Class.DATA << 4 | 0
    """A = D[arg]"""
    ADD = Class.DATA << 4 | 1
    """A = A + D[arg]"""
    SUB = Class.DATA << 4 | 2
    """A = A - D[arg]"""
    AND = Class.DATA << 4 | 3
    """A = A & D[arg]"""
    OR = Class.DATA << 4 | 4
    """A = A | D[arg]"""
    XOR = Class.DATA << 4 | 5
    """A = A ^ D[arg]"""
    FACTOR_A = Class.DATA << 4 | 6
    """First factor of the multiplier = D[arg]"""
    FACTOR_B = Class.DATA << 4 | 7
    """Second factor of the multiplier = D[arg]"""
    STORE = Class.STORE << 4
    """D[arg] = A"""
    IMMEDIATE = Class.IMMEDIATE << 4
    """A = arg, signed"""
    ADD_IMMEDIATE = Class.ADD_IMMEDIATE << 4
    """A = A + arg, signed"""
    JUMP = Class.JUMP << 4
    JUMP_ZERO = Class.JUMP_ZERO << 4
    """If A = 0"""
    JUMP_NONZERO = Class.JUMP_NONZERO << 4
    JUMP_NEGATIVE = Class.JUMP_NEGATIVE << 4
    """If A < 0"""
    JUMP_POSITIVE = Class.JUMP_POSITIVE << 4
    """If A >= 0"""
    CALL = Class.CALL << 4
    """L = address of the next instruction; go to arg"""
    IN = Class.OTHER << 4 | 0
    """A = port arg (:class:`In`)"""
    OUT = Class.OTHER << 4 | 1
    """Port arg (:class:`Out`) = A"""
    INDEX = Class.OTHER << 4 | 2
    """X = A"""
    LOAD_INDEXED = Class.OTHER << 4 | 3
    """A = D[X]"""
    STORE_INDEXED = Class.OTHER << 4 | 4
    """D[X] = A"""
    RETURN = Class.OTHER << 4 | 5
    """Go to L"""
    LINK = Class.OTHER << 4 | 6
    """A = L"""
    JUMP_TO_A = Class.OTHER << 4 | 7
    """Go to A"""
    WAIT = Class.OTHER << 4 | 8
    """Until the array has ended its run"""


class In(IntEnum):
    """Ports that are read."""

    STATUS = 0
    """See :class:`Status`"""
    PRODUCT_LOW = 1
    """Bits 31:0 of the product"""
    PRODUCT_Q31 = 2
    """Bits 62:31 of the product"""
    PRODUCT_ROUNDED = 3
    """Bits 62:31 of the product + 2^30"""
    ACCUMULATOR = 4
    """Sum at the accumulator's address; the address goes on to the next vector"""
    LOCAL_WORD = 5
    """Word at the local address; the address goes on"""
    LOCAL_BYTE = 6
    """Signed byte at the local address; the address goes on"""
    MEMORY = 7
    """Word of system memory that was read last"""
    CYCLES = 8
    """Cycles since the doorbell"""
    MEMORY_ADDRESS = 9
    """Byte address of the last word of system memory that was asked for"""
    ARRAY_ADDRESS = 10
    """Byte address of the first byte that ARRAY_RANGE is about, rounded down to a line"""


class Status(IntEnum):
    """Bits of port STATUS."""

    RUNNING = 0
    """There was a doorbell"""
    MEMORY_READY = 1
    """No access to system memory is under way"""
    MEMORY_ERROR = 2
    """The last one ended in an error"""
    ARRAY_RANGE = 3
    """A byte that the array read since its last SETUP is beyond the activation SRAM"""


class Out(IntEnum):
    """Ports that are written."""

    FACTOR_A = 0
    FACTOR_B = 1
    ACCUMULATOR_ADDRESS = 2
    """Sum: vector * columns + column"""
    LOCAL_ADDRESS = 3
    """Byte address in local memory"""
    LOCAL_STEP = 4
    """Bytes that the local address goes on by with each access"""
    LOCAL_WORD = 5
    """Word written at the local address; the address goes on"""
    LOCAL_BYTE = 6
    """Byte written at the local address; the address goes on"""
    MEMORY_ADDRESS = 7
    """Byte address in system memory"""
    MEMORY_WRITE_DATA = 8
    MEMORY_READ = 9
    """Begin to read the word; A is of no account"""
    MEMORY_WRITE = 10
    """Begin to write the bytes in A's bits 3:0"""
    FINISH = 11
    """Bit 0: the program has ended; bit 1: an error has stopped it"""
    TRACE = 13
    """Tag (bits 15:0) and engine (17:16) of a command that begins or goes on (18 = 1) or ends"""
    ARRAY_STEP = 14
    """Bytes from window to window of a run"""
    ARRAY_TAP = 15
    """Bytes from weight row to weight row of a run"""
    ARRAY_LIMIT = 16
    """Bytes of an input row"""
    ARRAY_COUNT = 17
    """Windows of a run"""
    ARRAY_X = 18
    """Byte of the first window in its row, signed"""
    ARRAY_ADDRESS = 19
    """Byte address of the first window"""
    ARRAY_VECTOR = 20
    """First vector of the accumulator"""
    ARRAY_WEIGHTS = 21
    """Word address, in local memory, of the first row's weights"""
    ARRAY_SETUP = 22
    """Bits 7:0 zero point, 8: all columns get the same byte (WINDOW); clears ARRAY_RANGE"""
    ARRAY_RUN = 23
    """Begin: bits 13:0 weight rows, 14: the first one overwrites, 15: the input row exists"""


def encode(op: Op, argument: int = 0) -> int:
    """Return the 16 bits of an instruction.

    Raises
    ------
    ValueError
        If the argument does not fit.
    """
    kind, function = Class(op >> 4), op & 0xF
    bits, signed, above = {
        Class.DATA: (DATA_ADDRESS_BITS, False, function << DATA_ADDRESS_BITS),
        Class.STORE: (DATA_ADDRESS_BITS, False, 0),
        Class.IMMEDIATE: (ARGUMENT_BITS, True, 0),
        Class.ADD_IMMEDIATE: (ARGUMENT_BITS, True, 0),
        Class.OTHER: (PORT_BITS, False, function << PORT_BITS),
    }.get(kind, (ARGUMENT_BITS, False, 0))
    low = -(1 << (bits - 1)) if signed else 0
    if not low <= argument < low + (1 << bits):
        raise ValueError(
            f"{op.name} takes an argument from {low} to {low + (1 << bits) - 1}, not {argument}"
        )
    return kind << ARGUMENT_BITS | above | argument & ((1 << bits) - 1)
