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

__all__ = ["FLAGS", "operation_of", "operations_in", "operations_of"]

FLAGS = {"least": Operation.MIN, "pair": Operation.PAIR, "b_oc": Operation.SPREAD}
"""The fields of a `Vector` that ask for an operation besides its own, where they are set."""


def operation_of(op: VectorOp) -> Operation:
    """Return what the machine needs for the operation of a `Vector`."""
    return Operation[op.name]


def operations_of(command: Command) -> tuple[Operation, ...]:
    """Return what a command needs that is not in every machine."""
    if isinstance(command, Vector):
        flags = tuple(operation for name, operation in FLAGS.items() if getattr(command, name))
        return operation_of(VectorOp(command.op)), *flags
    return (Operation.SOFTMAX,) if isinstance(command, Softmax) else ()


def operations_in(code: bytes) -> Iterator[tuple[int, Operation]]:
    """Yield the place of each command in a command stream that has an operation, with it."""
    places = {spec.name: spec for spec in fields_of(Vector)}
    op = places["op"]
    flags = [(places[name].offset_bits, operation) for name, operation in FLAGS.items()]
    for index in range(len(code) // COMMAND_BYTES):
        command = code[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
        if command[0] == Opcode.SOFTMAX:
            yield index, Operation.SOFTMAX
        elif command[0] == Opcode.VECTOR:
            bits = int.from_bytes(command, "little")
            value = bits >> op.offset_bits & ((1 << op.width_bits) - 1)
            yield index, operation_of(VectorOp(value))
            for offset_bits, operation in flags:
                if bits >> offset_bits & 1:
                    yield index, operation
