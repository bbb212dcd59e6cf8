"""Bounds of a convolution's command, in fields that have room for less than an image may have.

A `Conv` says where its first window is and how large the image is, so that what lies outside reads
as the zero point. Where the fields have no room for these numbers, others say the same: rows are
counted from the first one that the command reads, and where all of them are inside, or none, it
does not matter which they are.
"""

from __future__ import annotations

from dataclasses import replace

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADDRESS_MASK, Conv, Mode
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.place.limits import field_limit, most

__all__ = ["conv_limit", "fitted_conv"]

MOST_X = 1 << 20
"""Bytes from the beginning of a row that the array can count."""


def conv_limit(conv: Conv, config: NpuConfig) -> str:
    """Say what exceeds a command, as `field_limit`; '' if nothing does."""
    limit = field_limit(conv)
    if not limit and not -MOST_X <= conv.x0 <= conv.x0 + _reach(conv, config) < MOST_X:
        limit = "bytes of an input row that a command reaches"
    return limit


def fitted_conv(conv: Conv, config: NpuConfig) -> Conv:
    """Return a command that does the same and has smaller numbers, if it has too large ones.

    Parameters
    ----------
    conv : Conv
        Its values may be anything.
    config : NpuConfig
        The machine.
    """
    if not conv_limit(conv, config):
        return conv
    return _fit_columns(_fit_rows(_without_idle(conv)), config)


def _without_idle(conv: Conv) -> Conv:
    """Leave out distances that are never gone, and wrap those that are."""
    changes = {
        "step_y": conv.step_y & ADDRESS_MASK,
        "step_ky": conv.step_ky & ADDRESS_MASK,
    }
    of_passes = conv.mode != Mode.JOINED  # else distances are those of kernel rows
    if not _several_rows(conv) and conv.row_pitch > most(Conv, "row_pitch"):
        changes["row_pitch"] = 0
    if conv.out_h == 1:
        changes |= {"stride_y": 0, "step_y": 0 if conv.extra == 0 else changes["step_y"]}
    if conv.out_w == 1:
        changes["stride_x"] = 1
    if conv.row_len == 1 and conv.extra == 0:
        changes["step_x"] = 0
    if conv.n_ky == 1 and of_passes:
        changes["step_ky"] = 0
        if not _several_rows(conv):
            changes["ky_rows"] = 0
    if conv.n_kx == 1 and of_passes:
        changes["step_kx"] = 0
    if conv.n_ic == 1:
        changes["step_ic"] = 0
    return replace(conv, **changes)


def _several_rows(conv: Conv) -> bool:
    """Whether a pass has bytes of several rows; then ky_rows says more than where passes are."""
    return conv.mode in (Mode.ROWS, Mode.JOINED)


def _fit_rows(conv: Conv) -> Conv:
    rows, ky_rows = (conv.n_ky - 1) * conv.ky_rows + 1, 0
    if _several_rows(conv):
        rows, ky_rows = conv.n_ky * conv.ky_rows, conv.ky_rows
    if conv.mode == Mode.JOINED:
        rows = ceil_div(conv.n_ic * conv.step_ic, conv.step_kx)
    first = conv.y0
    last = first + (conv.out_h - 1) * conv.stride_y + rows - 1
    if first >= 0 and last < conv.in_h:
        inside = rows if ky_rows else 1
        return replace(conv, y0=0, in_h=inside, stride_y=0, ky_rows=ky_rows)
    if last < 0 or first >= conv.in_h:
        return replace(conv, y0=-1 - rows, in_h=0, stride_y=0, ky_rows=ky_rows)
    before = max(first, 0)
    return replace(conv, y0=first - before, in_h=min(conv.in_h, last + 1) - before)


def _fit_columns(conv: Conv, config: NpuConfig) -> Conv:
    end = conv.x0 + _reach(conv, config)
    if end <= 0 or conv.x0 >= conv.row_bytes:
        if conv.mode == Mode.JOINED:
            return replace(conv, x0=0, row_bytes=0, step_x=0)
        line = config.line_bytes
        return replace(conv, x0=-line, row_bytes=0, step_x=0, step_kx=0, step_ic=0)
    before = max(conv.x0, 0)
    return replace(conv, x0=conv.x0 - before, row_bytes=min(conv.row_bytes, end) - before)


def _reach(conv: Conv, config: NpuConfig) -> int:
    """Bytes of a row from the first window's first byte to the last one's end."""
    positions = (max(conv.row_len, conv.extra) - 1) * conv.step_x
    if conv.mode == Mode.JOINED:
        return positions + conv.step_kx + config.line_bytes
    passes = (conv.n_kx - 1) * conv.step_kx + (conv.n_ic - 1) * conv.step_ic
    return positions + passes + config.line_bytes
