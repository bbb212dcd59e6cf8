"""What it costs to cross between host and NPU, and when it is not worth it.

The price is a rule, not a measurement of the machine that compiles: a program depends on its model
and configuration alone. It is counted in multiply-accumulates of the host.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MACS_PER_BYTE", "ROUND_TRIP_BYTES", "Crossing"]

MACS_PER_BYTE = 8
"""What the host computes while one byte crosses."""
ROUND_TRIP_BYTES = 256
"""What could cross during a round trip: a doorbell, an interrupt and the host's turn."""


@dataclass(frozen=True)
class Crossing:
    """The price of an NPU segment between segments of the host.

    Attributes
    ----------
    bytes : int
        Of the tensors that it takes and gives.
    work : int
        What the host would compute instead: multiply-accumulates, and elements written.
    """

    bytes: int
    work: int

    @property
    def pays(self) -> bool:
        """Whether the NPU is worth the way."""
        return self.work > MACS_PER_BYTE * (self.bytes + ROUND_TRIP_BYTES)

    @property
    def reason(self) -> str:
        """Why the host computes it, in words."""
        return (
            f"an NPU segment here would cost {self.bytes:,} bytes in crossings and a round trip,"
            f" for {self.work:,} operations"
        )
