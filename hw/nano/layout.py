"""Where the on-chip memories of the firmware machine are: one after another in one local memory.

Pure standard library.
"""

from __future__ import annotations

from dataclasses import dataclass

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, Space

__all__ = ["LocalMap"]


@dataclass(frozen=True)
class LocalMap:
    """Places in local memory, whose words are lines.

    Parameters
    ----------
    config : NpuConfig
    """

    config: NpuConfig

    def size_of(self, space: Space) -> int:
        """Return the bytes of a memory."""
        config = self.config
        return {
            Space.ACT: config.act_bytes,
            Space.WGT: config.wgt_bytes,
            Space.PARAM: config.param_bytes,
            Space.TABLE: TABLE_ENTRIES * config.cols,
        }[space]

    def base_of(self, space: Space) -> int:
        """Return the byte address of a memory's first byte."""
        return sum(self.size_of(earlier) for earlier in Space if earlier < space)

    @property
    def bytes(self) -> int:
        """Bytes of local memory."""
        return sum(self.size_of(space) for space in Space)
