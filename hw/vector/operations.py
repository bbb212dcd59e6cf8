"""What an operation of the vector engine is, asked of a command's field."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_

from amaranth.hdl import Value
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import VectorOp
from celosia.hw.contract.operations import Operation

__all__ = ["is_any", "is_none", "is_unknown"]


def is_any(op: Value, trait: Callable[[VectorOp], bool]) -> Value:
    """Return whether `op` is one of the operations with a trait; at least one has it."""
    return reduce(or_, (op == member for member in VectorOp if trait(member)))


def is_none(op: Value, trait: Callable[[VectorOp], bool]) -> Value:
    """Return whether `op` is none of the operations with a trait; at least one has it."""
    return reduce(and_, (op != member for member in VectorOp if trait(member)))


def is_unknown(op: Value, config: NpuConfig) -> Value:
    """Return whether `op` is no operation, or one that the machine lacks."""
    lacking = [member for member in VectorOp if not config.can(Operation(member))]
    return reduce(or_, (op == member for member in lacking), op > max(VectorOp))
