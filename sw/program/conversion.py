"""Which conversions at the ends of a model the host does, by numpy's names of element types."""

from __future__ import annotations

__all__ = ["CASTS", "DEQUANTISED", "QUANTISED"]

CASTS = frozenset({"bool", "int8", "uint8", "int16", "int32", "int64", "float32"})
"""Types that CAST converts to one another."""
DEQUANTISED = frozenset((kind, "float32") for kind in ("int8", "uint8", "int16", "float16"))
"""Pairs of types of DEQUANTIZE."""
QUANTISED = frozenset(
    {
        *(("float32", kind) for kind in ("int8", "uint8", "int16")),
        *((a, b) for a in ("int8", "uint8") for b in ("int8", "uint8")),
        ("int8", "int16"),
        ("int16", "int8"),
        ("int16", "int16"),
        ("int32", "int8"),
        ("int32", "int16"),
    }
)
"""Pairs of types of QUANTIZE."""
