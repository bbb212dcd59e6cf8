"""RESIZE_BILINEAR of the TensorFlow Lite int8 reference kernels.

Source: TensorFlow Lite ``reference/resize_bilinear.h``, ``ResizeBilinearInteger``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from celosia.sim.golden.fixed import divide_round_half_away

__all__ = ["resize_bilinear"]

Int8 = npt.NDArray[np.int8]

BITS = 10


def resize_bilinear(
    x: Int8, *, size: tuple[int, int], align_corners: bool, half_pixel_centers: bool
) -> Int8:
    """RESIZE_BILINEAR of (N, H, W, C); places between pixels have 10 bits behind the point.

    The bytes are interpolated as they are: the zero point takes no part.
    """

    def places(before: int, after: int) -> tuple[list[int], list[int], list[int]]:
        """Return the pixel before each place, the one behind it, and the second one's weight."""
        numerator, denominator = (before << BITS), after
        if align_corners and after > 1:
            numerator, denominator = ((before - 1) << BITS), after - 1
        scale = (numerator + denominator // 2) // denominator
        firsts, seconds, weights = [], [], []
        for place in range(after):
            value = place * scale
            if half_pixel_centers:
                value += scale // 2 - (1 << BITS) // 2
            first = max(int(value / (1 << BITS)), 0)  # towards zero
            second = min(int((value + (1 << BITS) - 1) / (1 << BITS)), before - 1)
            if first >= before:
                raise ValueError(f"place {place} of {after} lies behind {before} pixels")
            firsts.append(first)
            seconds.append(second)
            weights.append(value - (first << BITS))
        return firsts, seconds, weights

    top, bottom, down = places(x.shape[1], size[0])
    left, right, across = places(x.shape[2], size[1])
    wide = x.astype(np.int64)
    y = np.array(down)[:, None, None]
    z = np.array(across)[:, None]
    one = 1 << BITS
    total = (
        wide[:, top][:, :, left] * (one - y) * (one - z)
        + wide[:, bottom][:, :, left] * y * (one - z)
        + wide[:, top][:, :, right] * (one - y) * z
        + wide[:, bottom][:, :, right] * y * z
    )
    return divide_round_half_away(total, one * one).astype(np.int8)
