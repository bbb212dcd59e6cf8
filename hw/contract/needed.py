"""Which operation a command needs of the machine.

Pure standard library.
"""

from __future__ import annotations

from collections.abc import Iterator

from celosia.hw.contract.isa import (
    COMMAND_BYTES,
    Command,
    Opcode,
    Softmax,
    Vector,
    VectorOp,
    fields_of,
)
from celosia.hw.contract.operations import Operation

__all__ = ["operation_of", "operations_in"]

assert [(op.name, int(op)) for op in Operation][:-1] == [(op.name, int(op)) for op in VectorOp]


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
