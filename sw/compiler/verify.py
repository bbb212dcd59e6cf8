"""The verifier that runs after reading a model and after every pass.

At the source level a violation is the file's fault and raises `ModelError`. At the NPU level it
is the compiler's, and raises `CompileError` asking for a report.
"""

from __future__ import annotations

from math import isfinite
from typing import NoReturn

import numpy as np
from celosia.errors import DefectError, ModelError, UnsupportedError
from celosia.sw.compiler.ir import DType, Graph, NpuOp, Op, Scaling, SourceOp, Tensor
from celosia.sw.compiler.ops.registry import OPERATORS
from celosia.sw.compiler.verify_npu import npu_violation

__all__ = ["verify", "verify_op", "verify_order"]

WITHOUT_OUTPUT = frozenset({"ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE_IMPORT"})
"""Operators that change what lasts, and write no tensor."""
BIAS_TOLERANCE = 0.02
"""The reference's own bound on |bias scale - input * weight scale| / output scale."""


def verify(graph: Graph, file: str | None = None) -> None:
    """Check the invariants of a graph of either level.

    Parameters
    ----------
    graph : Graph
        Source level, lowered, or between.
    file : str, optional
        Name for messages; by default the graph's name.

    Raises
    ------
    ModelError
        If the model contradicts itself.
    DefectError
        If a pass produced a graph that does not make sense.
    """
    where = file if file is not None else graph.name
    verify_order(graph, where)
    _check_state(graph, where)
    for op in graph.ops:
        if isinstance(op, SourceOp):
            verify_op(graph, op, where)
        elif isinstance(op, NpuOp):
            violation = npu_violation(graph, op)
            if violation is not None:
                raise DefectError(
                    f"cannot compile model {where}",
                    f"internal error: {op.title} was lowered wrongly ({violation})",
                    "please report this with the model",
                )


def verify_order(graph: Graph, where: str) -> None:
    """Check names, and that every tensor has a value before it is read; `verify` does so too.

    Raises
    ------
    ModelError, DefectError
        As `verify`.
    """
    _check_names(graph, where)
    _check_order(graph, where)


def _fail(where: str, cause: str, op: Op | None = None, tensor: str = "") -> NoReturn:
    raise ModelError(
        f"cannot compile model {where}",
        cause,
        "the file contradicts itself: convert the model again",
        file=where,
        op_index=op.origin.index if op else None,
        op_type=op.origin.name if op else "",
        tensor=tensor,
    )


def _refuse(where: str, cause: str, remedy: str, op: Op, tensor: str) -> NoReturn:
    """Raise the error for a model that is sound, but has what the compiler does not do."""
    raise UnsupportedError(
        f"cannot compile model {where}",
        cause,
        remedy,
        file=where,
        op_index=op.origin.index,
        op_type=op.origin.name,
        tensor=tensor,
    )


def _check_names(graph: Graph, where: str) -> None:
    for name, tensor in graph.tensors.items():
        if name != tensor.name:
            raise DefectError(
                f"cannot compile model {where}",
                f"internal error: tensor {tensor.name!r} is filed under {name!r}",
                "please report this with the model",
            )
    for kind, names in (("input", graph.inputs), ("output", graph.outputs)):
        if len(set(names)) != len(names):
            _fail(where, f"an {kind} is listed twice")
    mentioned = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        mentioned.update(op.inputs, op.outputs)
    for name in mentioned - graph.tensors.keys():
        raise DefectError(
            f"cannot compile model {where}",
            f"internal error: tensor {name!r} does not exist",
            "please report this with the model",
        )


def _check_order(graph: Graph, where: str) -> None:
    constants = {name for name, tensor in graph.tensors.items() if tensor.is_constant}
    for name in graph.inputs:
        if name in constants:
            _fail(where, f"input {name!r} has a constant value", tensor=name)
    # Tensors for the host alone may be variables, which have a value from the beginning.
    known = constants | set(graph.inputs) | graph.host_only.keys()
    for op in graph.ops:
        for name in op.inputs:
            if name not in known:
                _fail(where, f"{op.title} reads {name!r} before it is written", op, name)
        if not op.outputs and not (isinstance(op, SourceOp) and op.name in WITHOUT_OUTPUT):
            _fail(where, f"{op.title} has no output", op)
        for name in op.outputs:
            if name in known and name not in graph.host_only:
                _fail(where, f"{op.title} writes {name!r}, which already has a value", op, name)
            known.add(name)
    for name in graph.outputs:
        if name not in known:
            _fail(where, f"no operator writes output {name!r}", tensor=name)


def _check_state(graph: Graph, where: str) -> None:
    for variable in graph.state:
        first, last = (graph.tensors.get(name) for name in (variable.before, variable.after))
        if (
            first is None
            or last is None
            or first.name not in graph.inputs
            or last.name not in graph.outputs
            or (first.elements, first.dtype) != (last.elements, last.dtype)
            or (variable.initial.shape, variable.initial.dtype) != (first.shape, first.dtype.numpy)
            or graph.interface is None
        ):
            raise DefectError(
                f"cannot compile model {where}",
                f"internal error: variable {variable.name!r} was lost",
                "please report this with the model",
            )


def verify_op(graph: Graph, op: SourceOp, where: str) -> None:
    """Check one operator of the source level; `verify` does so with all of them.

    Raises
    ------
    ModelError, UnsupportedError
        As `verify`.
    """
    record = OPERATORS.get(op.name)
    if record is not None:
        fewest, most = record.operands
        if not fewest <= len(op.operands) <= most or None in op.operands[:fewest]:
            _fail(where, f"{op.title} has {len(op.inputs)} inputs", op)
        fewest, most = record.results
        if not fewest <= len(op.results) <= most:
            _fail(where, f"{op.title} has {len(op.results)} outputs", op)
    if record is not None and record.weighted:
        _check_weighted(graph, op, where)


def _check_weighted(graph: Graph, op: SourceOp, where: str) -> None:
    """Quantisation of weights and bias, when the operator is an int8 one."""
    source, weights = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]]
    result = graph.tensors[op.results[0]]
    if {source.dtype, weights.dtype, result.dtype} != {DType.INT8}:
        return
    symmetric = not op.arithmetic.unsigned and op.arithmetic.scaling is not Scaling.SINGLE
    if weights.zero_point != 0 and weights.is_constant and symmetric:
        _refuse(
            where,
            f"the weights of {op.title} have zero point {weights.zero_point}",
            "quantise the weights symmetrically (zero point 0), as TFLite's converter does",
            op,
            weights.name,
        )
    if weights.scale is None and weights.channel_scales is None:
        _fail(where, f"the weights of {op.title} have no scale", op, weights.name)
    bias_name = op.operands[2] if len(op.operands) > 2 else None
    if bias_name is None or source.scale is None or result.scale is None:
        return
    bias = graph.tensors[bias_name]
    if bias.dtype is DType.INT64:
        _refuse(
            where,
            f"the bias of {op.title} is int64, which TFLite's int8 kernels either refuse or read "
            "as if it were int32",
            "convert with int32 biases, which int8 activations have",
            op,
            bias.name,
        )
    if bias.dtype is not DType.INT32:
        _fail(where, f"the bias of {op.title} is {bias.dtype}, expected int32", op, bias.name)
    # The kernels do not use the scale of the bias. The reference holds only that of a per-tensor
    # fully connected layer against the others' (GetQuantizedConvolutionMultipler).
    if op.name != "FULLY_CONNECTED" or weights.scale is None:
        return
    actual = _scales(bias)
    if actual.size == 0:  # some converters leave the bias scale out
        return
    expected = source.scale * weights.scale
    difference = float(np.max(np.abs(actual - expected))) / result.scale
    if not isfinite(difference) or difference > BIAS_TOLERANCE:
        _fail(
            where,
            f"the bias scale of {op.title} is not input scale times weight scale",
            op,
            bias.name,
        )


def _scales(tensor: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if tensor.channel_scales is not None:
        return tensor.channel_scales.astype(np.float64)
    return np.array([] if tensor.scale is None else [tensor.scale], np.float64)
