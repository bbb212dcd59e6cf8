"""What operators with weights have in common: their operands, and how sums are requantised.

The operators are in `celosia.sw.compiler.ops.weighted` and
`celosia.sw.compiler.ops.transpose_conv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import UnsupportedError
from celosia.sw.compiler.arithmetic.exact import ExactMultiplier, exact_multiplier
from celosia.sw.compiler.arithmetic.fixed import (
    INT8_MAX,
    INT8_MIN,
    INT32_MAX,
    INT32_MIN,
    channel_multipliers,
)
from celosia.sw.compiler.arithmetic.single import SingleFit, fit_single, unsure_sums
from celosia.sw.compiler.ir import (
    DType,
    Exactness,
    Float32Array,
    Graph,
    Int8Array,
    Int32Array,
    Scaling,
    SourceOp,
    Tensor,
)
from celosia.sw.compiler.ops.clamp import clamp_of
from celosia.sw.compiler.ops.exactness import near_enough
from celosia.sw.compiler.ops.matmul import bias_of
from celosia.sw.compiler.passes.rewrite import contradiction, unsupported

__all__ = [
    "FLOAT_SUM",
    "SCALE",
    "WeightedOperands",
    "WideArray",
    "conv_fields",
    "require_channels",
    "weighted_operands",
]

SCALE = "scale"
"""Option of an operator whose accumulators are multiplied by that, in single precision."""

FLOAT_SUM = "float_sum"
"""Option of an operator whose reference sums so many products in single precision."""

WideArray = npt.NDArray[np.int16]
"""Weights less their zero point."""


_WEIGHT_TYPES = {False: (DType.INT8,), True: (DType.INT8, DType.INT16)}
"""Of weights; those of an operator in single precision may be less their zero points already."""


@dataclass(frozen=True)
class WeightedOperands:
    """Tensors of a weighted operator, of the right types and with quantisation."""

    source: Tensor
    weights: WideArray
    filter_scales: Float32Array
    bias: Int32Array
    result: Tensor
    in_scale: float
    out_scale: float


def weighted_operands(
    graph: Graph, op: SourceOp, *, rank: int, channel_axis: int
) -> WeightedOperands:
    """Return the tensors of a weighted operator.

    Parameters
    ----------
    graph, op
        The operator: its first operands are the input, the weights and perhaps a bias.
    rank : int
        Axes of the weights.
    channel_axis : int
        That of their output channels.

    Raises
    ------
    UnsupportedError
        If the weights are no constant of int8.
    ModelError
        If they or the scales contradict the operator.
    """
    source, filter_, result = (
        graph.tensors[name] for name in (op.inputs[0], op.inputs[1], op.results[0])
    )
    if filter_.data is None:
        raise unsupported(op, "its weights are computed at run time", "use constant weights")
    if filter_.dtype not in _WEIGHT_TYPES[op.arithmetic.scaling is Scaling.SINGLE]:
        raise unsupported(op, f"its weights are {filter_.dtype}", "quantise the weights to int8")
    if source.scale is None or result.scale is None:
        raise contradiction(op, "input or output has no scale")
    if len(filter_.shape) != rank:
        raise contradiction(op, f"weights of shape {list(filter_.shape)}, expected rank {rank}")
    cout = filter_.shape[channel_axis]
    if filter_.channel_scales is not None:
        if filter_.channel_axis != channel_axis:
            raise contradiction(op, f"weights quantised along axis {filter_.channel_axis}")
        scales = filter_.channel_scales
    elif filter_.scale is not None:
        scales = np.array([filter_.scale], np.float32)
    else:
        raise contradiction(op, "its weights have no scale")
    return WeightedOperands(
        source=source,
        weights=filter_.data.astype(np.int16) - np.int16(filter_.zero_point),
        filter_scales=scales,
        bias=bias_of(graph, op, cout),
        result=result,
        in_scale=source.scale,
        out_scale=result.scale,
    )


def conv_fields(
    op: SourceOp,
    x: WeightedOperands,
    weights: WideArray,
    cout: int,
    *,
    sum_axes: tuple[int, ...],
) -> dict[str, Any]:
    """Return the fields of a `ConvOp` that do not depend on the operator's geometry.

    Parameters
    ----------
    op, x
        The operator and its operands.
    weights : ndarray of int16
        As the `ConvOp` has them, the output channels last.
    cout : int
        Output channels.
    sum_axes : tuple of int
        Axes of `weights` along which an output's products are added.
    """
    single = op.arithmetic.scaling is Scaling.NEAREST_TO_SINGLE
    multiplier, shift = channel_multipliers(
        x.in_scale, x.filter_scales, x.out_scale, cout, single=single
    )
    act_min, act_max = clamp_of(op, x.result)
    sums = weights.sum(axis=sum_axes, dtype=np.int64)
    folded = x.bias.astype(np.int64) - x.source.zero_point * sums
    common = {
        "origin": op.origin,
        "fused": op.fused,
        "input": x.source.name,
        "output": x.result.name,
        **_in_eight_bits(weights),
        "bias": folded.astype(np.int32),  # wraps, as the 32-bit accumulator does
        "multiplier": multiplier,
        "shift": shift,
        "rounding": op.arithmetic.rounding,
        "input_zero_point": x.source.zero_point,
        "output_zero_point": x.result.zero_point,
        "act_min": act_min,
        "act_max": act_max,
    }
    if op.arithmetic.scaling is Scaling.FITTED:
        common |= _fitted_scaling(op, x, common, weights.astype(np.int64), sum_axes)
    elif op.arithmetic.scaling is Scaling.SINGLE:
        common |= _single_scaling(op, x, common, weights.astype(np.int64), sum_axes)
    return common


def _in_eight_bits(weights: WideArray) -> dict[str, Any]:
    """Return weights as one array of int8, and others to be added where they exceed it."""
    parts: list[Int8Array] = []
    while not parts or weights.any():
        parts.append(np.clip(weights, INT8_MIN, INT8_MAX).astype(np.int8))
        weights = weights - parts[-1]
    return {"weights": parts[0], "more_weights": tuple(parts[1:])}


def _single_scaling(
    op: SourceOp,
    x: WeightedOperands,
    common: dict[str, Any],
    weights: npt.NDArray[np.int64],
    sum_axes: tuple[int, ...],
) -> dict[str, Any]:
    """Requantisation as a reference that scales in single precision does it."""
    acc_min, acc_max = _reachable(common["bias"], weights, sum_axes)
    low, high = _results(common)
    single = np.float32
    own = op.options.get(SCALE)
    if own is None:
        scales = single(x.in_scale) * x.filter_scales / single(x.out_scale)
    else:
        scales = np.array([own], single)
    terms = op.options.get(FLOAT_SUM, 0)
    assert isinstance(terms, int)
    each: list[SingleFit] = []
    units = zip(np.broadcast_to(scales, acc_min.shape), acc_min, acc_max, strict=True)
    for scale, first, last in units:
        arguments = single(scale), low, high, int(first), int(last)
        each.append(fit_single(*arguments))
        if terms:
            each[-1] = replace(each[-1], differing=unsure_sums(*arguments, terms))
    known = Exactness.of([(fit.differing, fit.reachable) for fit in each], "accumulators")
    return {**_of_units(each), "exactness": near_enough(op, known)}


def _of_units(each: Sequence[ExactMultiplier | SingleFit]) -> dict[str, Any]:
    """Return the multipliers and shifts of all units."""
    return {
        "multiplier": np.array([f.multiplier for f in each], np.int32),
        "shift": np.array([f.shift for f in each], np.int8),
    }


def _results(common: dict[str, Any]) -> tuple[int, int]:
    """Return the least and the greatest result that matters, less the zero point."""
    zero = common["output_zero_point"]
    return common["act_min"] - zero, common["act_max"] - zero


def _reachable(
    folded: Int32Array, weights: npt.NDArray[np.int64], sum_axes: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the accumulators' range over all int8 inputs, widened to int32 where it would wrap."""
    bias = folded.astype(np.int64)
    acc_min = bias + np.minimum(-128 * weights, 127 * weights).sum(axis=sum_axes)
    acc_max = bias + np.maximum(-128 * weights, 127 * weights).sum(axis=sum_axes)
    wraps = (acc_min < INT32_MIN) | (acc_max > INT32_MAX)
    return np.where(wraps, INT32_MIN, acc_min), np.where(wraps, INT32_MAX, acc_max)


def _fitted_scaling(
    op: SourceOp,
    x: WeightedOperands,
    common: dict[str, Any],
    weights: npt.NDArray[np.int64],
    sum_axes: tuple[int, ...],
) -> dict[str, Any]:
    """Requantisation as a reference that scales in double precision does it."""
    acc_min, acc_max = _reachable(common["bias"], weights, sum_axes)
    low, high = _results(common)
    cout = weights.shape[-1]

    def found(scale: np.float32, first: int, last: int) -> ExactMultiplier:
        real = x.in_scale * float(scale) / x.out_scale
        return exact_multiplier(real, low, high, first, last)

    scales = np.broadcast_to(x.filter_scales, (cout,))
    each: list[ExactMultiplier] = []
    if len(x.filter_scales) == 1:
        each = [found(scales[0], int(acc_min.min()), int(acc_max.max()))] * cout
    if not all(f.exact for f in each) or not each:
        # A multiplier of its own has to be right for a unit's own accumulators only.
        each = [
            found(*unit) for unit in zip(scales, map(int, acc_min), map(int, acc_max), strict=True)
        ]
    for unit, multiplier in enumerate(each):
        if not multiplier.exact:
            raise _inexact(op, x, unit, multiplier, int(acc_min[unit]), int(acc_max[unit]))
    return _of_units(each)


def _inexact(
    op: SourceOp, x: WeightedOperands, unit: int, multiplier: ExactMultiplier, first: int, last: int
) -> UnsupportedError:
    """Make the error for a unit that no multiplier brings to the reference's results."""
    scale = float(x.filter_scales[unit if len(x.filter_scales) > 1 else 0])
    real = x.in_scale * scale / x.out_scale
    cause = (
        f"the accumulators of unit {unit}, {first} to {last}, times the scale {real:.6g}"
        " (input * weights / output)"
    )
    if max(-first, last) << max(multiplier.shift, 0) > INT32_MAX:
        cause += " exceed 32 bits, which the requantisation has"
    else:
        cause += " round differently from the reference with every 32-bit multiplier"
    return unsupported(
        op, cause, "convert with a larger output scale (a wider range of representative data)"
    )


def require_channels(op: SourceOp, result: Tensor, cout: int) -> None:
    """Refuse a result that has not as many channels as the weights have outputs."""
    if result.shape[-1:] != (cout,):
        raise contradiction(op, f"output {list(result.shape)} for {cout} channels")
