"""Lets the compiler schedule in one manner, whatever is predicted of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from celosia.sw.compiler import build
from celosia.sw.compiler.schedule import overlap
from celosia.sw.compiler.schedule.schedule import Manner

__all__ = ["EAGER", "forced"]

EAGER = Manner(weight_chunks=4, overlap=True, postpone=True, fine=True, ramp=(0, 1))
"""All that lets layers begin early."""


@contextmanager
def forced(manner: Manner) -> Iterator[None]:
    """Compile in this manner alone, and let tiles of any size overlap."""
    with (
        patch.object(build, "Manner", lambda: manner),
        patch.object(build, "CHANGES", ()),
        patch.object(overlap, "LEAST_VECTORS", 1),
    ):
        yield
