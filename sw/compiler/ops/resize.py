"""Lowers RESIZE_BILINEAR: depthwise convolutions with whole weights, one for each phase."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.arithmetic.fixed import INT8_MAX
from celosia.sw.compiler.ir import Graph, NpuOp, ReshapeOp, SourceOp
from celosia.sw.compiler.ops.moves import lower_by_pixels
from celosia.sw.compiler.ops.npu.phases import PhasesOp
from celosia.sw.compiler.ops.operator import Lowered, Operator
from celosia.sw.compiler.ops.phases import (
    INTERPOLATION_BITS,
    interpolated_axis,
    phases_of,
    pixels_of,
)
from celosia.sw.compiler.passes.rewrite import contradiction, require_shape, unsupported
from celosia.sw.compiler.passes.window import require_nhwc

__all__ = ["OPERATORS"]

NEARLY_ONE = (1 << 31) - 1
"""Multiplier that leaves sums as they are: the first rounding of DOUBLE restores them."""


def lower_resize_bilinear(graph: Graph, op: SourceOp) -> NpuOp | Lowered:
    """Lower RESIZE_BILINEAR of an image to a constant size.

    A result is ``round(sum / 2**20)``, halves away from zero, of the values of up to four pixels
    times weights of 20 bits. Where a common power of two leaves weights of eight bits, a
    convolution computes it exactly, or two that add up; the zero points take no part.
    """
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    height, width, channels = require_nhwc(op, source)
    out_h, out_w, out_channels = require_nhwc(op, result)
    require_shape(graph, op, 1, (out_h, out_w))
    aligned = bool(op.options.get("align_corners"))
    centred = bool(op.options.get("half_pixel_centers"))
    if out_channels != channels:
        raise contradiction(op, f"input {list(source.shape)}, output {list(result.shape)}")
    if aligned and centred:
        raise contradiction(op, "it has both align_corners and half_pixel_centers")
    if source.shape == result.shape:
        return ReshapeOp(origin=op.origin, fused=op.fused, input=source.name, output=result.name)
    rows, columns = (
        interpolated_axis(op, *sizes, aligned=aligned, centred=centred)
        for sizes in ((height, out_h), (width, out_w))
    )

    if all(len(phase.kernel) == 1 for phase in (*rows, *columns)):
        return lower_by_pixels(graph, op, pixels_of(rows), pixels_of(columns))

    def conv(along_y: tuple[int, ...], along_x: tuple[int, ...]) -> dict[str, Any]:
        weights = np.outer(along_y, along_x)
        common = gcd(*(int(weight) for weight in weights.flat), 1 << 2 * INTERPOLATION_BITS)
        weights = weights // common
        if weights.max() > 2 * INT8_MAX:
            raise unsupported(
                op,
                f"from {height}x{width} to {out_h}x{out_w} pixels it weights them with"
                f" {int(weights.max())}/{int(weights.sum())}, which {2 * INT8_MAX} is the most for",
                "use a factor of 2, 4 or 8, or resize in two steps",
            )
        first = np.minimum(weights, INT8_MAX)
        rest = None
        if weights.max() > INT8_MAX:
            rest = np.repeat((weights - first)[..., None], channels, axis=2).astype(np.int8)
        bits = int(weights.sum()).bit_length() - 1
        return {
            "origin": op.origin,
            "fused": op.fused,
            "input": source.name,
            "output": result.name,
            "weights": np.repeat(first[..., None], channels, axis=2).astype(np.int8),
            "bias": np.zeros(channels, np.int32),
            "multiplier": np.full(channels, NEARLY_ONE, np.int32),
            "shift": np.full(channels, -bits, np.int8),
            "rounding": Rounding.DOUBLE,
            "depthwise": True,
            "input_zero_point": source.zero_point,
            "output_zero_point": 0,
            "rest": rest,
        }

    phases = phases_of(op, rows, columns, conv)
    return PhasesOp(
        origin=op.origin,
        fused=op.fused,
        input=source.name,
        output=result.name,
        phases=phases,
        macs=sum(p.rows * p.columns * p.conv.weights.size for p in phases),
    )


OPERATORS = (
    Operator(
        names=("RESIZE_BILINEAR",),
        operands=(2, 2),
        where="array",
        limits="a constant size; factors of 2, 4 and 8 in every mode, and others whose weights are"
        " whole 256ths at most",
        lower=lower_resize_bilinear,
        uint8=False,
    ),
)
