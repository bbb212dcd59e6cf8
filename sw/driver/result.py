"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
from celosia.errors import InputError

__all__ = ["Result", "SegmentResult"]


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What one segment of a program gave, and how long it took.

    Attributes
    ----------
    name : str
        The segment's.
    outputs : mapping of str to ndarray
        What it left for segments behind it, and for the user.
    tensors : mapping of str to ndarray
        Intermediate tensors, if the program was compiled to keep them.
    cycles : int or None
        Clock cycles from doorbell to end; None on the emulator, which has no clock.
    counters : mapping of str to int
        The performance counters by name (see ``celosia.hw.contract.regs.COUNTERS``); empty on the
        emulator.
    milliseconds : float or None
        What a segment of the host took, with the way there and back; None for one of the NPU.
    """

    name: str = ""
    outputs: Mapping[str, npt.NDArray[Any]]
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    cycles: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    milliseconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Outputs and measurements of one inference.

    Attributes
    ----------
    outputs : mapping of str to ndarray
        By tensor name, in the model's order, shape and dtype.
    cycles : int or None
        Clock cycles of the NPU's segments; None on the emulator, which has no clock.
    counters : mapping of str to int
        The performance counters by name, summed over the segments; empty on the emulator.
    tensors : mapping of str to ndarray
        Intermediate tensors, if the program was compiled to keep them.
    segments : tuple of SegmentResult
        Of each segment, in order.
    """

    outputs: Mapping[str, npt.NDArray[Any]]
    cycles: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    tensors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    segments: tuple[SegmentResult, ...] = ()

    @property
    def host_milliseconds(self) -> float:
        """What the segments of the host took."""
        return sum(part.milliseconds or 0.0 for part in self.segments)

    @property
    def output(self) -> npt.NDArray[Any]:
        """The output of a model that has one.

        Raises
        ------
        InputError
            If there are several.
        """
        if len(self.outputs) != 1:
            raise InputError(
                "result.output",
                f"the model has {len(self.outputs)} outputs",
                f"use result.outputs[name] with one of {', '.join(self.outputs)}",
            )
        return next(iter(self.outputs.values()))
