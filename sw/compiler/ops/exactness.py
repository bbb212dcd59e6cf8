"""Whether an operator equals its reference, where that does not compute in whole numbers."""

from __future__ import annotations

from celosia.sw.compiler.ir import SourceOp
from celosia.sw.compiler.passes.rewrite import unsupported

__all__ = ["UNPROVEN", "exactness_of"]

UNPROVEN = "exact: unproven"
"""How that begins where something could differ."""
MOST_DIFFERING = 1 / 1024
"""Of what there can be: an operator for which more could differ is the host's."""


def exactness_of(op: SourceOp, differing: int, possible: int, what: str) -> str:
    """Say for how many of what there can be the result could be another one than the reference's.

    Parameters
    ----------
    op : SourceOp
    differing, possible : int
    what : str
        Accumulators, or pairs of codes.

    Raises
    ------
    UnsupportedError
        If it is too many, or any and the operator has to be proven equal.
    """
    if not differing:
        return "exact: proven"
    cause = f"{differing:,} of {possible:,} {what} could differ"
    if op.arithmetic.strict or differing > possible * MOST_DIFFERING:
        raise unsupported(op, f"it is not proven equal to its reference: {cause}")
    return f"{UNPROVEN}, {cause}"
