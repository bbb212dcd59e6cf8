"""Makes a model of one sample of one that has a batch in its shapes.

What the NPU cannot compute of all images at once it computes of one after the other, if every
operator keeps the entries of the first axis apart.
"""

from __future__ import annotations

from dataclasses import replace

from celosia.sw.compiler.ir import Graph, SourceOp, Tensor
from celosia.sw.compiler.ops.registry import OPERATORS
from celosia.sw.compiler.passes.dead_code import eliminate_dead_code

__all__ = ["one_sample"]


def one_sample(graph: Graph) -> tuple[Graph, int] | None:
    """Return the graph of one sample and how many samples the model has; None if it has no batch.

    A model with variables has none: what one run leaves is of all its samples.

    Parameters
    ----------
    graph : Graph
        Source level.
    """
    if graph.state:
        return None
    graph = eliminate_dead_code(graph)
    # Numbers of one axis only are the channels of one pixel: there is no sample to tell apart.
    sizes = {
        tensor.shape[0] if len(tensor.shape) > 1 else 0
        for tensor in graph.tensors.values()
        if not tensor.is_constant
    }
    if len(sizes) != 1:
        return None
    (batch,) = sizes
    if batch < 2 or not all(isinstance(op, SourceOp) and _apart(graph, op) for op in graph.ops):
        return None
    tensors = {
        name: tensor if tensor.is_constant else replace(tensor, shape=(1, *tensor.shape[1:]))
        for name, tensor in graph.tensors.items()
    }
    return replace(graph, tensors=tensors), batch


def _apart(graph: Graph, op: SourceOp) -> bool:
    record = OPERATORS.get(op.name)
    if record is None or not record.apart(graph, op):
        return False
    result = graph.tensors[op.results[0]]
    constants = [graph.tensors[name] for name in op.inputs if graph.tensors[name].is_constant]
    return not record.constants or all(_for_all(constant, result) for constant in constants)


def _for_all(constant: Tensor, result: Tensor) -> bool:
    """Whether a constant operand is the same for all samples."""
    return len(constant.shape) < len(result.shape) or constant.shape[0] == 1
