"""What a softmax unit without a multiplier uses of the vector engine's pipeline."""

from __future__ import annotations

from amaranth.hdl import signed
from amaranth.lib import data
from celosia.hw.contract.config import NpuConfig

__all__ = ["LENT_STAGES", "lent_layout"]

LENT_STAGES = 8
"""Cycles from the operands to the byte: stages 7 to 15."""


def lent_layout(config: NpuConfig) -> data.StructLayout:
    """Return what softmax tells the pipeline. Nothing else may be in it while ``valid`` is high.

    The first lane gives ``x * m`` rounded to its high half, of which ``right`` bits are rounded
    off, half up; less 128 and at most 127 it is a byte of the result.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "x": signed(32),
            "m": signed(32),
            # At least 1.
            "right": 5,
            # Keep the line that the activation SRAM shows; choose one of its bytes.
            "keep": 1,
            "place": range(config.line_bytes),
            # The line of the result goes on with the first lane's byte; with a zero, if not `real`.
            "pack": 1,
            "real": 1,
        }
    )
