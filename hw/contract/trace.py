"""What the NPU's trace port carries: its names, shared by the gateware and the profiler.

Pure standard library: the profiler imports it without Amaranth.
"""

from __future__ import annotations

from celosia.hw.contract.isa import Engine

__all__ = ["TAG_BITS", "TRACE_STATES"]

TAG_BITS = 16
"""Width of a command's tag."""

TRACE_STATES: tuple[str, ...] = (
    *(f"{engine.name.lower()}_active" for engine in Engine),
    *(f"{engine.name.lower()}_busy" for engine in Engine),
    "array_stream",
    "array_wait_weights",
    "array_wait_acc",
    "vector_stream",
    "vector_wait_acc",
    "vector_wait_act",
)
"""Bits of ``trace.state``, the lowest first.

``*_active`` the engine has a command, ``*_busy`` that command runs (its tokens are taken). While a
command runs at most one of the ``array_*`` bits is high: a window is taken, weights are shifted
in, no accumulator half is free; with none of them it starts or drains. ``vector_*``: a vector is
issued, there is no full accumulator half, the activation SRAM refuses."""
