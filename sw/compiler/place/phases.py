"""Parts of an output that are convolutions of their own, and how they are laid onto the array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.ranges import Int64Array
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div
from celosia.sw.compiler.ir import ConvOp, Int8Array
from celosia.sw.compiler.place.layout import ActLayout
from celosia.sw.compiler.place.mapping import ConvMapping, map_conv

__all__ = ["Phase", "PhaseMapping", "map_phases"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Phase:
    """A grid of outputs, and the convolution that computes them.

    Attributes
    ----------
    conv : ConvOp
        Its pads may be negative: then its first or last windows lie inside the image.
    rest : ndarray of int8, optional
        What has to be added to its weights, where these would leave int8.
    y, x : int
        Row and column of the first output.
    step_y, step_x : int
        Rows and columns of the output from one to the next.
    rows, columns : int
        How many there are.
    """

    conv: ConvOp
    y: int
    x: int
    step_y: int
    step_x: int
    rows: int
    columns: int
    rest: Int8Array | None = None

    @property
    def weights(self) -> Int64Array:
        """What its inputs are really multiplied by."""
        weights = self.conv.weights.astype(np.int64)
        return weights if self.rest is None else weights + self.rest

    def within(self, rows: Range) -> Range:
        """Return which of its rows are in a range of the output's rows; perhaps none."""
        first, end = (min(max(0, ceil_div(row - self.y, self.step_y)), self.rows) for row in rows)
        return first, max(first, end)


@dataclass(frozen=True)
class PhaseMapping:
    """The passes of several convolutions that write parts of one tensor, one after the other.

    Attributes
    ----------
    phases : tuple of Phase
        The parts.
    each : tuple of ConvMapping
        How the array computes each of them.
    """

    phases: tuple[Phase, ...]
    each: tuple[ConvMapping, ...]

    def tile_weight_bytes(self, config: NpuConfig) -> int:
        """Bytes of the weights of a tile of output channels."""
        return sum(
            mapping.tile_weight_bytes(config) * (1 if phase.rest is None else 2)
            for phase, mapping in zip(self.phases, self.each, strict=True)
        )

    def describe(self) -> str:
        """Say it in words, for reports."""
        largest = max(self.each, key=lambda mapping: mapping.passes)
        return f"{len(self.each)} phases of the output, the largest: " + largest.describe(
            folded_input=False
        )


def map_phases(
    phases: tuple[Phase, ...], layout: ActLayout, in_height: int, config: NpuConfig
) -> PhaseMapping:
    """Choose the mapping of each phase, as `map_conv` does."""
    return PhaseMapping(
        phases,
        tuple(
            map_conv(phase.conv, layout, in_height, (phase.rows, phase.columns), config)
            for phase in phases
        ),
    )
