"""Finds the quantised operators of a model, as onnxruntime makes them of either kind of graph.

A QOperator graph names them (QLinearConv). In a QDQ graph an operator in floating point stands
between DequantizeLinear and QuantizeLinear, perhaps with an activation behind it. Both become a
`Unit`. What belongs to no unit stays a node of the file, which the host runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import ModelError
from celosia.sw.compiler.frontends.onnx.reader import Node, OnnxModel

__all__ = [
    "OFFSET",
    "QUANTISED_TYPES",
    "Constant",
    "NotOnNpuError",
    "Operand",
    "Quantised",
    "Unit",
    "Units",
    "find_units",
    "is_quantised",
]

Array = npt.NDArray[Any]

QUANTISED_TYPES = frozenset({np.dtype(np.int8), np.dtype(np.uint8)})
OFFSET = 128
"""What codes of uint8 are more than the graph's, which are int8."""
TABLES = frozenset(
    {
        "Abs",
        "Celu",
        "Clip",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "ThresholdedRelu",
    }
)
"""Functions of one element."""
MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Flatten",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that also exist on quantised tensors, and do not compute with them."""
_SEVERAL = frozenset({"Split"})
"""Operators with more than one result."""


@dataclass(frozen=True)
class Quantised:
    """Scale and zero point: of one element, or of one a channel.

    The axis of the channels is None where the operator says which one it is.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    dtype: np.dtype[Any]
    axis: int | None = None

    @property
    def offset(self) -> int:
        """What the file's codes are more than the graph's."""
        return OFFSET if self.dtype == np.uint8 else 0

    @property
    def zero(self) -> int:
        """The zero point of the graph's codes; of those with one."""
        return int(self.zero_point[0]) - self.offset

    @property
    def fields(self) -> dict[str, Any]:
        """What a tensor of the graph has of it."""
        return {"scale": float(self.scale[0]), "zero_point": self.zero}

    @property
    def single(self) -> bool:
        """Whether there is one scale for all."""
        return self.scale.size == 1 and self.zero_point.size == 1

    def same(self, other: Quantised) -> bool:
        """Whether equal codes are equal numbers in both."""
        return (
            self.dtype == other.dtype
            and self.single
            and other.single
            and float(self.scale.flat[0]) == float(other.scale.flat[0])
            and int(self.zero_point.flat[0]) == int(other.zero_point.flat[0])
        )


@dataclass(frozen=True)
class Operand:
    """A quantised tensor that a unit reads or writes; a constant has its value."""

    name: str
    quantised: Quantised
    value: Array | None = None

    @property
    def is_codes(self) -> bool:
        """Whether it is a quantised tensor; the ends of conversions are in floating point."""
        return self.quantised.dtype in QUANTISED_TYPES

    @property
    def codes(self) -> npt.NDArray[np.int8]:
        """The value of a constant, as the graph has it."""
        assert self.value is not None
        return (self.value.astype(np.int16) - self.quantised.offset).astype(np.int8)


@dataclass(frozen=True)
class Constant:
    """A constant that is not quantised: a bias of int32, a shape, amounts."""

    value: Array
    real: npt.NDArray[np.float32] | None = None
    """What a bias of int32 means, where it is dequantised in the file."""


@dataclass(frozen=True)
class Unit:
    """A quantised operator.

    Attributes
    ----------
    kind : str
        The operator in floating point: ``Conv``, ``Add``, ``Requantise``, ``Quantise`` (an input
        in floating point), ``Dequantise`` (an output in it).
    node : Node
        The one that does the work.
    nodes : tuple of int
        All that belong to it, by their number.
    operands : tuple of (Operand, Constant, or None)
        By the operator's places.
    results : tuple of Operand
        What it writes.
    clamps : tuple of (float, float)
        Least and greatest result, of the activations behind it, in order; infinite: no bound.
    fused : bool
        The file itself has it as one operator on quantised tensors.
    """

    kind: str
    node: Node
    nodes: tuple[int, ...]
    operands: tuple[Operand | Constant | None, ...]
    results: tuple[Operand, ...]
    clamps: tuple[tuple[float, float], ...] = ()
    fused: bool = True


class NotOnNpuError(Exception):
    """The NPU does not compute a unit, the host does: said before anything is made for it."""


@dataclass(frozen=True)
class Units:
    """What a model consists of.

    Attributes
    ----------
    units : dict of int to Unit
        By the number of the node that does the work.
    loose : dict of int to Node
        Nodes of no unit that the outputs depend on.
    quantised : dict of str to Quantised
        Of the tensors that are codes.
    """

    units: dict[int, Unit] = field(default_factory=dict)
    loose: dict[int, Node] = field(default_factory=dict)
    quantised: dict[str, Quantised] = field(default_factory=dict)


_NAMED = ("QLinear", "QGemm")
"""How operators on quantised tensors are called."""
_QUANTISED_KINDS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QuantizeLinear",
    }
)


def is_quantised(node: Node, model: OnnxModel) -> bool:
    """Whether a node computes with codes of 8 bits, be it with scales that are computed."""
    if node.kind not in _QUANTISED_KINDS and not node.kind.startswith(_NAMED):
        return False
    types = [model.types.get(name) for name in (*node.inputs[:1], *node.outputs[:1])]
    return any(one in QUANTISED_TYPES for one in types)


def find_units(model: OnnxModel) -> Units:
    """Find the units of a model, and what belongs to none.

    Raises
    ------
    ModelError
        If scales or zero points are not what they must be.
    """
    return _Finder(model).found()


class _Finder:
    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._writer = {name: node for node in model.nodes for name in node.outputs if name}
        self._readers: dict[str, list[Node]] = {}
        for node in model.nodes:
            for name in node.inputs:
                if name:
                    self._readers.setdefault(name, []).append(node)
        self._outputs = frozenset(model.outputs)
        self._quantised: dict[str, Quantised] = {}
        self._units: dict[int, Unit] = {}

    def found(self) -> Units:
        self._inputs()
        for node in self._model.nodes:
            unit = self._unit(node)
            if unit is not None:
                self._units[unit.node.index] = unit
                self._quantised |= {one.name: one.quantised for one in unit.results if one.is_codes}
        return self._live()

    def _inputs(self) -> None:
        """Find out what codes mean that are inputs: who computes with them says so.

        Codes that are only moved have a scale of one.
        """
        said: dict[str, Quantised] = {}
        for node in reversed(self._model.nodes):
            places: tuple[tuple[int, int, int], ...] = ()
            if node.kind == "DequantizeLinear":
                places = ((0, 1, 2),)
            elif node.kind in _LAYOUTS:
                places = _LAYOUTS[node.kind].operands
            elif node.kind == "QLinearConcat":
                places = tuple((p, p + 1, p + 2) for p in range(2, len(node.inputs), 3))
            for place, scale, zero in places:
                quantised = self._parameters(node, scale, zero)
                if quantised is not None:
                    said[node.input(place)] = quantised
            if node.kind in MOVES:
                known = next((said[name] for name in node.outputs if name in said), None)
                for name in node.inputs if node.kind == "Concat" else node.inputs[:1]:
                    if known is not None:
                        said.setdefault(name, known)
        for name in self._model.inputs:
            dtype = self._model.types.get(name)
            if dtype is not None and dtype in QUANTISED_TYPES:
                plain = Quantised(np.ones(1, np.float32), np.zeros(1, np.int64), dtype)
                self._quantised[name] = said.get(name, plain)

    def _live(self) -> Units:
        """Keep what the outputs depend on; nodes inside a unit count only if others read them."""
        makers = {one.name: unit for unit in self._units.values() for one in unit.results}
        units: dict[int, Unit] = {}
        loose: dict[int, Node] = {}
        wanted, seen = list(self._model.outputs), set[str]()
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            unit = makers.get(name)
            if unit is not None:
                units[unit.node.index] = unit
                wanted += [
                    one.name
                    for one in unit.operands
                    if isinstance(one, Operand) and one.value is None
                ]
                continue
            node = self._writer.get(name)
            if node is not None:
                loose[node.index] = node
                wanted += [n for n in node.inputs if n and n not in self._model.constants]
        return Units(
            units=dict(sorted(units.items())),
            loose=dict(sorted(loose.items())),
            quantised=self._quantised,
        )

    def _unit(self, node: Node) -> Unit | None:
        """Return the unit that ends with a node, if one does."""
        if node.kind == "QuantizeLinear":
            return self._ending_in(node)
        if node.kind.startswith(_NAMED):
            return self._named(node)
        if node.kind in MOVES and node.inputs[0] in self._quantised:
            return self._moving(node)
        if node.kind == "DequantizeLinear" and node.outputs[0] in self._outputs:
            source, result = self._dequantised(node.outputs[0]), node.outputs[0]
            if source is not None and source.value is None and not self._readers.get(result):
                return Unit("Dequantise", node, (node.index,), (source,), (_float(result),))
        return None

    # QDQ --------------------------------------------------------------------------------------

    def _ending_in(self, last: Node) -> Unit | None:
        quantised = self._parameters(last, 1, 2)
        if quantised is None or not quantised.single:
            return None
        result = Operand(last.outputs[0], quantised)
        source = last.inputs[0]
        if source in self._model.inputs:
            return Unit("Quantise", last, (last.index,), (_float(source),), (result,))
        behind = self._dequantised(source)
        if behind is not None:
            return Unit("Requantise", last, (last.index,), (behind,), (result,))
        nodes = [last.index]
        clamps: list[tuple[float, float]] = []
        while True:
            node = self._writer.get(source)
            if node is None or len(self._readers[source]) > 1 or source in self._outputs:
                return None
            clamp = self._clamp(node)
            if clamp is None or self._dequantised(node.inputs[0]) is not None:
                break  # what is computed; or an activation with nothing before it
            clamps.insert(0, clamp)
            nodes.append(node.index)
            source = node.inputs[0]
        results: tuple[Operand, ...] | None = (result,)
        if len(node.outputs) > 1:
            results = self._several(node) if source == last.inputs[0] else None
        operands = self._operands(node)
        if operands is None or results is None:
            return None
        if len(results) > 1:
            nodes = [self._readers[name][0].index for name in node.outputs]
        return Unit(
            node.kind,
            node,
            tuple(sorted({*nodes, node.index})),
            operands,
            results,
            tuple(clamps),
            fused=False,
        )

    def _several(self, node: Node) -> tuple[Operand, ...] | None:
        """Return the results of an operator with several, if each is quantised and nothing else."""
        found: list[Operand] = []
        for name in node.outputs:
            readers = self._readers.get(name, [])
            if node.kind not in _SEVERAL or len(readers) != 1 or name in self._outputs:
                return None
            quantised = self._parameters(readers[0], 1, 2)
            if readers[0].kind != "QuantizeLinear" or quantised is None or not quantised.single:
                return None
            found.append(Operand(readers[0].outputs[0], quantised))
        return tuple(found)

    def _operands(self, node: Node) -> tuple[Operand | Constant | None, ...] | None:
        """Return what an operator in floating point reads; None if it reads other tensors."""
        found: list[Operand | Constant | None] = []
        for name in node.inputs:
            if not name:
                found.append(None)
                continue
            operand = self._dequantised(name)
            if operand is not None:
                found.append(operand)
            elif name in self._model.constants:
                found.append(Constant(self._model.constants[name]))
            else:
                bias = self._bias(name)
                if bias is None:
                    return None
                found.append(bias)
        active = [one for one in found if isinstance(one, Operand) and one.value is None]
        return tuple(found) if active else None

    def _bias(self, name: str) -> Constant | None:
        """Return a bias that is dequantised in the file: its steps are the accumulator's."""
        node = self._writer.get(name)
        if node is None or node.kind != "DequantizeLinear":
            return None
        value = self._model.constants.get(node.inputs[0])
        scale = self._model.constants.get(node.inputs[1])
        zero = self._model.constants.get(node.input(2))
        if value is None or scale is None or value.dtype != np.int32:
            return None
        if scale.dtype != np.float32 or scale.size not in (1, value.size):
            return None
        if zero is not None and np.any(zero):
            return None
        return Constant(value, value.astype(np.float32) * scale.reshape(-1))

    def _dequantised(self, name: str) -> Operand | None:
        """Return the codes that a tensor in floating point is made of."""
        node = self._writer.get(name)
        if node is None or node.kind != "DequantizeLinear":
            return None
        quantised = self._parameters(node, 1, 2)
        if quantised is None:
            return None
        source = node.inputs[0]
        value = self._model.constants.get(source)
        known = self._quantised.get(source)
        if value is None and known is not None and not known.same(quantised):
            return None  # the same codes, read as other numbers
        if value is None and known is None:
            # An input of the model, or what a node that is no unit makes.
            if self._model.types.get(source) not in QUANTISED_TYPES:
                return None
            self._quantised[source] = quantised
        return Operand(source, quantised, value)

    def _clamp(self, node: Node) -> tuple[float, float] | None:
        """Return the bounds of an activation that rises; None if it is none."""
        if node.kind == "Relu":
            return 0.0, np.inf
        if node.kind != "Clip":
            return None
        # Before opset 11 the bounds are attributes.
        bounds = [
            float(node.options.get(name, default))
            for name, default in (("min", -np.inf), ("max", np.inf))
        ]
        for place in (1, 2):
            name = node.input(place)
            if name:
                value = self._model.constants.get(name)
                if value is None or value.size != 1:
                    return None
                bounds[place - 1] = float(value.flat[0])
        return bounds[0], bounds[1]

    def _parameters(self, node: Node, scale: int, zero: int) -> Quantised | None:
        """Return the scale and the zero point that a node names; None if they are not constant."""
        constants = self._model.constants
        scales = constants.get(node.input(scale))
        if scales is None or scales.dtype != np.float32:
            return None
        if scales.ndim > 1 or node.options.get("block_size", 0):
            return None  # by blocks
        name = node.input(zero)
        if name:
            zeros = constants.get(name)
            if zeros is None:
                return None
            dtype = zeros.dtype
        else:
            zeros, dtype = np.zeros(1, np.int64), np.dtype(np.uint8)
            ends = {"DequantizeLinear": node.inputs, "QuantizeLinear": node.outputs}
            if node.kind in ends:
                dtype = self._model.types.get(ends[node.kind][0], dtype)
        if dtype not in QUANTISED_TYPES:
            return None
        bad = not np.all(np.isfinite(scales)) or bool(np.any(scales <= 0))
        if bad or zeros.size not in (1, scales.size):
            raise ModelError(
                f"cannot read model {self._model.file}",
                f"node {node.index} ({node.kind} {node.name!r}) has a scale that is not positive,"
                " or not as many zero points as scales",
                "quantise the model again",
                file=self._model.file,
                op_index=node.index,
                op_type=node.kind,
            )
        axis = None
        if node.kind in ("DequantizeLinear", "QuantizeLinear"):
            axis = int(node.options.get("axis", 1))
        return Quantised(
            np.asarray(scales, np.float32).reshape(-1),
            zeros.astype(np.int64).reshape(-1),
            dtype,
            axis,
        )

    # QOperator --------------------------------------------------------------------------------

    def _named(self, node: Node) -> Unit | None:
        if node.options.get("channels_last"):
            return None
        layout = _LAYOUTS.get(node.kind)
        if node.kind == "QLinearConcat":
            operands = [self._operand(node, p, p + 1, p + 2) for p in range(2, len(node.inputs), 3)]
            result = self._parameters(node, 0, 1)
            kind = "Concat"
        elif layout is not None:
            kind = layout.kind
            operands = [self._operand(node, *places) for places in layout.operands]
            result = self._parameters(node, *layout.result)
        else:
            return None
        if any(operand is None for operand in operands) or result is None or not result.single:
            return None
        found: list[Operand | Constant | None] = list(operands)
        if layout is not None and layout.bias is not None:
            name = node.input(layout.bias)
            value = self._model.constants.get(name)
            if name and value is None:
                return None
            found.append(None if value is None else Constant(value))
        if not any(isinstance(one, Operand) and one.value is None for one in found):
            return None
        return Unit(kind, node, (node.index,), tuple(found), (Operand(node.outputs[0], result),))

    def _operand(self, node: Node, name: int, scale: int, zero: int) -> Operand | None:
        quantised = self._parameters(node, scale, zero)
        source = node.input(name)
        if quantised is None or not source:
            return None
        value = self._model.constants.get(source)
        if value is None and not self._quantised.setdefault(source, quantised).same(quantised):
            return None
        return Operand(source, quantised, value)

    def _moving(self, node: Node) -> Unit | None:
        """Return an operator that moves codes."""
        quantised = self._quantised[node.inputs[0]]
        several = node.kind == "Concat"
        operands: list[Operand | Constant | None] = []
        for place, name in enumerate(node.inputs):
            if not name:
                operands.append(None)
            elif name in self._quantised:
                if not self._quantised[name].same(quantised):
                    return None
                operands.append(Operand(name, self._quantised[name]))
            elif name in self._model.constants and (place or several):
                value = self._model.constants[name]
                operands.append(Operand(name, quantised, value) if several else Constant(value))
            else:
                return None
        if len([name for name in node.outputs if name]) > 1 and node.kind not in _SEVERAL:
            return None
        results = tuple(Operand(name, quantised) for name in node.outputs if name)
        return Unit(node.kind, node, (node.index,), tuple(operands), results)


@dataclass(frozen=True)
class _Layout:
    """Where an operator on quantised tensors has its operands."""

    kind: str
    operands: tuple[tuple[int, int, int], ...]
    result: tuple[int, int]
    bias: int | None = None


_LAYOUTS: Mapping[str, _Layout] = {
    "QLinearConv": _Layout("Conv", ((0, 1, 2), (3, 4, 5)), (6, 7), bias=8),
    "QLinearMatMul": _Layout("MatMul", ((0, 1, 2), (3, 4, 5)), (6, 7)),
    "QGemm": _Layout("Gemm", ((0, 1, 2), (3, 4, 5)), (7, 8), bias=6),
    "QLinearAdd": _Layout("Add", ((0, 1, 2), (3, 4, 5)), (6, 7)),
    "QLinearMul": _Layout("Mul", ((0, 1, 2), (3, 4, 5)), (6, 7)),
    "QLinearSigmoid": _Layout("Sigmoid", ((0, 1, 2),), (3, 4)),
    "QLinearLeakyRelu": _Layout("LeakyRelu", ((0, 1, 2),), (3, 4)),
    "QLinearAveragePool": _Layout("AveragePool", ((0, 1, 2),), (3, 4)),
    "QLinearGlobalAveragePool": _Layout("GlobalAveragePool", ((0, 1, 2),), (3, 4)),
}


def _float(name: str) -> Operand:
    """Return a tensor in floating point, as the end of a conversion."""
    return Operand(
        name, Quantised(np.zeros(0, np.float32), np.zeros(0, np.int64), np.dtype(np.float32))
    )
