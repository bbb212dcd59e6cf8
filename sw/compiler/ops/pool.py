"""Lowers pooling."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from celosia.sw.compiler.ir import Graph, MaximumOp, PoolOp, SourceOp, Tensor, made_like
from celosia.sw.compiler.ops.clamp import clamp_of
from celosia.sw.compiler.ops.operator import Lowered, Operator, always
from celosia.sw.compiler.passes.rewrite import contradiction, same_quantisation, unsupported
from celosia.sw.compiler.passes.window import window_of

__all__ = ["OPERATORS"]

MAX_KERNEL = 1 << 16


def lower_pool(graph: Graph, op: SourceOp) -> Lowered:
    """Lower AVERAGE_POOL_2D or MAX_POOL_2D."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    kind: Literal["avg", "max"] = "avg" if op.name == "AVERAGE_POOL_2D" else "max"
    kernel_h, kernel_w = op.options.get("filter_height"), op.options.get("filter_width")
    if not isinstance(kernel_h, int) or not isinstance(kernel_w, int):
        raise contradiction(op, "it has no window size")
    if not 1 <= min(kernel_h, kernel_w) <= max(kernel_h, kernel_w) <= MAX_KERNEL:
        raise contradiction(op, f"a window of {kernel_h}x{kernel_w}")
    if not same_quantisation(source, result) or result.scale is None:
        raise unsupported(op, "input and output have different quantisation", "convert again")
    window = window_of(op, source, result, (kernel_h, kernel_w))
    if source.shape[3] != result.shape[3]:
        raise contradiction(op, f"input {list(source.shape)}, output {list(result.shape)}")
    act_min, act_max = clamp_of(op, result)
    pool = PoolOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=result.name,
        kind=kind,
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        stride_h=window.stride_h,
        stride_w=window.stride_w,
        pad_top=window.pad_top,
        pad_bottom=window.pad_bottom,
        pad_left=window.pad_left,
        pad_right=window.pad_right,
        act_min=act_min,
        act_max=act_max,
    )
    if kind == "max" or not op.arithmetic.unsigned or _odd(pool):
        return [pool], []
    return _halves_up(graph, pool, result)


def _odd(op: PoolOp) -> bool:
    """Whether all windows have an odd number of pixels inside the image: no average is a half."""
    padded = op.pad_top or op.pad_bottom or op.pad_left or op.pad_right
    return not padded and bool(op.kernel_h * op.kernel_w % 2)


def _halves_up(graph: Graph, op: PoolOp, result: Tensor) -> Lowered:
    """Return an average that rounds halves up: the greater of those that round to either side."""
    parts = [
        made_like(result, graph.tensors, f"{result.name}/{name}") for name in ("away", "inward")
    ]
    away, inward = (part.name for part in parts)
    return [
        replace(op, output=away),
        replace(op, output=inward, inward=True),
        MaximumOp(origin=op.origin, fused=op.fused, input_a=away, input_b=inward, output=op.output),
    ], parts


OPERATORS = (
    Operator(
        names=("AVERAGE_POOL_2D", "MAX_POOL_2D"),
        operands=(1, 1),
        where="vector engine; averages over more than 255 rows or columns: array",
        limits="equal quantisation of input and output; an average over more than 255 rows or"
        " columns is without padding, or its windows' lengths are products of such numbers",
        batches=True,
        apart=always,
        lower=lower_pool,
    ),
)
