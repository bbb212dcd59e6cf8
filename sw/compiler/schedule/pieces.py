"""Cuts the passes of a convolution's command into several commands, which add up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADDRESS_MASK, Conv
from celosia.sw.compiler.arithmetic.whole import Range, split
from celosia.sw.compiler.place.limits import most
from celosia.sw.compiler.schedule.bounds import conv_limit, fitted_conv

__all__ = ["MAX_PASSES", "fitted_pieces", "shifted"]

MAX_PASSES = min(most(Conv, name) for name in ("n_ky", "n_kx", "n_ic"))
"""Passes of a piece of a split reduction, whichever loop they are in."""
MAX_KY_ROWS = most(Conv, "ky_rows")
"""Rows from kernel row to kernel row; where they are further apart, each is a command."""


def fitted_pieces(conv: Conv, most: int, config: NpuConfig) -> Iterator[tuple[Range, Conv]]:
    """Cut the passes of a command into commands that exist, of at most `most` passes; in order.

    Yields
    ------
    passes : (int, int)
        Of the command's.
    piece : Conv
        What computes them.
    """
    for passes, piece in _pieces(conv, most):
        if not conv_limit(piece, config):
            yield passes, piece
            continue
        fitted = fitted_conv(piece, config)
        counts = piece.n_ky, piece.n_kx, piece.n_ic
        if not conv_limit(fitted, config) or max(counts) == 1:
            yield passes, fitted
            continue
        # Fewer passes reach less far.
        axis = next(axis for axis, count in enumerate(counts) if count > 1)
        turn_passes = prod(counts[axis + 1 :])
        for turn in range(counts[axis]):
            begin = passes[0] + turn * turn_passes
            ranges: list[Range] = [(0, count) for count in counts]
            ranges[axis] = (turn, turn + 1)
            one = shifted(piece, *ranges)
            for inner, smaller in fitted_pieces(one, most, config):
                yield (begin + inner[0], begin + inner[1]), smaller


def _pieces(conv: Conv, most: int) -> Iterator[tuple[Range, Conv]]:
    """Cut the passes of a command into commands of at most `most` passes, in order."""
    if conv.n_kx * conv.n_ic <= most and conv.ky_rows <= MAX_KY_ROWS:
        per_step = conv.n_kx * conv.n_ic
        for first, end in split(conv.n_ky, most // per_step):
            yield (first * per_step, end * per_step), shifted(conv, ky=(first, end))
        return
    for ky in range(conv.n_ky):
        if conv.n_ic <= most:
            for kx in split(conv.n_kx, most // conv.n_ic):
                first = (ky * conv.n_kx + kx[0]) * conv.n_ic
                passes = (first, first + (kx[1] - kx[0]) * conv.n_ic)
                yield passes, shifted(conv, ky=(ky, ky + 1), kx=kx)
            continue
        for kx_one in range(conv.n_kx):
            for ic in split(conv.n_ic, most):
                first = (ky * conv.n_kx + kx_one) * conv.n_ic
                yield (
                    (first + ic[0], first + ic[1]),
                    shifted(conv, ky=(ky, ky + 1), kx=(kx_one, kx_one + 1), ic=ic),
                )


def shifted(conv: Conv, ky: Range, kx: Range | None = None, ic: Range | None = None) -> Conv:
    """Return the command of some of a command's turns: of kernel rows, columns, and lines deep."""
    kx = kx or (0, conv.n_kx)
    ic = ic or (0, conv.n_ic)
    along_row = kx[0] * conv.step_kx + ic[0] * conv.step_ic
    return replace(
        conv,
        act_addr=(conv.act_addr + ky[0] * conv.step_ky + along_row) & ADDRESS_MASK,
        y0=conv.y0 + ky[0] * conv.ky_rows,
        ky_rows=min(conv.ky_rows, MAX_KY_ROWS) if ky[1] - ky[0] == 1 else conv.ky_rows,
        x0=conv.x0 + along_row,
        n_ky=ky[1] - ky[0],
        n_kx=kx[1] - kx[0],
        n_ic=ic[1] - ic[0],
    )
