"""What goes wrong on a serial line, on purpose."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

__all__ = ["FaultRates", "LineFaults"]


@dataclass(frozen=True, kw_only=True)
class FaultRates:
    """Chances, for each character, from 0 to 1.

    Attributes
    ----------
    flip : float
        A bit of it is inverted.
    drop : float
        It is lost.
    duplicate : float
        It comes twice.
    truncate : float
        It is lost with the rest of its frame, the delimiter included.
    stall : float
        Nothing more comes for a while.
    """

    flip: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    truncate: float = 0.0
    stall: float = 0.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{entry.name} must be from 0 to 1, not {value}")


class LineFaults:
    """One direction of a line with faults.

    Parameters
    ----------
    rates : FaultRates
    seed : int
        Equal seeds do the same to equal characters.

    Attributes
    ----------
    counts : dict of str to int
        Faults so far, by kind.
    """

    def __init__(self, rates: FaultRates, *, seed: int) -> None:
        self._rates = rates
        self._random = random.Random(seed)
        self._cutting = False
        self.counts = {entry.name: 0 for entry in fields(rates)}

    def pass_on(self, data: bytes) -> list[bytes]:
        """Return what becomes of characters: runs between which the line stalls."""
        runs = [bytearray()]
        for byte in data:
            if self._cutting:
                self._cutting = byte != 0
                continue
            if self._happens("truncate"):
                self._cutting = byte != 0
                continue
            if self._happens("drop"):
                continue
            if self._happens("flip"):
                byte ^= 1 << self._random.randrange(8)
            runs[-1].append(byte)
            if self._happens("duplicate"):
                runs[-1].append(byte)
            if self._happens("stall"):
                runs.append(bytearray())
        return [bytes(run) for run in runs]

    def _happens(self, kind: str) -> bool:
        rate = getattr(self._rates, kind)
        happens = rate > 0 and self._random.random() < rate
        self.counts[kind] += happens
        return bool(happens)
