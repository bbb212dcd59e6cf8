"""Which of TFLite's kernels compute an operator on the host.

The reference kernels are what every result is compared with. Where there is none, or it is wrong,
the default kernels are the reference; reports name them.
"""

from __future__ import annotations

from celosia.sw.compiler.ir import DType, Graph, SourceOp
from celosia.sw.program.segments import DEFAULT_KERNELS, REFERENCE_KERNELS

__all__ = ["kernels_of"]

_ABSENT = "there is no reference kernel"
_WRONG = "the reference kernel is wrong for int8"
WITHOUT_REFERENCE = frozenset({"CEIL", "ELU", "ROUND"})
"""Operators that only the resolver of the default kernels registers."""
WRONG_FOR_INT8 = frozenset({"DIV", "SUM"})
"""SUM scales by a multiplier that nothing sets; DIV saturates small quotients."""


def kernels_of(op: SourceOp, graph: Graph) -> tuple[str, str]:
    """Return the kernels that compute an operator, and why they are not the reference ones."""
    if op.name in WITHOUT_REFERENCE:
        return DEFAULT_KERNELS, _ABSENT
    dtypes = {graph.tensors[name].dtype for name in op.results}
    if op.name in WRONG_FOR_INT8 and DType.INT8 in dtypes:
        return DEFAULT_KERNELS, _WRONG
    return REFERENCE_KERNELS, ""
