"""What a machine can do with vectors, operation by operation.

A machine may be made without some of them (``NpuConfig.operations``). What it lacks it refuses like
what there is not at all: ILLEGAL_FIELD for an operation of a `Vector`, ILLEGAL_OPCODE for a
`Softmax`. The registers say which it has (``capability3``).

Pure standard library.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from celosia.hw.contract.isa import (
    COMMAND_BYTES,
    Command,
    Opcode,
    Softmax,
    Vector,
    VectorOp,
    fields_of,
)

__all__ = ["OPERATIONS", "Operation", "operation_of", "operations_in"]


class Operation(IntEnum):
    """An operation: those of a `Vector`, by their number, and `Softmax`."""

    REQUANT = VectorOp.REQUANT
    ADD = VectorOp.ADD
    AVERAGE = VectorOp.AVERAGE
    MAX = VectorOp.MAX
    TABLE = VectorOp.TABLE
    REQUANT_ADD = VectorOp.REQUANT_ADD
    SOFTMAX = len(VectorOp)

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
}

assert [operation.name for operation in Operation][:-1] == [op.name for op in VectorOp]
assert set(_DOCS) == set(Operation)

OPERATIONS: tuple[str, ...] = tuple(operation.name for operation in Operation)
"""The names of all operations, in their order."""


def operation_of(command: Command) -> Operation | None:
    """Return the operation of a command; None for those that are in every machine."""
    if isinstance(command, Vector):
        return Operation(command.op)
    return Operation.SOFTMAX if isinstance(command, Softmax) else None


def operations_in(code: bytes) -> Iterator[tuple[int, Operation]]:
    """Yield the place of each command in a command stream that has an operation, with it.

    Operations that do not exist are left out.
    """
    spec = next(field for field in fields_of(Vector) if field.name == "op")
    for index in range(len(code) // COMMAND_BYTES):
        command = code[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
        if command[0] == Opcode.SOFTMAX:
            yield index, Operation.SOFTMAX
        elif command[0] == Opcode.VECTOR:
            bits = int.from_bytes(command, "little") >> spec.offset_bits
            op = bits & ((1 << spec.width_bits) - 1)
            if op <= max(VectorOp):
                yield index, Operation(op)
