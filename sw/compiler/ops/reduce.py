"""Lowers reductions over rows, columns and channels.

A mean or a sum is a convolution whose kernel covers what is reduced and whose weights are 1; the
multiplier of a mean divides as well. A maximum is a pooling whose window covers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.arithmetic import tables
from celosia.sw.compiler.arithmetic.exact import fitted_multiplier
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    INT8_MIN,
    QuantizationError,
    quantize_multiplier,
)
from celosia.sw.compiler.arithmetic.ranges import Int64Array
from celosia.sw.compiler.ir import (
    ConvOp,
    Graph,
    NpuOp,
    PoolOp,
    ReshapeOp,
    SourceOp,
    TableOp,
    Tensor,
    hwc,
    made_like,
)
from celosia.sw.compiler.ops.operator import Lowered, Operator, off_first_axis
from celosia.sw.compiler.passes.rewrite import contradiction, same_quantisation, unsupported

__all__ = ["OPERATORS"]

MAX_KERNEL_ELEMENTS = 1 << 24
"""Bound on what the weights of a mean may allocate, in bytes."""
LIMITS = "constant axes, in at most three ranges of neighbours that are reduced or not"


@dataclass(frozen=True)
class _Reduction:
    """What is reduced, with the input seen as an image.

    Attributes
    ----------
    image : (int, int, int)
        Rows, columns and channels of the input's elements, in their order.
    rows, columns, channels : bool
        Which of them are reduced.
    """

    image: tuple[int, int, int]
    rows: bool
    columns: bool
    channels: bool

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the window that is reduced."""
        height, width, _ = self.image
        return height if self.rows else 1, width if self.columns else 1

    @property
    def count(self) -> int:
        """Elements that become one."""
        return prod(self.kernel) * (self.image[2] if self.channels else 1)

    @property
    def result(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the result."""
        height, width, depth = self.image
        kernel_h, kernel_w = self.kernel
        return height - kernel_h + 1, width - kernel_w + 1, 1 if self.channels else depth


def lower_mean(graph: Graph, op: SourceOp) -> Lowered:
    """Lower MEAN over any axes."""
    x = _reduction(graph, op)
    multiplier, shift = _dividing(_scale(graph, op), x.count)
    return _weighted_by_one(graph, op, x, multiplier, shift, Rounding.DOUBLE)


def lower_sum(graph: Graph, op: SourceOp) -> Lowered:
    """Lower SUM over any axes, which the reference scales in single precision.

    ::

        out = round(float(sum) * scale + bias) + zero point,  bias = -zero point * scale * count

    Source: TFLite `QuantizedMeanOrSum`, as the default kernels use it.
    """
    x = _reduction(graph, op)
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    _scale(graph, op)
    single, count = np.float32, x.count
    scale = single(source.scale) / single(result.scale)
    bias = single(-source.zero_point) * scale * single(count)

    def scaled(accumulators: Int64Array) -> Int64Array:
        sums = (accumulators + source.zero_point * count).astype(single)
        values = (sums * scale + bias).astype(np.float64)
        rounded: Int64Array = np.copysign(np.floor(np.abs(values) + 0.5), values).astype(np.int64)
        return rounded

    found = fitted_multiplier(
        scaled,
        float(scale),
        INT8_MIN - result.zero_point,
        INT8_MAX - result.zero_point,
        (INT8_MIN - source.zero_point) * count,
        (INT8_MAX - source.zero_point) * count,
    )
    if not found.exact:
        raise unsupported(
            op,
            f"sums of {count} elements times {float(scale):.6g} round differently from the"
            " reference, which has single precision, with every 32-bit multiplier",
            "convert with a larger output scale, or use MEAN",
        )
    return _weighted_by_one(graph, op, x, found.multiplier, found.shift, Rounding.SINGLE)


def _scale(graph: Graph, op: SourceOp) -> float:
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    if source.scale is None or result.scale is None:
        raise contradiction(op, "input or output has no scale")
    return float(source.scale) / float(result.scale)


def _weighted_by_one(
    graph: Graph, op: SourceOp, x: _Reduction, multiplier: int, shift: int, rounding: Rounding
) -> Lowered:
    """Return a sum of what is reduced, less its zero points, requantised."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    depth = x.image[2]
    size = prod(x.kernel) * depth
    if size > MAX_KERNEL_ELEMENTS:
        raise unsupported(op, f"a sum of {size} elements", "reduce in two steps")
    cout = 1 if x.channels else depth
    shape = (*x.kernel, depth, 1) if x.channels else (*x.kernel, depth)
    view = _View(graph, op, x)
    conv = ConvOp(
        origin=op.origin,
        fused=op.fused,
        input=view.source,
        output=view.result,
        weights=np.ones(shape, np.int8),
        bias=np.full(cout, -source.zero_point * x.count, np.int64).astype(np.int32),
        multiplier=np.full(cout, multiplier, np.int32),
        shift=np.full(cout, shift, np.int8),
        rounding=rounding,
        depthwise=not x.channels,
        input_zero_point=source.zero_point,
        output_zero_point=result.zero_point,
    )
    return view.around([conv])


def lower_reduce_extremum(graph: Graph, op: SourceOp) -> Lowered:
    """Lower REDUCE_MAX or REDUCE_MIN; channels are seen as columns of one channel."""
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    if not same_quantisation(source, result):
        raise unsupported(op, "input and output have different quantisation", "convert again")
    x = _reduction(graph, op, channels=False)
    view = _View(graph, op, x)
    first, last = view.source, view.result
    ops: list[NpuOp] = []
    if op.name == "REDUCE_MIN":
        # The least is the complement of the greatest complement.
        complement = tables.table_from(lambda value: -1 - value)
        first = view.made(source, "complements", (1, *x.image))
        last = view.made(result, "greatest", (1, *x.result))
        ops = [
            TableOp(origin=op.origin, input=view.source, output=first, table=complement),
            TableOp(origin=op.origin, input=last, output=view.result, table=complement),
        ]
    pool = PoolOp(
        origin=op.origin,
        fused=op.fused,
        input=first,
        output=last,
        kind="max",
        kernel_h=x.kernel[0],
        kernel_w=x.kernel[1],
        stride_h=1,
        stride_w=1,
    )
    return view.around([*ops[:1], pool, *ops[1:]])


class _View:
    """The tensors that a reduction of an image reads and writes, and reshapes around it."""

    def __init__(self, graph: Graph, op: SourceOp, x: _Reduction) -> None:
        self._graph, self._op = graph, op
        self._tensors: list[Tensor] = []
        source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
        self.source, self.result = source.name, result.name
        if hwc(source.shape) != x.image:
            self.source = self.made(source, "view", (1, *x.image))
        if hwc(result.shape) != x.result:
            self.result = self.made(result, "image", (1, *x.result))

    def made(self, like: Tensor, what: str, shape: tuple[int, ...]) -> str:
        """Make a tensor that the file does not have; return its name."""
        name = f"{self._op.results[0]}/{what}"
        self._tensors.append(made_like(like, self._graph.tensors, name, shape))
        return self._tensors[-1].name

    def around(self, ops: list[NpuOp]) -> Lowered:
        """Return the operators, with reshapes where the file's tensors are no such images."""
        source, result, origin = self._op.inputs[0], self._op.results[0], self._op.origin
        if self.source != source:
            ops = [ReshapeOp(origin=origin, input=source, output=self.source), *ops]
        if self.result != result:
            ops = [*ops, ReshapeOp(origin=origin, input=self.result, output=result)]
        return ops, self._tensors


def _reduction(graph: Graph, op: SourceOp, *, channels: bool = True) -> _Reduction:
    """Return what is reduced; with `channels` False rows and columns only."""
    shape = graph.tensors[op.inputs[0]].shape
    axes = _reduced_axes(graph, op)
    outer = {axis for axis in range(len(shape) - 1) if shape[axis] > 1}
    last = len(shape) - 1 in axes
    if channels or not last:
        if len(shape) == 4:
            return _Reduction(hwc(shape), 1 in axes, 2 in axes, last)
        if not axes & outer or outer <= axes:
            return _Reduction(hwc(shape), bool(axes & outer), False, last)
    # Axes side by side that are reduced, or not, are one.
    groups: list[tuple[int, bool]] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if groups and groups[-1][1] == (axis in axes):
            groups[-1] = (groups[-1][0] * size, axis in axes)
        else:
            groups.append((size, axis in axes))
    if not groups or (groups[-1][1] and not channels):
        groups.append((1, False))
    if len(groups) > 3:
        raise unsupported(
            op,
            f"it reduces axes {sorted(axes)} of {list(shape)}",
            "reduce axes that are side by side, one operator each",
        )
    while len(groups) < 3:
        groups.insert(-1, (1, False))
    sizes, reduced = zip(*groups, strict=True)
    return _Reduction(sizes, *reduced)


def _reduced_axes(graph: Graph, op: SourceOp) -> set[int]:
    """Return the axes of more than one element that are reduced."""
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
    return {axis for axis in axes if source.shape[axis] > 1}


def _dividing(real: float, count: int) -> tuple[int, int]:
    """Multiplier and shift that scale by ``real / count``, as the kernels work them out."""
    multiplier, shift = quantize_multiplier(real)
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    if shift - bits < -31:
        raise QuantizationError(f"a mean of {count} elements scaled by {real:g} leaves nothing")
    return (multiplier << bits) // count, shift - bits


OPERATORS = (
    Operator(
        names=("MEAN",),
        operands=(2, 2),
        where="array",
        limits=LIMITS,
        lower=lower_mean,
        apart=off_first_axis(1),
    ),
    Operator(
        names=("SUM",),
        operands=(2, 2),
        where="array",
        limits=f"{LIMITS}; no sum that single precision rounds as no multiplier does",
        lower=lower_sum,
        uint8=False,
        apart=off_first_axis(1),
    ),
    Operator(
        names=("REDUCE_MAX", "REDUCE_MIN"),
        operands=(2, 2),
        where="vector engine",
        limits=f"{LIMITS}; equal quantisation of input and output",
        lower=lower_reduce_extremum,
        apart=off_first_axis(1),
    ),
)
