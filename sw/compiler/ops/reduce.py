"""Lowers reductions over rows, columns and channels.

A mean is a convolution whose kernel covers what is averaged and whose weights are 1; its
multiplier divides as well.
"""

from __future__ import annotations

import numpy as np
from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.arithmetic.fixed import QuantizationError, quantize_multiplier
from celosia.sw.compiler.ir import (
    ConvOp,
    Graph,
    NpuOp,
    PoolOp,
    ReshapeOp,
    SourceOp,
    Tensor,
    hwc,
    made_like,
)
from celosia.sw.compiler.ops.operator import Lowered, Operator, off_first_axis
from celosia.sw.compiler.passes.rewrite import contradiction, same_quantisation, unsupported

__all__ = ["OPERATORS"]

MAX_KERNEL_ELEMENTS = 1 << 24
"""Bound on what the weights of a mean may allocate, in bytes."""


def lower_mean(graph: Graph, op: SourceOp) -> Lowered:
    """Lower MEAN over any axes."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    if source.scale is None or result.scale is None:
        raise contradiction(op, "input or output has no scale")
    kernel_h, kernel_w, channels = _kernel(graph, op)
    depth = hwc(source.shape)[2]
    size = kernel_h * kernel_w * depth
    if size > MAX_KERNEL_ELEMENTS:
        raise unsupported(op, f"a mean of {size} elements", "average in two steps")
    count = kernel_h * kernel_w * (depth if channels else 1)
    multiplier, shift = _dividing(float(source.scale) / float(result.scale), count)
    cout = 1 if channels else depth
    shape = (kernel_h, kernel_w, depth, 1) if channels else (kernel_h, kernel_w, depth)
    mean, between = _between(graph, op, (kernel_h, kernel_w), cout)
    conv = ConvOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=mean,
        weights=np.ones(shape, np.int8),
        bias=np.full(cout, -source.zero_point * count, np.int64).astype(np.int32),
        multiplier=np.full(cout, multiplier, np.int32),
        shift=np.full(cout, shift, np.int8),
        rounding=Rounding.DOUBLE,
        depthwise=not channels,
        input_zero_point=source.zero_point,
        output_zero_point=result.zero_point,
    )
    return _with_shape(op, conv, between, result)


def lower_reduce_max(graph: Graph, op: SourceOp) -> Lowered:
    """Lower REDUCE_MAX over rows and columns."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    kernel_h, kernel_w, channels = _kernel(graph, op)
    if channels:
        raise unsupported(op, "a maximum over channels", "transpose, or reduce rows and columns")
    if not same_quantisation(source, result):
        raise unsupported(op, "input and output have different quantisation", "convert again")
    depth = hwc(source.shape)[2]
    maximum, between = _between(graph, op, (kernel_h, kernel_w), depth)
    pool = PoolOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=maximum,
        kind="max",
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        stride_h=1,
        stride_w=1,
    )
    return _with_shape(op, pool, between, result)


def _kernel(graph: Graph, op: SourceOp) -> tuple[int, int, bool]:
    """Return rows and columns of the window that is reduced, and whether channels are, too."""
    rows, columns, channels = _reduced(graph, op)
    height, width, _ = graph.hwc(op.inputs[0])
    return height if rows else 1, width if columns else 1, channels


def _reduced(graph: Graph, op: SourceOp) -> tuple[bool, bool, bool]:
    """Return whether rows, columns and channels of the input's [H, W, C] are reduced."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    data = graph.tensors[op.inputs[1]].data
    if data is None or data.dtype.kind != "i":
        raise unsupported(op, "its axes are not constant", "reduce over constant axes")
    rank = len(source.shape)
    if not all(-rank <= int(axis) < rank for axis in data.flat):
        raise contradiction(op, f"axes {data.tolist()} of a tensor of rank {rank}")
    axes = {int(axis) % rank for axis in data.flat}
    kept = [size for axis, size in enumerate(source.shape) if axis not in axes]
    held = [1 if axis in axes else size for axis, size in enumerate(source.shape)]
    expected = held if op.options.get("keep_dims") else kept
    if list(result.shape) not in (expected, expected or [1]):
        raise contradiction(op, f"output {list(result.shape)}, its axes give {expected}")
    # Axes of one element are reduced by looking at them.
    axes = {axis for axis in axes if source.shape[axis] > 1}
    if rank == 4:
        return 1 in axes, 2 in axes, 3 in axes
    outer = {axis for axis in range(rank - 1) if source.shape[axis] > 1}
    if axes & outer and not outer <= axes:
        raise unsupported(
            op,
            f"it reduces axes {sorted(axes)} of {list(source.shape)}",
            "reshape to [1, height, width, channels]",
        )
    return bool(axes & outer), False, rank - 1 in axes


def _dividing(real: float, count: int) -> tuple[int, int]:
    """Multiplier and shift that scale by ``real / count``, as the kernels work them out."""
    multiplier, shift = quantize_multiplier(real)
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    if shift - bits < -31:
        raise QuantizationError(f"a mean of {count} elements scaled by {real:g} leaves nothing")
    return (multiplier << bits) // count, shift - bits


def _between(
    graph: Graph, op: SourceOp, kernel: tuple[int, int], channels: int
) -> tuple[str, list[Tensor]]:
    """Return the name of the tensor to compute, and that tensor if it is not the result itself."""
    result = graph.tensors[op.results[0]]
    height, width, _ = graph.hwc(op.inputs[0])
    image = (1, height - kernel[0] + 1, width - kernel[1] + 1, channels)
    if hwc(result.shape) == image[1:]:
        return result.name, []
    tensor = made_like(result, graph.tensors, f"{result.name}/image", image)
    return tensor.name, [tensor]


def _with_shape(op: SourceOp, reduction: NpuOp, between: list[Tensor], result: Tensor) -> Lowered:
    if not between:
        return [reduction], []
    reshape = ReshapeOp(origin=op.origin, input=reduction.output, output=result.name)
    return [reduction, reshape], between


OPERATORS = (
    Operator(
        names=("MEAN",),
        operands=(2, 2),
        where="array",
        limits="constant axes; of a tensor of another rank than 4 all outer ones or the last",
        lower=lower_mean,
        apart=off_first_axis(1),
    ),
    Operator(
        names=("REDUCE_MAX",),
        operands=(2, 2),
        where="vector engine",
        limits="as MEAN, and not over channels; equal quantisation of input and output",
        lower=lower_reduce_max,
        apart=off_first_axis(1),
    ),
)
