"""Turns every operator of the file into NPU operators, or says why it cannot."""

from __future__ import annotations

from celosia.errors import ModelError, UnsupportedError
from celosia.sw.compiler.arithmetic.fixed import QuantizationError
from celosia.sw.compiler.ir import Graph, Op, SourceOp, Tensor
from celosia.sw.compiler.ops import (
    binary,
    elementwise,
    matmul,
    moves,
    pad,
    pool,
    reduce,
    resize,
    softmax,
    transpose_conv,
    weighted,
)
from celosia.sw.compiler.ops.operator import Lowered, Operator
from celosia.sw.compiler.passes.rewrite import unsupported, with_ops

__all__ = ["OPERATORS", "SUPPORTED", "WHY", "lower_ops"]

WHY = "why"
"""Option of an operator without a record: why the front end knows none for it."""

OPERATORS: dict[str, Operator] = {
    name: record
    for kind in (
        weighted,
        transpose_conv,
        pad,
        matmul,
        binary,
        elementwise,
        pool,
        reduce,
        resize,
        softmax,
        moves,
    )
    for record in kind.OPERATORS
    for name in record.names
}
"""Every operator that the compiler knows something of, by its TFLite name."""
SUPPORTED: tuple[str, ...] = tuple(
    sorted(
        name for name, record in OPERATORS.items() if record.lower is not None and not record.made
    )
)
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
        if not isinstance(op, SourceOp):
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


def _lower(graph: Graph, op: SourceOp) -> Lowered:
    record = OPERATORS.get(op.name)
    if record is None or record.lower is None:
        advice = record.remedy if record else ""
        cause = str(op.options.get(WHY, "the NPU does not have this operator"))
        if op.origin.format == "onnx":
            raise unsupported(op, cause, advice or "see docs/onnx.md for what the NPU computes")
        raise unsupported(op, cause, advice or f"supported operators: {', '.join(SUPPORTED)}")
    if op.arithmetic.unsigned and not record.uint8:
        raise unsupported(op, "it is one of uint8 tensors", "quantise the model to int8")
    sources = [
        graph.tensors[name]
        for place, name in enumerate(op.operands)
        if name is not None and (record.activations is None or place in record.activations)
    ]
    for tensor in (*sources, *(graph.tensors[name] for name in op.results)):
        if tensor.dtype not in record.dtypes:
            allowed = " or ".join(record.dtypes)
            raise unsupported(op, f"{tensor.name!r} is {tensor.dtype}", f"quantise it to {allowed}")
        if len(tensor.shape) > 2 and tensor.shape[0] != 1 and not record.batches:
            raise unsupported(
                op,
                f"{tensor.name!r} has a batch of {tensor.shape[0]}",
                "convert with batch size 1",
            )
    if not record.constants and any(source.data is not None for source in sources):
        raise unsupported(op, "its input is a constant", "fold it before converting")
    lowered = record.lower(graph, op)
    return lowered if isinstance(lowered, tuple) else ([lowered], [])


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
    error = kind(
        what,
        cause,
        "; ".join(remedies),
        file=graph.name,
        op_index=first.op_index,
        op_type=first.op_type,
        tensor=first.tensor,
    )
    error.parts = tuple(refusals)
    return error
