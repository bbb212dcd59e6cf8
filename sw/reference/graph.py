"""The graph of a model as :mod:`celosia.sw.reference.golden` wants it: numbers instead of names.

The file itself is read by the compiler's reader, so that whatever compiles can be checked, and no
two readers disagree about what a file says.  Only the reader is shared: the arithmetic is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import ModelError
from celosia.sw.compiler.frontends.formats import load
from celosia.sw.compiler.ir import Graph, SourceOp, Tensor

__all__ = [
    "GoldenGraph",
    "GoldenOperator",
    "GoldenVariable",
    "TensorInfo",
    "UnsupportedModelError",
    "live_operators",
    "read_graph",
]

Array = npt.NDArray[Any]


class UnsupportedModelError(ValueError):
    """The model has something the golden model does not compute; the message names it."""


@dataclass(frozen=True)
class TensorInfo:
    """What the file says about one tensor.

    Attributes
    ----------
    index, shape
        As in the file.
    name
        As the compiler calls it: the file's, made distinct where it repeats.
    dtype
        The element type; None for one that numpy does not have.
    scales
        Quantisation, one entry (per tensor) or one for each channel; empty for none.
    zero_point
        Of a per-tensor quantised tensor (0 when it has none).
    data
        The value of a constant tensor, None for one that is computed.
    unsigned
        It is uint8 in the file; here values and zero point are 128 less.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    scales: npt.NDArray[np.float32]
    zero_point: int
    data: Array | None
    unsigned: bool = False

    @property
    def scale(self) -> float:
        """The scale of a per-tensor quantised tensor (0.0 when it has none)."""
        return float(self.scales[0]) if self.scales.size else 0.0


@dataclass(frozen=True)
class GoldenOperator:
    """One operator: its name in the schema and the indices of its tensors (-1 for none)."""

    position: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]

    @property
    def needs(self) -> tuple[int, ...]:
        """Tensors whose values the result depends on.

        Results have a static shape in the file, so an operand that says it, often computed by a
        chain of operators, is never read.
        """
        unread = _SHAPE_PLACE.get(self.name)
        return tuple(
            index for place, index in enumerate(self.inputs) if index >= 0 and place != unread
        )


_SHAPE_PLACE = {
    "RESHAPE": 1,
    "BROADCAST_TO": 1,
    "RESIZE_BILINEAR": 1,
    "RESIZE_NEAREST_NEIGHBOR": 1,
    "TRANSPOSE_CONV": 0,
}
"""Which operand of an operator is the shape of its result."""


@dataclass(frozen=True)
class GoldenVariable:
    """A variable: the tensors that are its value before and after an inference, and the first."""

    before: int
    after: int
    initial: Array


@dataclass(frozen=True)
class GoldenGraph:
    """A model by numbers.

    Attributes
    ----------
    tensors
        Those that something refers to, by index.
    inputs, outputs
        The model's inputs and outputs, in order.
    operators
        Those that the outputs and the variables depend on, in order of execution.
    variables
        What an inference leaves for the next.
    unknown
        Tensors whose shape or value the reader cannot tell, by index, and why.
    """

    tensors: dict[int, TensorInfo]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    operators: list[GoldenOperator]
    variables: list[GoldenVariable]
    unknown: Mapping[int, str]


def read_graph(source: str | Path | bytes | Graph) -> GoldenGraph:
    """Read a file, its bytes, or a graph that has been read.

    Raises
    ------
    UnsupportedModelError
        If the file is not a model that the compiler's reader accepts.
    """
    if isinstance(source, Graph):
        graph = source
    else:
        try:
            graph = load(source)
        except ModelError as error:
            raise UnsupportedModelError(str(error)) from error
    tensors = {tensor.index: _info(tensor) for tensor in graph.tensors.values()}

    def numbers(names: tuple[str | None, ...] | list[str]) -> tuple[int, ...]:
        return tuple(-1 if name is None else graph.tensors[name].index for name in names)

    operators = [
        GoldenOperator(
            position=op.origin.index,
            name=op.name,
            inputs=numbers(op.operands),
            outputs=numbers(op.results),
            options=op.options,
        )
        for op in graph.ops
        if isinstance(op, SourceOp)
    ]
    inputs, outputs = graph.interface_names
    return GoldenGraph(
        tensors=tensors,
        inputs=[tensors[index] for index in numbers(inputs)],
        outputs=[tensors[index] for index in numbers(outputs)],
        operators=_live(operators, numbers(graph.outputs)),
        variables=[
            GoldenVariable(
                before=graph.tensors[variable.before].index,
                after=graph.tensors[variable.after].index,
                initial=variable.initial,
            )
            for variable in graph.state
        ],
        unknown={
            graph.tensors[name].index: cause
            for name, cause in graph.host_only.items()
            if name in graph.tensors
        },
    )


def live_operators(graph: Graph) -> list[tuple[GoldenOperator, list[str]]]:
    """Return the operators that the outputs depend on, and the names of the tensors they write.

    Tensors of elements that numpy does not have are left out.
    """
    names = {tensor.index: tensor.name for tensor in graph.tensors.values()}
    return [
        (op, [names[index] for index in op.outputs if graph.tensors[names[index]].dtype.numpy])
        for op in read_graph(graph).operators
    ]


def _info(tensor: Tensor) -> TensorInfo:
    scales = np.zeros(0, np.float32)
    if tensor.channel_scales is not None:
        scales = tensor.channel_scales
    elif tensor.scale is not None:
        scales = np.array([tensor.scale], np.float32)
    return TensorInfo(
        index=tensor.index,
        name=tensor.name,
        shape=tensor.shape,
        dtype=tensor.dtype.numpy,
        scales=scales,
        zero_point=tensor.zero_point,
        data=tensor.data,
    )


def _live(operators: list[GoldenOperator], outputs: tuple[int, ...]) -> list[GoldenOperator]:
    """Keep what the outputs depend on: what nobody reads need not be computable."""
    needed = set(outputs)
    live: list[GoldenOperator] = []
    for op in reversed(operators):
        if needed.intersection(op.outputs):
            needed.update(op.needs)
            live.append(op)
    return live[::-1]
