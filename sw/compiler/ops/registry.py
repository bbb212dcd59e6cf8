"""Turns every operator of the file into NPU operators, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable

from celosia.errors import ModelError, UnsupportedError
from celosia.sw.compiler.arithmetic.fixed import QuantizationError
from celosia.sw.compiler.ir import DType, Graph, NpuOp, Op, Tensor, TfliteOp
from celosia.sw.compiler.ops.elementwise import UNARY, lower_add, lower_mul, lower_unary
from celosia.sw.compiler.ops.moves import lower_reshape
from celosia.sw.compiler.ops.pool import lower_pool
from celosia.sw.compiler.ops.softmax import lower_softmax
from celosia.sw.compiler.ops.weighted import (
    lower_conv,
    lower_depthwise,
    lower_fully_connected,
    lower_pad,
)
from celosia.sw.compiler.passes.rewrite import unsupported, with_ops

__all__ = ["SUPPORTED", "lower_ops"]

_SINGLE: dict[str, Callable[[Graph, TfliteOp], NpuOp]] = {
    "CONV_2D": lower_conv,
    "DEPTHWISE_CONV_2D": lower_depthwise,
    "PAD": lower_pad,
    "ADD": lower_add,
    "SUB": lower_add,
    "MUL": lower_mul,
    "AVERAGE_POOL_2D": lower_pool,
    "MAX_POOL_2D": lower_pool,
    "SOFTMAX": lower_softmax,
    "RESHAPE": lower_reshape,
    "SQUEEZE": lower_reshape,
    "EXPAND_DIMS": lower_reshape,
    **dict.fromkeys(UNARY, lower_unary),
}
SUPPORTED: tuple[str, ...] = tuple(sorted({*_SINGLE, "FULLY_CONNECTED"}))
"""TFLite names of the operators the NPU runs."""


def lower_ops(graph: Graph) -> Graph:
    """Lower all operators.

    Raises
    ------
    UnsupportedError
        Once for the whole model, listing every operator that cannot be lowered and why, and
        outputs that no operator computes.
    ModelError
        If an operator contradicts its tensors.
    """
    ops: list[Op] = []
    tensors: list[Tensor] = []
    refusals: list[ModelError] = [
        UnsupportedError(
            f"output {name!r}",
            "it is a constant: no operator computes it",
            "leave it out of the model's outputs",
            tensor=name,
        )
        for name in graph.outputs
        if graph.tensors[name].is_constant
    ]
    for op in graph.ops:
        if not isinstance(op, TfliteOp):
            ops.append(op)
            continue
        try:
            lowered, added = _lower(graph, op)
        except QuantizationError as error:
            refusals.append(unsupported(op, str(error), "calibrate or train the model again"))
            continue
        except ModelError as error:
            refusals.append(error)
            continue
        ops.extend(lowered)
        tensors.extend(added)
    if refusals:
        raise _refusal(graph, refusals)
    return with_ops(graph, ops, tensors)


def _lower(graph: Graph, op: TfliteOp) -> tuple[list[NpuOp], list[Tensor]]:
    if op.tflite_name not in SUPPORTED:
        raise unsupported(op, "the NPU does not have this operator", _remedy_for(op.tflite_name))
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.results[0]]
    for tensor in (source, result):
        if tensor.dtype is not DType.INT8:
            raise unsupported(op, f"{tensor.name!r} is {tensor.dtype}", "quantise it to int8")
        if len(tensor.shape) > 2 and tensor.shape[0] != 1 and op.tflite_name != "FULLY_CONNECTED":
            raise unsupported(
                op,
                f"{tensor.name!r} has a batch of {tensor.shape[0]}",
                "convert with batch size 1",
            )
    if source.data is not None and op.tflite_name not in ("ADD", "SUB", "MUL"):
        raise unsupported(op, "its input is a constant", "fold it before converting")
    if op.tflite_name == "FULLY_CONNECTED":
        return lower_fully_connected(graph, op)
    return [_SINGLE[op.tflite_name](graph, op)], []


def _remedy_for(name: str) -> str:
    special = {
        "MEAN": "replace GlobalAveragePooling2D by AveragePooling2D over the whole image "
        "followed by Flatten",
        "DEQUANTIZE": "convert with inference_output_type = tf.int8",
    }
    return special.get(name, f"supported operators: {', '.join(SUPPORTED)}")


def _refusal(graph: Graph, refusals: list[ModelError]) -> ModelError:
    """Join the errors of several operators into one."""
    what = f"cannot compile model {graph.name}"
    first = refusals[0]
    kind = (
        UnsupportedError if any(isinstance(r, UnsupportedError) for r in refusals) else ModelError
    )
    if len(refusals) == 1:
        cause = f"{first.what}: {first.cause}"
    else:
        lines = "".join(f"\n  {refusal.what}: {refusal.cause}" for refusal in refusals)
        parts = "operators" if first.op_index is not None else "outputs and operators"
        cause = f"{len(refusals)} {parts} cannot be lowered:{lines}\n"
    remedies = dict.fromkeys(refusal.remedy for refusal in refusals if refusal.remedy)
    return kind(
        what,
        cause,
        "; ".join(remedies),
        file=graph.name,
        op_index=first.op_index,
        op_type=first.op_type,
        tensor=first.tensor,
    )
