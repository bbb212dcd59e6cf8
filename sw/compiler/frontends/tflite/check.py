"""Refuses, in words, models that are sound but of a kind the NPU does not run.

Only what the outputs depend on counts: a float branch nobody reads is no reason to refuse.
"""

from __future__ import annotations

from celosia.errors import ModelError, UnsupportedError
from celosia.sw.compiler.ir import DType, Graph, Op, Tensor
from celosia.sw.compiler.passes.fold_constants import fold_constants
from celosia.sw.compiler.passes.fold_islands import fold_islands
from celosia.sw.compiler.passes.strip_edges import edge_tensors

__all__ = ["check_model"]

FLOATS = frozenset({DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64})
ZERO_POINTS = {DType.INT8: (-128, 127), DType.UINT8: (0, 255)}
"""The element types of activations that are computed with, and the least and greatest value."""
BOUNDARY_OPS = frozenset({"QUANTIZE", "DEQUANTIZE"})
MAX_LISTED = 5

_QUANTISE = (
    "quantise it fully to int8: set converter.optimizations = [tf.lite.Optimize.DEFAULT], "
    "converter.representative_dataset, converter.target_spec.supported_ops = "
    "[tf.lite.OpsSet.TFLITE_BUILTINS_INT8] and inference_input_type = inference_output_type = "
    "tf.int8"
)


def check_model(graph: Graph, file: str) -> None:
    """Check the element types and the interface of a source-level graph.

    Parameters
    ----------
    graph : Graph
        As read from the file.
    file : str
        Name for messages.

    Raises
    ------
    ModelError
        If the model has no inputs, no outputs or no operators, or an activation has no
        quantisation parameters.
    UnsupportedError
        If it is not int8 or uint8 throughout (inputs and outputs that the host converts aside), or
        no operator computes its outputs.
    """
    interface = graph.interface
    for part, present in (
        ("inputs", graph.inputs if interface is None else interface.inputs),
        ("outputs", graph.outputs if interface is None else interface.outputs),
        ("operators", graph.ops),
    ):
        if not present:
            raise ModelError(
                f"cannot compile model {file}",
                f"it has no {part}",
                "export the inference function of a trained network",
                file=file,
            )
    # What becomes a table, and what is constant, may be of any type.
    graph = fold_islands(fold_constants(graph))
    ops = _live_ops(graph)
    if not ops:
        raise UnsupportedError(
            f"cannot compile model {file}",
            "its outputs are its inputs or constants: no operator computes them",
            "export the inference function of a trained network",
            file=file,
        )
    edges = edge_tensors(graph)
    activations = [t for t in _activations(graph, ops) if t.name not in edges]
    _check_types(graph, ops, activations, edges, file)
    _check_quantisation(activations, file)


def _live_ops(graph: Graph) -> list[Op]:
    needed = set(graph.outputs)
    live: list[Op] = []
    for op in reversed(graph.ops):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            live.append(op)
    return live[::-1]


def _activations(graph: Graph, ops: list[Op]) -> list[Tensor]:
    names = dict.fromkeys(graph.inputs)
    for op in ops:
        names.update(dict.fromkeys(op.outputs))
    return [graph.tensors[name] for name in names]


def _check_types(
    graph: Graph, ops: list[Op], activations: list[Tensor], edges: frozenset[str], file: str
) -> None:
    what = f"cannot compile model {file}"
    floats = [t for t in activations if t.dtype in FLOATS]
    if floats:
        between = {name for op in ops if op.origin.name not in BOUNDARY_OPS for name in op.outputs}
        if any(t.dtype is DType.INT8 for t in activations) and not any(
            t.name in between for t in floats
        ):
            raise UnsupportedError(
                what,
                f"its inputs or outputs are {floats[0].dtype} ({_listed(floats)})",
                "convert with inference_input_type = inference_output_type = tf.int8, so that "
                "the host quantises",
                file=file,
                tensor=floats[0].name,
            )
        cause = f"model is {floats[0].dtype}"
        if any(t.dtype is DType.INT8 for t in graph.tensors.values()):
            cause = f"model computes in {floats[0].dtype} in part ({_listed(floats)})"
        raise UnsupportedError(what, cause, _QUANTISE, file=file, tensor=floats[0].name)
    for dtype, remedy in (
        (DType.INT16, f"16-bit activations are not supported; {_QUANTISE}"),
        (DType.INT4, _QUANTISE),
    ):
        wrong = [t for t in activations if t.dtype is dtype]
        if wrong:
            cause = f"it has {dtype} activations ({_listed(wrong)})"
            raise UnsupportedError(what, cause, remedy, file=file, tensor=wrong[0].name)
    # Integer results inside the graph may compute shapes, which folding removes; at the
    # interface they are data.
    for name in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[name]
        if tensor.dtype not in ZERO_POINTS and name not in edges:
            raise UnsupportedError(
                what,
                f"tensor {name!r} of its interface is {tensor.dtype}",
                "only int8 and uint8 inputs and outputs are supported",
                file=file,
                tensor=name,
            )


def _check_quantisation(activations: list[Tensor], file: str) -> None:
    for tensor in activations:
        if tensor.dtype not in ZERO_POINTS:
            continue
        if tensor.scale is None:
            kind = "per-channel" if tensor.channel_scales is not None else "no"
            raise ModelError(
                f"cannot compile model {file}",
                f"{tensor.dtype} activation {tensor.name!r} has {kind} quantisation parameters",
                _QUANTISE,
                file=file,
                tensor=tensor.name,
            )
        least, greatest = ZERO_POINTS[tensor.dtype]
        if not least <= tensor.zero_point <= greatest:
            raise ModelError(
                f"cannot compile model {file}",
                f"zero point {tensor.zero_point} of {tensor.name!r} is not an {tensor.dtype} value",
                "convert the model again",
                file=file,
                tensor=tensor.name,
            )


def _listed(tensors: list[Tensor]) -> str:
    names = ", ".join(repr(t.name) for t in tensors[:MAX_LISTED])
    return names if len(tensors) <= MAX_LISTED else f"{names} and {len(tensors) - MAX_LISTED} more"
