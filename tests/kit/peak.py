"""How much memory this process has had."""

from __future__ import annotations

import resource
import sys

__all__ = ["peak_bytes"]


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
