"""Lowers BATCH_MATMUL, and FULLY_CONNECTED with weights that are computed at run time.

Both become `MatmulOp`, whose second operand has a pixel for each product that is summed up:
one that is stored the other way round is turned by the load engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from celosia.sw.compiler.arithmetic.exact import exact_multiplier
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    INT32_MIN,
    activation_range,
    product_scale,
    quantize_multiplier,
)
from celosia.sw.compiler.arithmetic.single import fit_single
from celosia.sw.compiler.ir import (
    ConvOp,
    DType,
    Exactness,
    Graph,
    Int8Array,
    Int32Array,
    MatmulOp,
    NpuOp,
    ReshapeOp,
    Scaling,
    SourceOp,
    Tensor,
    hwc,
    made_like,
)
from celosia.sw.compiler.ops.clamp import clamp_of
from celosia.sw.compiler.ops.exactness import near_enough
from celosia.sw.compiler.ops.moves import moved
from celosia.sw.compiler.ops.operator import Lowered, Operator
from celosia.sw.compiler.passes.rewrite import contradiction, unsupported

__all__ = ["OPERATORS", "bias_of", "lower_run_time_weights"]


@dataclass
class _Product:
    """A product on its way to a `MatmulOp`.

    Attributes
    ----------
    graph, op, result
        The operator and its output.
    ops, tensors
        What has been made for it: operators and the tensors between.
    """

    graph: Graph
    op: SourceOp
    result: Tensor
    ops: list[NpuOp]
    tensors: list[Tensor]

    def placed(self, source: Tensor, part: str, *, turned: bool) -> Tensor:
        """Return a tensor as it is, or with its last two axes exchanged; a constant as computed.

        What is made has a row for each pixel, so that it can be cut anywhere.
        """
        if not turned and source.data is None:
            return source
        channels = source.shape[-2 if turned else -1]
        shape = (source.elements // channels, channels)
        made = made_like(source, self.graph.tensors, f"{self.result.name}/{part}", shape)
        self.tensors.append(made)
        self.ops.append(
            moved(
                self.graph,
                self.op,
                source,
                made,
                lambda array: (array.swapaxes(-1, -2) if turned else array).reshape(shape),
            )
        )
        return made

    def reshaped(self, source: Tensor, part: str, shape: tuple[int, ...]) -> Tensor:
        """Return a view of a tensor."""
        made = made_like(source, self.graph.tensors, f"{self.result.name}/{part}", shape)
        self.tensors.append(made)
        self.ops.append(ReshapeOp(origin=self.op.origin, input=source.name, output=made.name))
        return made


def lower_batch_matmul(graph: Graph, op: SourceOp) -> Lowered:
    """Lower BATCH_MATMUL."""
    x, y = (graph.tensors[name] for name in op.inputs)
    result = graph.tensors[op.results[0]]
    for tensor in (x, y, result):
        if len(tensor.shape) < 2:
            raise contradiction(op, f"{tensor.name!r} is no matrix: {list(tensor.shape)}")
        _require_view(op, tensor)
    if x.data is not None and y.data is not None:
        raise unsupported(op, "both its inputs are constants", "fold it before converting")
    turn_x, turn_y = bool(op.options.get("adj_x")), bool(op.options.get("adj_y"))
    rows, depth = x.shape[-2:][:: -1 if turn_x else 1]
    depth_y, columns = y.shape[-2:][:: -1 if turn_y else 1]
    try:
        batches = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise contradiction(op, f"batches {x.shape[:-2]} and {y.shape[:-2]}") from None
    # Leading ones come and go with the rank.
    wanted = [*(1,) * (len(result.shape) - 2 - len(batches)), *batches, rows, columns]
    if depth != depth_y or wanted != list(result.shape):
        raise contradiction(
            op, f"{list(x.shape)} times {list(y.shape)} for an output {list(result.shape)}"
        )
    product = _Product(graph, op, result, [], [])
    a = product.placed(x, "a", turned=turn_x)
    constant: Int8Array | None = None
    if y.data is not None:
        matrices = y.data.swapaxes(-1, -2) if turn_y else y.data
        constant = np.ascontiguousarray(matrices.reshape(-1, columns))
        b = y
    else:
        b = product.placed(y, "b", turned=turn_y)
    assert x.scale is not None
    assert y.scale is not None
    assert result.scale is not None
    single = op.arithmetic.scaling is Scaling.NEAREST_TO_SINGLE
    act_min, act_max = clamp_of(op, result)
    exactness = None
    if op.arithmetic.scaling is Scaling.SINGLE:
        ratio = np.float32(x.scale) * np.float32(y.scale) / np.float32(result.scale)
        fit = fit_single(
            ratio,
            act_min - result.zero_point,
            act_max - result.zero_point,
            *_accumulators(x.zero_point, y.zero_point, depth, np.zeros(1, np.int32)),
        )
        multiplier, shift = fit.multiplier, fit.shift
        known = Exactness.of([(fit.differing, fit.reachable)], "accumulators")
        exactness = near_enough(op, known)
    else:
        multiplier, shift = quantize_multiplier(
            product_scale(x.scale, y.scale, result.scale, single=single)
        )
    matmul = MatmulOp(
        origin=op.origin,
        fused=op.fused,
        input_a=a.name,
        input_b=None if constant is not None else b.name,
        constant=constant,
        output=result.name,
        rows=rows,
        depth=depth,
        a_batches=_chosen(x.shape[:-2], batches),
        b_batches=_chosen(y.shape[:-2], batches),
        width_a=hwc(a.shape)[1],
        width=hwc(result.shape)[1],
        zero_point_a=x.zero_point,
        zero_point_b=y.zero_point,
        bias=np.zeros(columns, np.int32),
        multiplier=np.full(columns, multiplier, np.int32),
        shift=np.full(columns, shift, np.int8),
        rounding=op.arithmetic.rounding,
        output_zero_point=result.zero_point,
        act_min=act_min,
        act_max=act_max,
        exactness=exactness,
        macs=prod(batches) * rows * depth * columns,
    )
    return [*product.ops, _as_convolution(matmul, a, result) or matmul], product.tensors


def _chosen(shape: tuple[int, ...], batches: tuple[int, ...]) -> tuple[int, ...]:
    """Return for each batch of the output the number of an operand's matrix."""
    numbers = np.broadcast_to(np.arange(prod(shape)).reshape(shape), batches)
    return tuple(int(number) for number in numbers.flat)


def _require_view(op: SourceOp, tensor: Tensor) -> None:
    if len(tensor.shape) == 4 and tensor.shape[0] != 1:
        raise unsupported(
            op, f"{tensor.name!r} has a batch of {tensor.shape[0]}", "convert with batch size 1"
        )


def _as_convolution(op: MatmulOp, a: Tensor, result: Tensor) -> ConvOp | None:
    """Return a product with one constant matrix as a convolution of 1x1, if it is one."""
    if op.constant is None or len(op.constant) != op.depth:
        return None
    if hwc(a.shape)[:2] != hwc(result.shape)[:2]:
        return None
    weights = op.constant.astype(np.int64) - op.zero_point_b
    if weights.min() < INT8_MIN or weights.max() > INT8_MAX:
        return None
    bias = op.bias.astype(np.int64) - op.zero_point_a * weights.sum(axis=0)
    return ConvOp(
        origin=op.origin,
        fused=op.fused,
        input=op.input_a,
        output=op.output,
        weights=weights.astype(np.int8).reshape(1, 1, *weights.shape),
        bias=bias.astype(np.int32),  # wraps, as the 32-bit accumulator does
        multiplier=op.multiplier,
        shift=op.shift,
        rounding=op.rounding,
        input_zero_point=op.zero_point_a,
        output_zero_point=op.output_zero_point,
        act_min=op.act_min,
        act_max=op.act_max,
        exactness=op.exactness,
        macs=op.macs,
    )


def lower_run_time_weights(graph: Graph, op: SourceOp) -> Lowered:
    """Lower a FULLY_CONNECTED whose weights, [columns, depth], are computed at run time."""
    x, weights = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]]
    result = graph.tensors[op.results[0]]
    if weights.dtype is not DType.INT8 or len(weights.shape) != 2:
        raise contradiction(op, f"weights {weights.dtype}{list(weights.shape)}")
    if x.scale is None or weights.scale is None or result.scale is None:
        raise contradiction(op, "input, weights or output have no scale")
    columns, depth = weights.shape
    count = x.elements // depth
    if x.elements % depth or result.elements != count * columns or result.shape[-1] != columns:
        raise contradiction(
            op, f"input {list(x.shape)}, weights {list(weights.shape)}, output {list(result.shape)}"
        )
    _require_view(op, x)
    _require_view(op, result)
    product = _Product(graph, op, result, [], [])
    a = product.placed(x, "a", turned=False)
    widths = hwc(a.shape)[1], hwc(result.shape)[1]
    if a.shape[-1] != depth or (min(widths) > 1 and widths[0] != widths[1]):
        a = product.reshaped(a, "rows", (count, depth))
    b = product.placed(weights, "b", turned=True)
    rows = max(hwc(a.shape)[1], hwc(result.shape)[1])
    rows = count if rows == 1 else rows
    batches = count // rows
    bias = bias_of(graph, op, columns)
    activation = str(op.options.get("fused_activation_function", "NONE"))
    act_min, act_max = activation_range(activation, result.scale, result.zero_point)
    real = product_scale(x.scale, weights.scale, result.scale, single=False)
    low, high = act_min - result.zero_point, act_max - result.zero_point
    multiplier, shift = _multiplier(
        op, real, (low, high), _accumulators(x.zero_point, weights.zero_point, depth, bias)
    )
    matmul = MatmulOp(
        origin=op.origin,
        fused=op.fused,
        input_a=a.name,
        input_b=b.name,
        output=result.name,
        rows=rows,
        depth=depth,
        a_batches=tuple(range(batches)),
        b_batches=(0,) * batches,
        width_a=hwc(a.shape)[1],
        width=hwc(result.shape)[1],
        zero_point_a=x.zero_point,
        zero_point_b=weights.zero_point,
        bias=bias,
        multiplier=np.full(columns, multiplier, np.int32),
        shift=np.full(columns, shift, np.int8),
        rounding=op.arithmetic.rounding,
        output_zero_point=result.zero_point,
        act_min=act_min,
        act_max=act_max,
        macs=count * depth * columns,
    )
    return [*product.ops, matmul], product.tensors


def bias_of(graph: Graph, op: SourceOp, columns: int) -> Int32Array:
    """Return the bias of an operator of weights, which is its third input; 0 where it has none."""
    name = op.operands[2] if len(op.operands) > 2 else None
    if name is None:
        return np.zeros(columns, np.int32)
    bias = graph.tensors[name]
    if bias.data is None:
        raise unsupported(op, "its bias is computed at run time", "use a constant bias")
    if bias.dtype is not DType.INT32 or bias.elements != columns:
        raise contradiction(op, f"bias is {bias.dtype}{list(bias.shape)} for {columns} channels")
    return bias.data.reshape(columns)


def _accumulators(zero_a: int, zero_b: int, depth: int, bias: Int32Array) -> tuple[int, int]:
    """Return the least and the greatest accumulator that there can be."""
    ends = [(a - zero_a) * (b - zero_b) for a in (INT8_MIN, INT8_MAX) for b in (INT8_MIN, INT8_MAX)]
    low = depth * min(ends) + int(bias.min())
    high = depth * max(ends) + int(bias.max())
    return (low, high) if INT32_MIN <= low <= high <= INT32_MAX else (INT32_MIN, INT32_MAX)


def _multiplier(
    op: SourceOp, real: float, results: tuple[int, int], accumulators: tuple[int, int]
) -> tuple[int, int]:
    """Return multiplier and shift as the operator's reference scales."""
    if op.arithmetic.scaling is not Scaling.FITTED:
        return quantize_multiplier(real)
    found = exact_multiplier(real, *results, *accumulators)
    if not found.exact:
        raise unsupported(
            op,
            f"its accumulators, {accumulators[0]} to {accumulators[1]}, times the scale"
            f" {real:.6g} (input * weights / output) round differently from the reference with"
            " every 32-bit multiplier",
            "convert with a larger output scale (a wider range of representative data)",
        )
    return found.multiplier, found.shift


OPERATORS = (
    Operator(
        names=("BATCH_MATMUL",),
        operands=(2, 2),
        activations=(0, 1),
        where="array",
        limits="one of the inputs may be constant",
        lower=lower_batch_matmul,
        batches=True,
        constants=True,
        uint8=False,
    ),
)
