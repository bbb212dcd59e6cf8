"""A grey image in the terminal, readable without colours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["draw"]

SHADES = " ░▒▓█"


def draw(image: npt.NDArray[np.uint8]) -> str:
    """Return an image as text, two characters a pixel since characters are tall.

    Parameters
    ----------
    image : ndarray of uint8, shape [H, W]
        0 paper, 255 ink.
    """
    levels = (image.astype(np.int32) * len(SHADES)) // 256
    return "\n".join("".join(2 * SHADES[level] for level in row) for row in levels)
