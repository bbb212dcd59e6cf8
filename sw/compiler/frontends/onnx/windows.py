"""Windows of convolutions and pools, as ONNX says where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celosia.sw.compiler.passes.window import EXPLICIT_PADS

__all__ = ["Windows", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """Sizes along rows and columns; a tensor of one spatial axis has one row.

    Attributes
    ----------
    kernel, strides, dilations : (int, int)
    pads : (int, int, int, int)
        Top, bottom, left, right: as many pixels as the windows need.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    beside: bool = False
    """Whether a window has no pixel of the image."""

    @property
    def padded(self) -> bool:
        """Whether a window reaches over the edge."""
        return any(self.pads)

    @property
    def options(self) -> dict[str, Any]:
        """The options of an operator of the compiler."""
        return {
            "padding": "VALID",
            EXPLICIT_PADS: self.pads,
            "stride_h": self.strides[0],
            "stride_w": self.strides[1],
            "dilation_h_factor": self.dilations[0],
            "dilation_w_factor": self.dilations[1],
        }


def windows_of(
    options: Mapping[str, Any],
    before: tuple[int, ...],
    after: tuple[int, ...],
    kernel: tuple[int, ...],
) -> Windows | None:
    """Return the windows of an operator; None if they are not of one or two axes.

    Parameters
    ----------
    options : mapping
        Of the node.
    before, after : tuple of int
        Spatial sizes of its input and its output.
    kernel : tuple of int
        Of the window.
    """
    axes = len(kernel)
    if axes not in (1, 2) or len(before) != axes or len(after) != axes:
        return None
    strides = _sizes(options, "strides", axes)
    dilations = _sizes(options, "dilations", axes)
    given = options.get("pads") or [0] * (2 * axes)
    automatic = options.get("auto_pad", "NOTSET")
    if len(given) != 2 * axes or min(given) < 0 or min((*strides, *dilations)) < 1:
        return None
    ends: list[tuple[int, int]] = []
    beside = False
    for axis in range(axes):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        needed = (after[axis] - 1) * strides[axis] + reach - before[axis]
        first = int(given[axis])
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            total = max(needed, 0)
            first = total // 2 if automatic == "SAME_UPPER" else total - total // 2
        elif automatic == "VALID":
            first = 0
        # The last window decides: what is declared beyond it is not read, and with ceil_mode it
        # reaches further than what is declared.
        beside |= first >= reach or (after[axis] - 1) * strides[axis] - first >= before[axis]
        ends.append((first, max(needed - first, 0)))
    whole = (1,) * (2 - axes)
    (left, right), (top, bottom) = ends[-1], ends[0] if axes == 2 else (0, 0)
    return Windows(
        kernel=(*whole, *kernel),  # type: ignore[arg-type]
        strides=(*whole, *strides),  # type: ignore[arg-type]
        dilations=(*whole, *dilations),  # type: ignore[arg-type]
        pads=(top, bottom, left, right),
        beside=beside,
    )


def _sizes(options: Mapping[str, Any], name: str, axes: int) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in options.get(name) or (1,) * axes)
    return sizes if len(sizes) == axes else (0,) * axes
