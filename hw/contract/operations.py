"""What a machine can do with vectors, operation by operation.

A machine may be made without some of them (``NpuConfig.operations``). What it lacks it refuses like
what there is not at all: ILLEGAL_FIELD for an operation of a `Vector`, ILLEGAL_OPCODE for a
`Softmax`. The registers say which it has (``capability3``).

Pure standard library, and nothing of the instruction set: a configuration is read without it
(`celosia.hw.contract.needed` knows which command needs what).
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["OPERATIONS", "Operation"]


class Operation(IntEnum):
    """An operation: those of a `Vector`, what some of them may do besides, and `Softmax`.

    The number is that of its bit in the registers, not the one in a command.
    """

    REQUANT = 0
    ADD = 1
    AVERAGE = 2
    MAX = 3
    TABLE = 4
    REQUANT_ADD = 5
    SOFTMAX = 6
    MUL = 7
    SQUARED_DIFFERENCE = 8
    MIN = 9
    PAIR = 10
    SPREAD = 11

    @property
    def doc(self) -> str:
        """What it does, in a few words."""
        return _DOCS[self]


_DOCS = {
    Operation.REQUANT: "requantises what the array has summed up",
    Operation.ADD: "adds two tensors",
    Operation.AVERAGE: "averages windows",
    Operation.MAX: "finds the greatest value of windows",
    Operation.TABLE: "looks values up in a table",
    Operation.REQUANT_ADD: "requantises and adds another tensor",
    Operation.SOFTMAX: "computes softmax",
    Operation.MUL: "multiplies two tensors",
    Operation.SQUARED_DIFFERENCE: "squares the difference of two tensors",
    Operation.MIN: "finds the least value where MAX finds the greatest (`least`)",
    Operation.PAIR: "finds the greater of two tensors' values (`pair` of MAX)",
    Operation.SPREAD: "takes one channel of a second tensor for all (`b_oc`)",
}

assert set(_DOCS) == set(Operation)

OPERATIONS: tuple[str, ...] = tuple(operation.name for operation in Operation)
"""The names of all operations, in their order."""
