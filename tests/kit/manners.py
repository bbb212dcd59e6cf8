"""Lets the compiler schedule in one manner, whatever is predicted of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from celosia.sw.compiler import build
from celosia.sw.compiler.schedule.schedule import Manner

__all__ = ["EAGER", "forced"]

EAGER = Manner(weight_chunks=4, overlap=True, least=1, postpone=True, fine=True, ramp=(0, 1))
"""All that lets layers begin early, with tiles of any size."""


@contextmanager
def forced(manner: Manner) -> Iterator[None]:
    """Compile in this manner alone."""
    with (
        patch.object(build, "Manner", lambda: manner),
        patch.object(build, "CHANGES", ()),
    ):
        yield
