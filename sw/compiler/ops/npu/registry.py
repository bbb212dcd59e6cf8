"""All kinds of NPU operators."""

from __future__ import annotations

from typing import Any

from celosia.sw.compiler.ir import NpuOp
from celosia.sw.compiler.ops.npu.add import ADD
from celosia.sw.compiler.ops.npu.conv import CONV
from celosia.sw.compiler.ops.npu.fold import FOLD
from celosia.sw.compiler.ops.npu.kind import Kind
from celosia.sw.compiler.ops.npu.matmul import MATMUL
from celosia.sw.compiler.ops.npu.maximum import MAXIMUM
from celosia.sw.compiler.ops.npu.move import MOVE
from celosia.sw.compiler.ops.npu.part import PART
from celosia.sw.compiler.ops.npu.phases import PHASES
from celosia.sw.compiler.ops.npu.pool import POOL
from celosia.sw.compiler.ops.npu.product import MUL, SQUARED_DIFFERENCE
from celosia.sw.compiler.ops.npu.reshape import RESHAPE
from celosia.sw.compiler.ops.npu.softmax import SOFTMAX
from celosia.sw.compiler.ops.npu.table import TABLE

__all__ = ["KINDS", "kind_of"]

KINDS: dict[type[NpuOp], Kind[Any]] = {
    kind.op: kind
    for kind in (
        CONV,
        MATMUL,
        PHASES,
        ADD,
        MUL,
        SQUARED_DIFFERENCE,
        POOL,
        MAXIMUM,
        TABLE,
        SOFTMAX,
        RESHAPE,
        MOVE,
        FOLD,
        PART,
    )
}
"""The record of each kind, by the class of its operators."""


def kind_of(op: NpuOp) -> Kind[Any]:
    """Return the record of an operator's kind."""
    return KINDS[type(op)]
