"""The addresses that each command touches, as numpy arrays.

Written from the loops in :mod:`celosia.hw.contract.isa`; used by the emulator to gather and scatter
and by the static check to find races.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.isa import ADDRESS_MASK, Conv, Mode, Softmax, Transfer, Vector

__all__ = [
    "ConvStream",
    "conv_outputs",
    "conv_own_bytes",
    "conv_passes",
    "conv_stream",
    "conv_tiles",
    "softmax_lines",
    "transfer_runs",
    "vector_lines",
]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConvStream:
    """Where windows begin: `address` on chip, `row` and `x` (byte in the row) for the bounds."""

    address: Ints
    row: Ints
    x: Ints


def conv_tiles(conv: Conv) -> int:
    """Return the number of tiles of one channel tile: ceil(out_h / tile_rows)."""
    return -(-conv.out_h // conv.tile_rows)


def conv_stream(conv: Conv, oc: int, tile: int) -> ConvStream:
    """Return the positions of a tile in the order in which they are streamed, before a pass.

    The `extra` positions of TAPS and ROWS are the first ones of the row that would come next, so
    that an output sees the same pixels wherever tiles end.
    """
    first = tile * conv.tile_rows
    rows = min(conv.tile_rows, conv.out_h - first)
    y = np.repeat(np.arange(first, first + rows, dtype=np.int64), conv.row_len)
    position = np.tile(np.arange(conv.row_len, dtype=np.int64), rows)
    if not Mode(conv.mode).windows:
        y = np.append(y, np.full(conv.extra, first + rows))
        position = np.append(position, np.arange(conv.extra))
    return ConvStream(
        address=conv.act_addr + oc * conv.step_oc + y * conv.step_y + position * conv.step_x,
        row=conv.y0 + y * conv.stride_y,
        x=conv.x0 + position * conv.step_x,
    )


def conv_passes(conv: Conv) -> ConvStream:
    """Return what each pass (ky, kx, ic; ic fastest) adds to address, row and x."""
    ky, kx, ic = (
        axis.ravel()
        for axis in np.meshgrid(
            np.arange(conv.n_ky, dtype=np.int64),
            np.arange(conv.n_kx, dtype=np.int64),
            np.arange(conv.n_ic, dtype=np.int64),
            indexing="ij",
        )
    )
    along_row = kx * conv.step_kx + ic * conv.step_ic
    if conv.mode == Mode.JOINED:
        ky, along_row = np.divmod(ic * conv.step_ic, conv.step_kx)
    return ConvStream(address=ky * conv.step_ky + along_row, row=ky * conv.ky_rows, x=along_row)


def conv_own_bytes(conv: Conv, passes: ConvStream, size: int) -> Ints:
    """Return how many bytes each pass's windows, of `size` bytes, have of their own row."""
    if conv.mode != Mode.JOINED:
        return np.full(len(passes.x), size, np.int64)
    return np.minimum(conv.step_kx - passes.x, size)


def conv_outputs(conv: Conv, rows: int) -> Ints:
    """Return the stream positions at which the outputs of a tile of `rows` rows start."""
    row = np.arange(rows, dtype=np.int64) * conv.row_len
    return (row[:, None] + np.arange(conv.out_w) * conv.stride_x).ravel()


def transfer_runs(transfer: Transfer) -> tuple[Ints, Ints]:
    """Return the byte offsets in the region and the on-chip byte addresses of all runs."""
    outer = np.arange(transfer.n2, dtype=np.int64)[:, None]
    inner = np.arange(transfer.n1, dtype=np.int64)[None, :]
    memory = transfer.mem_addr + outer * transfer.mem_stride2 + inner * transfer.mem_stride1
    chip = transfer.sram_addr + outer * transfer.sram_stride2 + inner * transfer.sram_stride1
    return memory.ravel(), chip.ravel() & ADDRESS_MASK


def vector_lines(vector: Vector, operand: str) -> Ints:
    """Return the lines of operand "a", "b" or "d", ``[n_oc, out_h, out_w]``.

    For "a" two more axes follow, the window's rows and columns. Lines do not wrap: one beyond the
    memory is an error, however far.
    """
    oc = np.arange(vector.n_oc, dtype=np.int64)[:, None, None]
    y = np.arange(vector.out_h, dtype=np.int64)[None, :, None]
    x = np.arange(vector.out_w, dtype=np.int64)[None, None, :]
    base: int = getattr(vector, f"{operand}_addr")
    step_y: int = getattr(vector, f"{operand}_y")
    step_x: int = getattr(vector, f"{operand}_x")
    if operand == "b" and vector.b_oc:
        oc = np.zeros_like(oc)
    lines: Ints = base + oc + y * step_y + x * step_x
    if operand == "a":
        ky = np.arange(vector.n_ky, dtype=np.int64)[:, None] * vector.a_ky
        kx = np.arange(vector.n_kx, dtype=np.int64)[None, :] * vector.a_kx
        lines = lines[..., None, None] + ky + kx
    return lines


def softmax_lines(softmax: Softmax, line_bytes: int, operand: str) -> Ints:
    """Return the lines of operand "a" or "d", ``[n_rows, lines of a vector]``."""
    row = np.arange(softmax.n_rows, dtype=np.int64)[:, None]
    column = np.arange(-(-softmax.channels // line_bytes), dtype=np.int64)
    base: int = getattr(softmax, f"{operand}_addr")
    step: int = getattr(softmax, f"{operand}_y")
    lines: Ints = base + row * step + column
    return lines
