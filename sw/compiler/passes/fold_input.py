"""Folds a few-channel graph input while it is loaded, so that windows fill the array's rows.

A kernel row of 4 taps of one channel is 4 bytes: half of a window of 8. If the bytes of two image
rows lie side by side, one window covers two kernel rows and the convolution takes half the passes.
So the image is loaded *folded*: pixel j of row s of the folded image holds the P pixels from
``j * P - pad_left`` on of the R rows from ``s * F - pad_top`` on, padding included::

    folded[s, j, r, p, c] = image[s * F - pad_top + r, j * P - pad_left + p, c]

P divides the horizontal stride; F is how far folded rows are apart: the greatest common divisor of
R and the vertical stride, or that stride where one group of R rows is the whole kernel. Rows are
there R / F times. The convolution becomes one of a smaller
kernel without padding, with the same products. The price is a load of many short runs of P * C
bytes instead of one long one; the pass folds only where the array gains clearly more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import gcd

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.ir import ConvOp, DType, Graph, NpuOp, Op, Origin, Tensor, fresh_name, hwc

__all__ = ["FoldOp", "FoldedConvOp", "Folding", "Run", "fold_input", "fold_runs"]

TRANSFER_CYCLES = 20
"""Estimate of what a command of the load engine costs beside its runs, in cycles."""
LEAST_GAIN_CYCLES = 500
"""Folding has to save at least this much."""
LARGEST_PART_OF_MEMORY = 4
"""The folded image takes at most one of so many parts of the activation SRAM."""


@dataclass(frozen=True)
class Folding:
    """The parameters R, F and P, and the size of the result."""

    rows: int
    row_step: int
    pixels: int
    height: int
    width: int
    channels: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the folded image."""
        return self.height * self.width * self.channels


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldOp(NpuOp):
    """Loads a graph input folded.

    Attributes
    ----------
    input : str
        The graph input, in memory.
    folding : Folding
        How.
    pad_top, pad_left, zero_point : int
        Padding of the convolution.
    """

    input: str
    folding: Folding
    pad_top: int
    pad_left: int
    zero_point: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldedConvOp(ConvOp):
    """A convolution of a folded image.

    Attributes
    ----------
    dilation_h : int
        Folded rows from kernel row to kernel row.
    """

    dilation_h: int


@dataclass(frozen=True)
class Run:
    """A strided transfer: `height` times `count` runs of `size_bytes`.

    Attributes
    ----------
    source : int
        Byte of the first run in the dense image; its steps follow from the folding.
    target : int
        Byte of the first run in the folded image.
    """

    source: int
    target: int
    size_bytes: int
    count: int
    height: int


def fold_runs(op: FoldOp, image: tuple[int, int, int]) -> Iterator[Run]:
    """Yield the transfers of a fold; what they leave out is padding.

    Parameters
    ----------
    op : FoldOp
        The fold.
    image : tuple of int
        Height, width and channels of the input.
    """
    folding = op.folding
    height, width, channels = image
    for r in range(folding.rows):
        # Folded rows whose image row s * F - pad_top + r exists.
        first = max(0, ceil_div(op.pad_top - r, folding.row_step))
        end = min(folding.height, ceil_div(height + op.pad_top - r, folding.row_step))
        if first >= end:
            continue
        y = first * folding.row_step - op.pad_top + r
        for j_first, j_end, p_first, p_end in _columns(folding, op.pad_left, width):
            x = j_first * folding.pixels - op.pad_left + p_first
            place = (first * folding.width + j_first) * folding.channels
            yield Run(
                source=(y * width + x) * channels,
                target=place + (r * folding.pixels + p_first) * channels,
                size_bytes=(p_end - p_first) * channels,
                count=j_end - j_first,
                height=end - first,
            )


def _columns(folding: Folding, pad_left: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield ranges of folded pixels with the range of their P pixels that is in the image."""
    last: tuple[int, int, int, int] | None = None
    for j in range(folding.width):
        start = j * folding.pixels - pad_left
        p_first, p_end = max(0, -start), min(folding.pixels, width - start)
        if p_first >= p_end:
            continue
        if last is not None and last[2:] == (p_first, p_end):
            last = (last[0], j + 1, p_first, p_end)
            continue
        if last is not None:
            yield last
        last = (j, j + 1, p_first, p_end)
    if last is not None:
        yield last


def fold_input(graph: Graph, config: NpuConfig) -> Graph:
    """Return the graph with its inputs folded where that pays; else the same graph."""
    ops: list[Op] = []
    tensors = dict(graph.tensors)
    changed = False
    for op in graph.ops:
        folding = _best_folding(graph, op, config) if isinstance(op, ConvOp) else None
        if folding is None or not isinstance(op, ConvOp):
            ops.append(op)
            continue
        changed = True
        source = graph.tensors[op.input]
        folded = Tensor(
            name=fresh_name(tensors, f"{source.name}/folded"),
            shape=(1, folding.height, folding.width, folding.channels),
            dtype=DType.INT8,
            scale=source.scale,
            zero_point=source.zero_point,
        )
        tensors[folded.name] = folded
        ops.append(
            FoldOp(
                origin=Origin("", -1, "FOLD_INPUT"),
                input=op.input,
                output=folded.name,
                folding=folding,
                pad_top=op.pad_top,
                pad_left=op.pad_left,
                zero_point=op.input_zero_point,
            )
        )
        ops.append(_folded_conv(op, folding, folded.name))
    if not changed:
        return graph
    return Graph(
        name=graph.name, tensors=tensors, ops=ops, inputs=graph.inputs, outputs=graph.outputs
    )


def _best_folding(graph: Graph, op: ConvOp, config: NpuConfig) -> Folding | None:
    if op.depthwise or op.input not in graph.inputs or op.input in graph.outputs:
        return None
    if len(graph.consumers(op.input)) != 1:
        return None
    image = hwc(graph.tensors[op.input].shape)
    out_h, out_w, _ = hwc(graph.tensors[op.output].shape)
    size = config.rows
    plain = op.kernel_h * ceil_div(op.kernel_w * op.cin, size)
    pass_cycles = max(out_h * out_w, size) * ceil_div(op.cout, size)
    best, best_gain = None, float(LEAST_GAIN_CYCLES)
    for pixels in (p for p in range(1, op.stride_w + 1) if op.stride_w % p == 0):
        for rows in range(2, op.kernel_h + 1):
            folding = _folding(op, rows, pixels, out_h, out_w)
            if folding.size_bytes > config.act_bytes // LARGEST_PART_OF_MEMORY:
                continue
            windows = ceil_div(op.kernel_w, pixels) * folding.channels
            passes = ceil_div(op.kernel_h, rows) * ceil_div(windows, size)
            saved = (plain - passes) * pass_cycles
            if saved <= best_gain:
                continue
            fold = FoldOp(
                origin=Origin("", -1, "FOLD_INPUT"),
                input=op.input,
                output="",
                folding=folding,
                pad_top=op.pad_top,
                pad_left=op.pad_left,
                zero_point=op.input_zero_point,
            )
            runs = list(fold_runs(fold, image))
            spent = folding.size_bytes // config.bus_bytes + sum(
                TRANSFER_CYCLES + _run_words(run, config) * run.count * run.height for run in runs
            )
            if saved - spent > best_gain:
                best, best_gain = folding, saved - spent
    return best


def _run_words(run: Run, config: NpuConfig) -> float:
    """Return the bus words of a run that begins anywhere in a word, on average."""
    return 1 + (run.size_bytes - 1) / config.bus_bytes


def _folding(op: ConvOp, rows: int, pixels: int, out_h: int, out_w: int) -> Folding:
    kernel_h, kernel_w = ceil_div(op.kernel_h, rows), ceil_div(op.kernel_w, pixels)
    # Windows begin at every stride, and their groups of rows at every R of those.
    row_step = op.stride_h if kernel_h == 1 else gcd(rows, op.stride_h)
    return Folding(
        rows=rows,
        row_step=row_step,
        pixels=pixels,
        height=(out_h - 1) * (op.stride_h // row_step) + (kernel_h - 1) * (rows // row_step) + 1,
        width=(out_w - 1) * (op.stride_w // pixels) + kernel_w,
        channels=rows * pixels * op.cin,
    )


def _folded_conv(op: ConvOp, folding: Folding, name: str) -> FoldedConvOp:
    kernel_h, kernel_w = ceil_div(op.kernel_h, folding.rows), ceil_div(op.kernel_w, folding.pixels)
    padded = np.zeros(
        (kernel_h * folding.rows, kernel_w * folding.pixels, op.cin, op.cout), np.int8
    )
    padded[: op.kernel_h, : op.kernel_w] = op.weights
    weights = (
        padded.reshape(kernel_h, folding.rows, kernel_w, folding.pixels, op.cin, op.cout)
        .transpose(0, 2, 1, 3, 4, 5)
        .reshape(kernel_h, kernel_w, folding.channels, op.cout)
    )
    values = {field.name: getattr(op, field.name) for field in fields(op)}
    values |= {
        "input": name,
        "weights": np.ascontiguousarray(weights),
        "stride_h": op.stride_h // folding.row_step,
        "stride_w": op.stride_w // folding.pixels,
        "pad_top": 0,
        "pad_bottom": 0,
        "pad_left": 0,
        "pad_right": 0,
    }
    return FoldedConvOp(**values, dilation_h=folding.rows // folding.row_step)
