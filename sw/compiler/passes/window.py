"""Geometry of sliding windows: output sizes and padding as TFLite computes them."""

from __future__ import annotations

from dataclasses import dataclass

from celosia.sw.compiler.ir import SourceOp, Tensor
from celosia.sw.compiler.ops.npu.checks import stride_over_samples
from celosia.sw.compiler.passes.rewrite import contradiction, unsupported

__all__ = ["EXPLICIT_PADS", "Window", "require_nhwc", "strides_of", "window_of"]

EXPLICIT_PADS = "explicit_pads"
"""Option (top, bottom, left, right) that `fold_pad` adds to a convolution; in place of SAME or
VALID."""

MAX_STRIDE = 1 << 16
"""Larger strides than any image are damage."""


@dataclass(frozen=True)
class Window:
    """Strides, dilation, pads and output size of one operator, in pixels.

    Images of a batch are one, below one another.
    """

    dilation_h: int
    dilation_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    out_h: int
    out_w: int


def require_nhwc(op: SourceOp, tensor: Tensor) -> tuple[int, int, int]:
    """Return [H, W, C] of a rank-4 tensor's images.

    Raises
    ------
    UnsupportedError
        For another rank.
    """
    if len(tensor.shape) != 4:
        raise unsupported(
            op,
            f"{tensor.name!r} has shape {list(tensor.shape)}, not [batch, height, width, channels]",
            "reshape it to rank 4; one-dimensional convolutions use height 1",
        )
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def window_of(op: SourceOp, source: Tensor, result: Tensor, kernel: tuple[int, int]) -> Window:
    """Work out a window operator's geometry and hold it against its output's shape.

    Parameters
    ----------
    op : SourceOp
        With options padding, stride_h, stride_w and perhaps dilations or `EXPLICIT_PADS`.
    source, result : Tensor
        Its image and its output, rank 4.
    kernel : tuple of int
        Kernel height and width.

    Raises
    ------
    ModelError
        If the output's shape is not what the options give.
    UnsupportedError
        If the images of a batch cannot be computed as one.
    """
    height, width, _ = require_nhwc(op, source)
    out_h, out_w, _ = require_nhwc(op, result)
    stride_h, stride_w = strides_of(op)
    dilation_h = _positive(op, "dilation_h_factor", default=1)
    dilation_w = _positive(op, "dilation_w_factor", default=1)
    reach = (kernel[0] - 1) * dilation_h + 1, (kernel[1] - 1) * dilation_w + 1
    explicit = op.options.get(EXPLICIT_PADS)
    if isinstance(explicit, tuple):
        rows = _explicit(height, reach[0], stride_h, explicit[0], explicit[1])
        columns = _explicit(width, reach[1], stride_w, explicit[2], explicit[3])
    else:
        same = op.options.get("padding") == "SAME"
        rows = _axis(height, reach[0], stride_h, same)
        columns = _axis(width, reach[1], stride_w, same)
    if (rows[0], columns[0]) != (out_h, out_w):
        raise contradiction(
            op,
            f"the output is {out_h}x{out_w} pixels, its window gives {rows[0]}x{columns[0]}",
        )
    batch = source.shape[0]
    if batch != result.shape[0]:
        raise contradiction(op, f"batches of {batch} and {result.shape[0]}")
    if batch > 1:
        over = stride_over_samples(height, out_h, stride_h, rows[1:])
        if over is None:
            raise unsupported(
                op,
                f"{source.name!r} has a batch of {batch}, and its windows would reach from one"
                " image into the next",
                "convert with batch size 1",
            )
        stride_h, out_h = over, out_h * batch
    return Window(
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        stride_h=stride_h,
        stride_w=stride_w,
        pad_top=rows[1],
        pad_bottom=rows[2],
        pad_left=columns[1],
        pad_right=columns[2],
        out_h=out_h,
        out_w=out_w,
    )


def strides_of(op: SourceOp) -> tuple[int, int]:
    """Return an operator's strides along height and width, both at least 1."""
    return _positive(op, "stride_h"), _positive(op, "stride_w")


def _positive(op: SourceOp, option: str, default: int | None = None) -> int:
    value = op.options.get(option, default)
    if not isinstance(value, int) or not 1 <= value <= MAX_STRIDE:
        raise contradiction(op, f"{option} is {value}")
    return value


def _axis(size: int, kernel: int, stride: int, same: bool) -> tuple[int, int, int]:
    """Output size, padding before and after, of one axis."""
    if not same:
        return max(0, (size + stride - kernel) // stride), 0, 0
    out = (size + stride - 1) // stride
    total = max((out - 1) * stride + kernel - size, 0)
    return out, total // 2, total - total // 2


def _explicit(size: int, kernel: int, stride: int, before: int, after: int) -> tuple[int, int, int]:
    out = max(0, (size + before + after - kernel) // stride + 1)
    # Only what is read counts as padding.
    return out, before, max(0, (out - 1) * stride + kernel - size - before)
