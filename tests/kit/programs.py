"""Programs that differ from compiled ones in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from celosia.sw.program.file import Program

__all__ = ["with_npu"]


def with_npu(program: Program, **changes: Any) -> Program:
    """Return a program with fields of its only segment, of the NPU, changed."""
    return replace(program, segments=(replace(program.npu, **changes),))
