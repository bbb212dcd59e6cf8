"""Invariants that several kinds of NPU operators have; each returns what is wrong, or None."""

from __future__ import annotations

from celosia.sw.compiler.ir import Graph

__all__ = ["bad_clamp", "broadcasts", "differing_elements", "is_int8", "window_count"]


def differing_elements(graph: Graph, source: str, result: str) -> str | None:
    """Hold that two tensors have equally many elements."""
    a, b = graph.tensors[source].elements, graph.tensors[result].elements
    return None if a == b else f"{a} elements in, {b} out"


def bad_clamp(low: int, high: int) -> str | None:
    """Hold that a clamp is one of int8 values."""
    if is_int8(low) and is_int8(high) and low <= high:
        return None
    return f"clamp {low}..{high}"


def broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes of one rank are equal where neither is 1."""
    return all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True))


def is_int8(value: int) -> bool:
    """Whether a number is an int8 value."""
    return -128 <= value <= 127


def window_count(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Return how many windows there are along an axis; -1 if the window makes no sense."""
    if kernel < 1 or stride < 1 or before < 0 or after < 0:
        return -1
    return (size + before + after - kernel) // stride + 1
