"""Functions of one element: what onnxruntime gives for each of the 256 codes.

Its kernels approximate (exp, tanh, erf) in ways of their own, so the table is asked of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.frontends.onnx.kernels import MICROSOFT, RefusedError, computed
from celosia.sw.compiler.frontends.onnx.reader import Node, OnnxModel
from celosia.sw.compiler.frontends.onnx.units import NotOnNpuError, Operand, Quantised, Unit

__all__ = ["codes_of", "moved_by_onnxruntime", "table_of"]

Array = npt.NDArray[Any]


def codes_of(real: Any, quantised: Quantised) -> Any:
    """Return numbers as int8 codes, as QuantizeLinear does, halves to even; uint8 less 128."""
    with np.errstate(over="ignore"):
        steps = np.rint(np.asarray(real, np.float32) / quantised.scale[0]).astype(np.float64)
    codes = np.clip(steps + quantised.zero, -128, 127)
    return int(codes) if np.ndim(codes) == 0 else codes.astype(np.int64)


def table_of(
    model: OnnxModel,
    unit: Unit,
    source: Operand,
    result: Operand,
    constants: Sequence[Array | None],
    channels: int = 0,
) -> Array:
    """Return a function's table, [256] by `value & 0xFF` of int8 codes.

    With `channels` there is one for each of them: [channels, 256].

    Raises
    ------
    NotOnNpuError
        If onnxruntime does not compute it as it is here.
    """
    from onnx import helper

    values: dict[str, Any] = {}
    for prefix, one in (("", source), ("y_", result)):
        values[f"{prefix}scale"] = one.quantised.scale[0]
        values[f"{prefix}zero"] = one.quantised.zero_point[0].astype(one.quantised.dtype)
    extra = []
    for number, constant in enumerate(constants):
        extra.append("" if constant is None else f"c{number}")
        if constant is not None:
            values[f"c{number}"] = constant
    if unit.fused and unit.node.kind.startswith("QLinear"):
        nodes = [
            helper.make_node(
                unit.node.kind,
                ["x", "scale", "zero", "y_scale", "y_zero"],
                ["y"],
                domain=MICROSOFT,
                **dict(unit.node.options),
            )
        ]
    else:
        options = {k: v for k, v in unit.node.options.items() if k != "axis"}
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["f"]),
            helper.make_node(unit.kind, ["f", *extra], ["g"], **options),
            helper.make_node("QuantizeLinear", ["g", "y_scale", "y_zero"], ["y"]),
        ]
    rank = max(len(model.shapes[source.name]), 3)
    shape = [1, channels, 256, *[1] * (rank - 3)] if channels else [256]
    codes = np.arange(256, dtype=np.uint8).reshape([1, 1, 256, *shape[3:]] if channels else [256])
    codes = np.ascontiguousarray(np.broadcast_to(codes, shape))
    given = codes.view(np.int8).astype(np.int16) + source.quantised.offset
    inputs = {"x": given.astype(source.quantised.dtype)}
    try:
        found = computed(nodes, inputs, values, result.quantised.dtype, opset=model.opset)
    except RefusedError as error:  # then the host has to see
        raise NotOnNpuError from error
    table: Array = found.reshape((channels, 256) if channels else (256,)).astype(np.int16)
    return table - result.quantised.offset


def moved_by_onnxruntime(
    model: OnnxModel, node: Node, numbers: Array, constants: Sequence[Array | None]
) -> Array | None:
    """Return what onnxruntime's operator makes of whole numbers; None if it does not take them."""
    from onnx import helper

    values = {f"c{place}": value for place, value in enumerate(constants) if value is not None}
    names = ["" if value is None else f"c{place}" for place, value in enumerate(constants)]
    moves = helper.make_node(node.kind, ["x", *names], ["y"], **dict(node.options))
    try:
        return computed([moves], {"x": numbers}, values, numbers.dtype, opset=model.opset)
    except RefusedError:  # then the host has to see
        return None
