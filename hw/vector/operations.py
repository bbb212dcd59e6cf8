"""What an operation of the vector engine is, asked of a command's field."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_

from amaranth.hdl import Const, Value
from amaranth.lib.data import StructLayout, View
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import VectorOp
from celosia.hw.contract.needed import FLAGS, operation_of
from celosia.hw.contract.operations import Operation

__all__ = ["flag", "is_any", "is_lacking", "is_none", "multiplies"]


def is_any(op: Value, trait: Callable[[VectorOp], bool]) -> Value:
    """Return whether `op` is one of the operations with a trait; at least one has it."""
    return reduce(or_, (op == member for member in VectorOp if trait(member)))


def is_none(op: Value, trait: Callable[[VectorOp], bool]) -> Value:
    """Return whether `op` is none of the operations with a trait; at least one has it."""
    return reduce(and_, (op != member for member in VectorOp if trait(member)))


def is_lacking(command: View[StructLayout], config: NpuConfig) -> Value:
    """Return whether a `Vector` asks for something that the machine lacks."""
    ops = [member for member in VectorOp if not config.can(operation_of(member))]
    flags = [name for name, operation in FLAGS.items() if not config.can(operation)]
    asked = (*(command.op == member for member in ops), *(command[name] for name in flags))
    return reduce(or_, asked, Const(0, 1))


def flag(command: View[StructLayout], name: str, config: NpuConfig) -> Value:
    """Return a flag of a `Vector`: never set where the machine lacks what it asks for."""
    return Value.cast(command[name]) if config.can(FLAGS[name]) else Const(0, 1)


def multiplies(config: NpuConfig) -> bool:
    """Whether the machine multiplies values of two tensors."""
    return config.can(Operation.MUL) or config.can(Operation.SQUARED_DIFFERENCE)
