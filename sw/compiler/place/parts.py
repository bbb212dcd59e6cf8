"""Parts of a kernel: a window that does not fit on chip is summed up a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Mode
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, sparse_sizes, split
from celosia.sw.compiler.ir import ConvOp
from celosia.sw.compiler.place.mapping import ROWS_TAPS, ConvMapping

__all__ = ["KernelPart", "kernel_parts", "part_positions"]


@dataclass(frozen=True, kw_only=True)
class KernelPart:
    """Passes of a convolution, and what of the kernel they are.

    Attributes
    ----------
    ky, kx, ic : (int, int)
        Turns of the loops of passes.
    rows, columns : (int, int)
        Rows and columns of the kernel.
    channels : (int, int)
        Input channels; of a depthwise convolution none: those of the output.
    """

    ky: Range
    kx: Range
    ic: Range
    rows: Range
    columns: Range
    channels: Range


def kernel_parts(
    mapping: ConvMapping, pixel_bytes: int, config: NpuConfig
) -> Iterator[tuple[KernelPart, ...]]:
    """Yield the ways to cut a kernel, from few parts to many.

    Parameters
    ----------
    mapping : ConvMapping
        The convolution and its passes.
    pixel_bytes : int
        Bytes from pixel to pixel of the input; for packed windows.
    config : NpuConfig
        The machine.
    """
    for size in sparse_sizes(mapping.n_ky)[1:]:
        yield tuple(
            _part(mapping, ky, (0, mapping.n_kx), (0, mapping.n_ic), pixel_bytes, config)
            for ky in split(mapping.n_ky, size)
        )
    ones = split(mapping.n_ky, 1)
    for size in sparse_sizes(mapping.n_kx)[1:]:
        yield tuple(
            _part(mapping, ky, kx, (0, mapping.n_ic), pixel_bytes, config)
            for ky in ones
            for kx in split(mapping.n_kx, size)
        )
    for size in sparse_sizes(mapping.n_ic)[1:]:
        yield tuple(
            _part(mapping, ky, kx, ic, pixel_bytes, config)
            for ky in ones
            for kx in split(mapping.n_kx, 1)
            for ic in split(mapping.n_ic, size)
        )


def _part(
    mapping: ConvMapping, ky: Range, kx: Range, ic: Range, pixel_bytes: int, config: NpuConfig
) -> KernelPart:
    op, size = mapping.op, config.rows
    rows, columns, channels = ky, kx, (0, 0)
    assert mapping.mode != Mode.JOINED, "rows of a kernel that comes in parts are not joined"
    if mapping.mode != Mode.WINDOW:
        lines = ky
        taps = (kx[0] * size, kx[1] * size)
        if mapping.mode == Mode.ROWS:
            lines = (ky[0] * mapping.ky_rows, ky[1] * mapping.ky_rows)
            taps = (0, ROWS_TAPS * mapping.phases)
        rows, columns = (taps, lines) if mapping.swapped else (lines, taps)
    elif mapping.packed:
        # Bytes of a kernel row, pixel after pixel.
        columns = (ic[0] * size // pixel_bytes, ceil_div(ic[1] * size, pixel_bytes))
        channels = (0, op.cin)
    else:
        channels = (ic[0] * size, min(ic[1] * size, op.cin))
    return KernelPart(
        ky=ky,
        kx=kx,
        ic=ic,
        rows=(rows[0], min(rows[1], op.kernel_h)),
        columns=(columns[0], min(columns[1], op.kernel_w)),
        channels=channels,
    )


def part_positions(
    op: ConvOp, part: KernelPart, in_size: Range, rows: Range, columns: Range
) -> tuple[Range, Range]:
    """Return the rows and columns of the input that a part takes for some outputs.

    Parameters
    ----------
    op : ConvOp
        The convolution.
    part : KernelPart
        A part of its kernel.
    in_size : (int, int)
        Rows and columns of the input.
    rows, columns : (int, int)
        Of the output.

    Returns
    -------
    tuple of (int, int)
        Each at least one: where a part takes only padding, it does not matter which.
    """
    y = part.rows[0] * op.dilation_h - op.pad_top, (part.rows[1] - 1) * op.dilation_h - op.pad_top
    x = (
        part.columns[0] * op.dilation_w - op.pad_left,
        (part.columns[1] - 1) * op.dilation_w - op.pad_left,
    )
    return (
        _inside(rows[0] * op.stride_h + y[0], (rows[1] - 1) * op.stride_h + y[1] + 1, in_size[0]),
        _inside(
            columns[0] * op.stride_w + x[0], (columns[1] - 1) * op.stride_w + x[1] + 1, in_size[1]
        ),
    )


def _inside(first: int, end: int, size: int) -> Range:
    first = min(max(first, 0), size - 1)
    return first, max(min(end, size), first + 1)
