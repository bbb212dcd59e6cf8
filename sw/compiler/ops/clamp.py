"""The least and the greatest code that an operator may give."""

from __future__ import annotations

from celosia.sw.compiler.arithmetic.fixed import activation_range
from celosia.sw.compiler.ir import SourceOp, Tensor
from celosia.sw.compiler.passes.rewrite import contradiction

__all__ = ["OUTPUT_RANGE", "clamp_of"]

OUTPUT_RANGE = "output_range"
"""Option of a front end that has worked out the codes itself: least and greatest."""


def clamp_of(op: SourceOp, result: Tensor) -> tuple[int, int]:
    """Return the codes that an operator's results are clamped to.

    Raises
    ------
    ModelError
        If the result has no scale.
    QuantizationError
        If nothing is left between them.
    """
    given = op.options.get(OUTPUT_RANGE)
    if isinstance(given, tuple):
        return given[0], given[1]
    if result.scale is None:
        raise contradiction(op, "its output has no scale")
    activation = str(op.options.get("fused_activation_function", "NONE"))
    return activation_range(activation, result.scale, result.zero_point)
