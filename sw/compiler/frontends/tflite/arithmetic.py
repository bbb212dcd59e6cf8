"""Which reference an operator of a TFLite file is held to, and how that computes."""

from __future__ import annotations

from dataclasses import replace

from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.ir import Arithmetic, Scaling

__all__ = ["DEFAULT_KERNELS", "REFERENCE", "arithmetic_of"]

REFERENCE = "TFLite reference kernels (OpResolverType.BUILTIN_REF)"

DEFAULT_KERNELS = "TFLite default kernels (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)"
"""Of operators that the reference kernels lack, or compute wrongly."""

_FIXED_POINT = Arithmetic(REFERENCE, Rounding.DOUBLE, Scaling.NEAREST)
"""`MultiplyByQuantizedMultiplier` with the multiplier that `QuantizeMultiplier` makes."""
_IN_DOUBLE = Arithmetic(REFERENCE, Rounding.SINGLE, Scaling.FITTED)
"""A product in double precision, rounded once: measured, the fixed-point parameters are unused."""

_IN_SINGLE = Arithmetic(DEFAULT_KERNELS, Rounding.SINGLE, Scaling.FITTED)
"""A product in single precision; the reference kernels scale by what nobody has set."""
_SINGLE_PRODUCT = replace(_FIXED_POINT, scaling=Scaling.NEAREST_TO_SINGLE)
"""The multiplier of `GetQuantizedConvolutionMultipler`: measured between ties of the roundings."""

_OTHERS: dict[str, Arithmetic] = {
    "BATCH_MATMUL": _SINGLE_PRODUCT,
    "FULLY_CONNECTED": _IN_DOUBLE,
    "SUM": _IN_SINGLE,
    "ELU": replace(_FIXED_POINT, reference=DEFAULT_KERNELS),
}


_UNSIGNED: dict[str, Arithmetic] = {
    "CONV_2D": _SINGLE_PRODUCT,
    "DEPTHWISE_CONV_2D": _SINGLE_PRODUCT,
}
"""Of uint8 operators that differ from those of int8 in this."""


def arithmetic_of(name: str, *, unsigned: bool = False) -> Arithmetic:
    """Return the arithmetic of an operator by its TFLite name.

    Parameters
    ----------
    name : str
        The operator.
    unsigned : bool
        It is one of uint8 tensors.
    """
    arithmetic = _OTHERS.get(name, _FIXED_POINT)
    return replace(_UNSIGNED.get(name, arithmetic), unsigned=True) if unsigned else arithmetic
