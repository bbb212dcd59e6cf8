"""Skips where the tools that build simulators of the RTL are missing."""

from __future__ import annotations

import pytest
from celosia.toolchain import missing_tools

__all__ = ["needs_simulator", "skip_without_simulator"]

_MISSING = missing_tools()
needs_simulator = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "all tools are there")


def skip_without_simulator() -> None:
    """Skip a test, or what a fixture is for, that would build a simulator."""
    if _MISSING:
        pytest.skip(_MISSING)
