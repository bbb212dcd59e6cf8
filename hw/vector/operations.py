"""What an operation of the vector engine is, asked of a command's field."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_

from amaranth.hdl import Value
from celosia.hw.contract.isa import VectorOp

__all__ = ["is_any", "is_none"]


def is_any(op: Value, trait: Callable[[VectorOp], bool]) -> Value:
    """Return whether `op` is one of the operations with a trait; at least one has it."""
    return reduce(or_, (op == member for member in VectorOp if trait(member)))


def is_none(op: Value, trait: Callable[[VectorOp], bool]) -> Value:
    """Return whether `op` is none of the operations with a trait; at least one has it."""
    return reduce(and_, (op != member for member in VectorOp if trait(member)))
