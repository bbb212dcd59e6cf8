"""What the partition asks of a model's file, whatever format it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from celosia.sw.compiler.frontends.tflite.cut import cut_operators
from celosia.sw.compiler.frontends.tflite.reader import FlatModel
from celosia.sw.compiler.ir import Graph, SourceOp, Tensor
from celosia.sw.compiler.partition.kernels import kernels_of
from celosia.sw.compiler.partition.nodes import SourceModel

__all__ = ["ModelFile", "TfliteFile"]


class ModelFile(Protocol):
    """The file of a model that is divided."""

    @property
    def joined(self) -> frozenset[str]:
        """Tensors that no segment can take or give: those who have to do with one stay together."""

    def kernels(self, op: SourceOp, graph: Graph) -> tuple[str, str]:
        """Return what computes an operator on the host, and why it is not what usually does."""

    def cut(
        self,
        model: SourceModel,
        numbers: Sequence[int],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> bytes:
        """Return a file of some operators, with these tensors as inputs and outputs, in order."""

    def is_unset(self, tensor: Tensor) -> bool:
        """Whether the file has no value for a tensor."""


@dataclass(frozen=True)
class TfliteFile:
    """A ``.tflite`` file."""

    flat: FlatModel

    @property
    def joined(self) -> frozenset[str]:
        """None: every tensor is one of the file."""
        return frozenset()

    def kernels(self, op: SourceOp, graph: Graph) -> tuple[str, str]:
        """Return the kernels that compute an operator, and why they are not the reference ones."""
        return kernels_of(op, graph)

    def cut(
        self,
        model: SourceModel,
        numbers: Sequence[int],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> bytes:
        """Return a ``.tflite`` file of some operators."""
        tensors = model.graph.tensors
        return cut_operators(
            self.flat,
            numbers,
            [tensors[name].index for name in inputs],
            [tensors[name].index for name in outputs],
            model.shapes(numbers),
        )

    def is_unset(self, tensor: Tensor) -> bool:
        """Whether the file has no value for a tensor."""
        buffer = int(self.flat.model.Subgraphs(0).Tensors(tensor.index).Buffer())
        return self.flat.buffer(buffer) is None
