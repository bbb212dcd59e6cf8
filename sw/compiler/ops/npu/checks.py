"""Invariants that several kinds of NPU operators have; each returns what is wrong, or None."""

from __future__ import annotations

from typing import TypeVar

from celosia.sw.compiler.ir import Graph, NpuOp

__all__ = [
    "bad_broadcast",
    "bad_clamp",
    "differing_elements",
    "is_int8",
    "stack_rows",
    "stride_over_samples",
    "window_count",
]


Image = tuple[int, int, int]
O = TypeVar("O", bound=NpuOp)  # noqa: E741


def differing_elements(graph: Graph, source: str, result: str) -> str | None:
    """Hold that two tensors have equally many elements."""
    a, b = graph.tensors[source].elements, graph.tensors[result].elements
    return None if a == b else f"{a} elements in, {b} out"


def bad_clamp(low: int, high: int) -> str | None:
    """Hold that a clamp is one of int8 values."""
    if is_int8(low) and is_int8(high) and low <= high:
        return None
    return f"clamp {low}..{high}"


def bad_broadcast(a: Image, b: Image, result: Image) -> str | None:
    """Hold that two images have the result's channels, and its rows and columns or one for all."""
    for one in (a, b):
        same = one[2] == result[2]
        if not same or any(m not in (1, n) for m, n in zip(one, result, strict=True)):
            return f"shapes {a}, {b} and {result}"
    return None if tuple(map(max, a, b)) == result else f"shapes {a}, {b} and {result}"


def is_int8(value: int) -> bool:
    """Whether a number is an int8 value."""
    return -128 <= value <= 127


def window_count(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Return how many windows there are along an axis; -1 if the window makes no sense."""
    if kernel < 1 or stride < 1 or before < 0 or after < 0:
        return -1
    return (size + before + after - kernel) // stride + 1


def stride_over_samples(size: int, out: int, stride: int, pads: tuple[int, int]) -> int | None:
    """Return the stride with which a window runs over images that lie below one another.

    Parameters
    ----------
    size, out : int
        Rows of one image, and of what the window makes of it.
    stride : int
        Of the window, in rows.
    pads : tuple of int
        Rows of padding above and below that are read.

    Returns
    -------
    int or None
        None if some window would read two images.
    """
    if any(pads):
        return None
    # A window that is the only one of its image may begin anywhere before the next image's.
    return size if out == 1 else stride if stride * out == size else None


def stack_rows(graph: Graph, op: O, samples: int) -> O | None:
    """Return an element-wise operator for samples below one another: itself, if no row is for all
    rows of a sample."""
    rows = {graph.hwc(name)[0] for name in (*op.inputs, *op.outputs)}
    return op if len(rows) == 1 else None
