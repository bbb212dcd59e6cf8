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
bytes instead of one long one. The pass folds where that may pay; which of both graphs is faster the
prediction says (`celosia.sw.compiler.build`).
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.ir import ConvOp, Graph, Int8Array, Op, Origin, made_like
from celosia.sw.compiler.ops.npu.fold import Folding, FoldOp, Run, fold_runs
from celosia.sw.compiler.place.mapping import joined_passes

__all__ = ["fold_input"]

TRANSFER_CYCLES = 20
"""Estimate of what a command of the load engine costs beside its runs, in cycles."""
LEAST_GAIN_CYCLES = -500
"""Folding has to gain more by this estimate, which counts all of the load. Others hide a part."""
LARGEST_PART_OF_MEMORY = 4
"""The folded image takes at most one of so many parts of the activation SRAM."""


def fold_input(graph: Graph, config: NpuConfig) -> Graph:
    """Return the graph with its inputs folded where that pays; else the same graph."""
    ops: list[Op] = []
    tensors = dict(graph.tensors)
    changed = False
    for op in graph.ops:
        if not isinstance(op, ConvOp) or (folding := _best_folding(graph, op, config)) is None:
            ops.append(op)
            continue
        changed = True
        source = graph.tensors[op.input]
        shape = (1, folding.height, folding.width, folding.channels)
        folded = made_like(source, tensors, f"{source.name}/folded", shape)
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
    return replace(graph, tensors=tensors, ops=ops)


def _best_folding(graph: Graph, op: ConvOp, config: NpuConfig) -> Folding | None:
    if op.depthwise or op.input not in graph.inputs or op.input in graph.outputs:
        return None
    if max(op.dilation_h, op.dilation_w) > 1:
        return None
    if len(graph.consumers(op.input)) != 1:
        return None
    image = graph.hwc(op.input)
    out_h, out_w, _ = graph.hwc(op.output)
    size = config.rows
    plain = joined_passes(op, op.cin, config)
    if plain is None:
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


def _folded_conv(op: ConvOp, folding: Folding, name: str) -> ConvOp:
    kernel_h, kernel_w = ceil_div(op.kernel_h, folding.rows), ceil_div(op.kernel_w, folding.pixels)

    def folded(weights: Int8Array) -> Int8Array:
        padded = np.zeros(
            (kernel_h * folding.rows, kernel_w * folding.pixels, op.cin, op.cout), np.int8
        )
        padded[: op.kernel_h, : op.kernel_w] = weights
        kernel = (
            padded.reshape(kernel_h, folding.rows, kernel_w, folding.pixels, op.cin, op.cout)
            .transpose(0, 2, 1, 3, 4, 5)
            .reshape(kernel_h, kernel_w, folding.channels, op.cout)
        )
        return np.ascontiguousarray(kernel)

    return replace(
        op,
        input=name,
        weights=folded(op.weights),
        more_weights=tuple(map(folded, op.more_weights)),
        stride_h=op.stride_h // folding.row_step,
        stride_w=op.stride_w // folding.pixels,
        pad_top=0,
        pad_bottom=0,
        pad_left=0,
        pad_right=0,
        dilation_h=folding.rows // folding.row_step if kernel_h > 1 else 1,
    )
