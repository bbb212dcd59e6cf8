"""Wishbone B4 signature, with amaranth-soc's names."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.lib import enum
from amaranth.lib.wiring import In, Out, Signature

__all__ = ["BurstType", "CycleType", "Wishbone"]


class CycleType(enum.Enum, shape=3):  # type: ignore[call-arg]
    """Values of ``cti`` (Wishbone B4, section 4.1)."""

    CLASSIC = 0b000
    CONST_BURST = 0b001
    INCR_BURST = 0b010
    END_OF_BURST = 0b111


class BurstType(enum.Enum, shape=2):  # type: ignore[call-arg]
    """Values of ``bte``."""

    LINEAR = 0b00
    WRAP_4 = 0b01
    WRAP_8 = 0b10
    WRAP_16 = 0b11


_FEATURES = {"err": In(1), "stall": In(1), "cti": Out(CycleType), "bte": Out(BurstType)}


class Wishbone(Signature):
    """A Wishbone B4 bus, seen from its initiator.

    Parameters
    ----------
    addr_width : int
        Bits of a *word* address.
    data_width : int
        Bits of a word: 8, 16, 32, 64 or 128. ``sel`` has one bit a byte.
    features : iterable of str
        Of ``err``, ``stall``, ``cti`` and ``bte``. A bus with ``stall`` is pipelined.

    Raises
    ------
    ValueError
        If a parameter is not as above.

    Members
    -------
    cyc, stb, we : Out(1)
    adr : Out(addr_width)
    dat_w : Out(data_width)
    sel : Out(data_width // 8)
    ack : In(1)
    dat_r : In(data_width)
    err, stall : In(1), if in `features`
    cti : Out(CycleType), bte : Out(BurstType), if in `features`
    """

    def __init__(self, *, addr_width: int, data_width: int, features: Iterable[str] = ()) -> None:
        if addr_width < 1:
            raise ValueError(f"addr_width must be positive, not {addr_width!r}")
        if data_width not in (8, 16, 32, 64, 128):
            raise ValueError(f"data_width must be 8, 16, 32, 64 or 128, not {data_width!r}")
        self._features = frozenset(features)
        unknown = self._features - _FEATURES.keys()
        if unknown:
            raise ValueError(f"no such Wishbone features: {', '.join(sorted(unknown))}")
        self._addr_width = addr_width
        self._data_width = data_width
        members = {
            "adr": Out(addr_width),
            "dat_w": Out(data_width),
            "dat_r": In(data_width),
            "sel": Out(data_width // 8),
            "cyc": Out(1),
            "stb": Out(1),
            "we": Out(1),
            "ack": In(1),
        }
        members |= {name: flow for name, flow in _FEATURES.items() if name in self._features}
        super().__init__(members)

    @property
    def addr_width(self) -> int:
        """Bits of a word address."""
        return self._addr_width

    @property
    def data_width(self) -> int:
        """Bits of a word."""
        return self._data_width

    @property
    def features(self) -> frozenset[str]:
        """Optional signals."""
        return self._features

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wishbone) and self.members == other.members
