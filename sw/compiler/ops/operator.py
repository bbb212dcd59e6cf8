"""What the compiler knows of an operator of model files, in one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from celosia.sw.compiler.ir import DType, Graph, NpuOp, SourceOp, Tensor

__all__ = ["Lowered", "Operator", "always", "first_axis_first", "off_first_axis"]

Lowered = tuple[list[NpuOp], list[Tensor]]
"""Operators of the NPU, and tensors between them that the file does not have."""


def always(graph: Graph, op: SourceOp) -> bool:
    """Say yes."""
    return True


def first_axis_first(graph: Graph, op: SourceOp) -> bool:
    """Return whether the result's first axis is that of every activation, which may broadcast."""
    rank = len(graph.tensors[op.results[0]].shape)
    operands = (graph.tensors[name] for name in op.inputs)
    return all(len(tensor.shape) == rank for tensor in operands if not tensor.is_constant)


def off_first_axis(operand: int) -> Callable[[Graph, SourceOp], bool]:
    """Return whether a constant operand of axes has not the first one."""

    def apart(graph: Graph, op: SourceOp) -> bool:
        axes = graph.tensors[op.inputs[operand]].data
        rank = len(graph.tensors[op.inputs[0]].shape)
        return axes is not None and all(int(axis) % rank for axis in axes.flat)

    return apart


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator, or several that are alike.

    The compiler asks the record; ``docs/operators.md`` is made from it.

    Attributes
    ----------
    names : tuple of str
        As TFLite calls them.
    operands : tuple of int
        The fewest inputs and the most.
    results : tuple of int
        The fewest outputs and the most.
    activations : tuple of int, or None
        The places of the inputs that are activations of an element type it has, None: all of them.
    dtypes : tuple of DType
        Element types of its activations and its outputs that the NPU computes.
    where : str
        What computes it, in a word or two.
    limits : str
        What of it is refused, in the words of a model's author; empty if nothing is.
    lower : callable, optional
        Returns what the NPU does for it, or raises `UnsupportedError`, `ModelError` or
        `QuantizationError`. Without it the operator is known and does not run on the NPU.
    remedy : str
        What to do where it does not run.
    weighted : bool
        Its second input are weights, its third a bias.
    batches : bool
        The first dimension may be any, not only 1.
    constants : bool
        Its activations may be constants.
    apart : callable
        Whether what it makes of an entry of the first axis depends on that entry only, if its
        activations and its outputs have equally many.
    uint8 : bool
        It may be one of uint8 tensors, whose kernel computes as that of int8.
    made : bool
        No file has it: the front end of another format makes it.
    """

    names: tuple[str, ...]
    operands: tuple[int, int]
    results: tuple[int, int] = (1, 1)
    activations: tuple[int, ...] | None = (0,)
    dtypes: tuple[DType, ...] = (DType.INT8,)
    where: str = ""
    limits: str = ""
    lower: Callable[[Graph, SourceOp], NpuOp | Lowered] | None = None
    remedy: str = ""
    weighted: bool = False
    batches: bool = False
    constants: bool = False
    apart: Callable[[Graph, SourceOp], bool] = lambda graph, op: False
    uint8: bool = True
    made: bool = False
