"""Which reference an operator of an ONNX file is held to, and how that computes."""

from __future__ import annotations

from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.ir import Arithmetic, Scaling

__all__ = ["ARITHMETIC", "REFERENCE"]

REFERENCE = "onnxruntime (CPUExecutionProvider)"

ARITHMETIC = Arithmetic(REFERENCE, Rounding.SINGLE, Scaling.SINGLE)
"""Its quantised kernels sum in whole numbers and scale in float32, halves to even."""
