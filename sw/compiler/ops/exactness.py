"""Whether an operator is near enough to its reference, where that does not compute in integers."""

from __future__ import annotations

from celosia.sw.compiler.ir import Exactness, SourceOp
from celosia.sw.compiler.passes.rewrite import unsupported

__all__ = ["near_enough"]

MOST_DIFFERING = 1 / 1024
"""Of what there can be: an operator for which more could differ is the host's."""


def near_enough(op: SourceOp, known: Exactness) -> Exactness:
    """Return what is known of an operator.

    Raises
    ------
    UnsupportedError
        If too many results could be other ones, or any and the operator has to be proven equal.
    """
    if known.differing and (
        op.arithmetic.strict or known.differing > known.possible * MOST_DIFFERING
    ):
        raise unsupported(op, f"it is not proven equal to its reference: {known.cause}")
    return known
