"""Machines of a few lines beside the presets, and system memory with moods, for random programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from celosia.hw.contract.config import PRESETS, NpuConfig

if TYPE_CHECKING:
    from celosia.sim.rtl.rtl import MemoryModel

__all__ = ["MACHINES", "random_memory"]

MACHINES = {
    "small4": NpuConfig(
        name="small4", rows=4, cols=4, bus_bits=32, act_bytes=1024, wgt_bytes=64, param_bytes=256,
        acc_depth=16, queue_depth=2, max_outstanding=2,
    ),
    "small8": NpuConfig(
        name="small8", rows=8, cols=8, bus_bits=64, act_bytes=2048, wgt_bytes=256, param_bytes=512,
        acc_depth=16, queue_depth=4, max_outstanding=4,
    ),
    **PRESETS,
}  # fmt: skip
"""The small ones cut rows into stripes, weights into chunks and reductions into commands."""


def random_memory(rng: np.random.Generator) -> MemoryModel:
    """Return a system memory that answers late, stalls and delays at random."""
    from celosia.sim.rtl.rtl import MemoryModel

    return MemoryModel(
        latency_cycles=int(rng.integers(1, 40)),
        stall_probability=float(rng.choice([0.0, 0.1, 0.6])),
        delay_probability=float(rng.choice([0.0, 0.1, 0.6])),
        seed=int(rng.integers(1, 1 << 30)),
    )
