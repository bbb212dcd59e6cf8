"""Small configurations, quick to simulate: every ratio of bus word and line that matters."""

from __future__ import annotations

from celosia.hw.contract.config import NpuConfig
from celosia.quantities import KIB

__all__ = ["CONFIGS", "make_config"]


def make_config(bus_bytes: int, n: int, **changes: int) -> NpuConfig:
    """Return a small configuration with a line of `n` bytes."""
    values: dict[str, int] = {
        "rows": n,
        "cols": n,
        "bus_bits": 8 * bus_bytes,
        "act_bytes": 8 * KIB,
        "wgt_bytes": 4 * KIB,
        "param_bytes": 2 * KIB,
        "acc_depth": 64,
        "queue_depth": 4,
    }
    return NpuConfig().with_(name="test", **(values | changes))


CONFIGS = {
    f"bus{bus_bytes}_line{n}": make_config(bus_bytes, n)
    for bus_bytes, n in ((4, 4), (4, 8), (8, 8), (16, 16))
}
