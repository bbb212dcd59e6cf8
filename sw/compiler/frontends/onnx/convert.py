"""Reads an ``.onnx`` file into the compiler's graph.

`load` returns the same kind of graph as the reader of TFLite: `SourceOp`, by the names of the
compiler's records, with int8 tensors in the NPU's order of axes. `convert` also says which tensor
of the file each of them holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import ModelError, UnsupportedError
from celosia.sw.compiler.frontends.onnx.arithmetic import ARITHMETIC
from celosia.sw.compiler.frontends.onnx.layout import (
    Place,
    channels_last,
    identity,
    inverse,
    numbers_in,
    permuted,
)
from celosia.sw.compiler.frontends.onnx.reader import Node, OnnxModel, open_model
from celosia.sw.compiler.frontends.onnx.units import (
    QUANTISED_TYPES,
    NotOnNpuError,
    Operand,
    Quantised,
    Unit,
    Units,
    find_units,
    is_quantised,
)
from celosia.sw.compiler.ir import Arithmetic, DType, Graph, Origin, SourceOp, Tensor, fresh_name
from celosia.sw.compiler.ops.registry import WHY
from celosia.sw.compiler.passes.strip_edges import LAYOUT
from celosia.sw.compiler.verify import verify, verify_order

__all__ = ["LOOSE", "Converted", "convert", "load"]

Array = npt.NDArray[Any]

LOOSE = "ONNX_"
"""What the name of an operator begins with that no record of the compiler knows."""
IMAGES = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "MaxPool",
        "PRelu",
        "Resize",
        "SpaceToDepth",
    }
)
"""Operators whose second axis are channels."""
_IN_FLOAT = "onnxruntime computes it in floating point, in an order of its own"
_WHILE_IT_RUNS = (
    "its scales are not known before it runs, the NPU needs them; quantize_static finds them out"
)
_REASONS = {
    "ConvInteger": "its result is int32; a convolution that scales it to int8 is the NPU's",
    "ConvTranspose": _IN_FLOAT,
    "DynamicQuantizeLinear": _WHILE_IT_RUNS,
    "InstanceNormalization": _IN_FLOAT,
    "LayerNormalization": _IN_FLOAT,
    "LogSoftmax": _IN_FLOAT,
    "MatMulInteger": "its result is int32; a product that is scaled to int8 is the NPU's",
    "QLinearSoftmax": _IN_FLOAT,
    "Softmax": _IN_FLOAT,
}
"""Why operators that no record knows are the host's, where there is more to say than that."""
_QUANTISE = (
    "quantise it: from onnxruntime.quantization import quantize_static;"
    " quantize_static('model.onnx', 'int8.onnx', reader), with a CalibrationDataReader that gives a"
    " hundred inputs; then give int8.onnx"
)


@dataclass(frozen=True)
class Converted:
    """A model as the compiler has it.

    Attributes
    ----------
    model : OnnxModel
        The file.
    units : Units
        What is one operator in it.
    graph : Graph
        Of its operators.
    places : dict of str to Place
        Which tensor of the file one of the graph holds, by the graph's name; of codes only.
    """

    model: OnnxModel
    units: Units
    graph: Graph
    places: dict[str, Place]


def load(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    anything: bool = False,
    exact: bool = False,
) -> Graph:
    """Read an ONNX model; see `celosia.sw.compiler.frontends.tflite.convert.load`.

    Raises
    ------
    ModelError
        If the file cannot be read, is damaged, or contradicts itself.
    UnsupportedError
        If the model as a whole is of a kind the NPU does not run. With `anything` only if its
        operators or sizes forbid it.
    """
    return convert(source, name=name, anything=anything, exact=exact).graph


def convert(
    source: str | os.PathLike[str] | bytes | OnnxModel,
    *,
    name: str | None = None,
    anything: bool = False,
    exact: bool = False,
) -> Converted:
    """Read an ONNX model, with the places of its tensors; see `load`.

    With `exact` its operators are `Arithmetic.strict`.
    """
    model = source if isinstance(source, OnnxModel) else open_model(source)
    units = find_units(model)
    _require_quantised(model, units)
    builder = Builder(model, units, replace(ARITHMETIC, strict=exact))
    graph = builder.graph(name if name is not None else model.name)
    if anything:
        verify_order(graph, model.file)
    else:
        verify(graph, model.file)
    return Converted(model, units, graph, builder.places)


def _require_quantised(model: OnnxModel, units: Units) -> None:
    what = f"cannot compile model {model.file}"
    if not model.inputs or not model.outputs:
        part = "inputs" if not model.inputs else "outputs"
        raise ModelError(
            what, f"it has no {part}", "export the inference function", file=model.file
        )
    if not units.units and not units.loose:
        raise UnsupportedError(
            what,
            "its outputs are its inputs or constants: no operator computes them",
            "export the inference function of a trained network",
            file=model.file,
        )
    if any(unit.kind not in ("Quantise", "Dequantise") for unit in units.units.values()):
        return
    if not any(is_quantised(node, model) for node in model.nodes):
        raise UnsupportedError(what, _unquantised(model), _QUANTISE, file=model.file)


def _unquantised(model: OnnxModel) -> str:
    """Say why no operator of a model is quantised as the NPU wants it."""
    wide = {
        str(model.types[name])
        for node in model.nodes
        if node.kind == "QuantizeLinear"
        for name in node.outputs
        if name in model.types and model.types[name] not in QUANTISED_TYPES
    }
    if wide:
        return f"its activations are {', '.join(sorted(wide))}, the NPU has int8 and uint8"
    types = {str(model.types.get(name)) for name in model.inputs}
    return f"model is {', '.join(sorted(types))}: none of its operators is quantised"


class Builder:
    """Makes the graph; `operators.py` says what each kind of unit becomes."""

    def __init__(self, model: OnnxModel, units: Units, arithmetic: Arithmetic) -> None:
        from celosia.sw.compiler.frontends.onnx import operators

        self.model = model
        self._units = units
        self._arithmetic = arithmetic
        self._emitters = operators.EMITTERS
        self._tensors: dict[str, Tensor] = {}
        self._ops: list[SourceOp] = []
        self.places: dict[str, Place] = {}
        self._stored: dict[str, list[str]] = {}
        self._pending: dict[str, tuple[str, Node]] = {}
        self._aliases: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._readers: dict[str, list[Unit]] = {}
        for unit in units.units.values():
            for operand in unit.operands:
                if isinstance(operand, Operand):
                    self._readers.setdefault(operand.name, []).append(unit)
        self._host_only: dict[str, str] = {}
        self._ends = {*model.inputs, *model.outputs}

    def graph(self, name: str) -> Graph:
        """Make everything, in an order in which it can be computed."""
        for source in self.model.inputs:
            self._input(source)
        turns = sorted(
            [(_turn(unit), unit) for unit in self._units.units.values()]
            + [(node.index, node) for node in self._units.loose.values()],
            key=lambda turn: turn[0],
        )
        for _, turn in turns:
            if isinstance(turn, Node):
                self._loose(turn)
            else:
                self._unit(turn)
        for result in self.model.outputs:
            self._output(result)
        used = {*self.model.inputs, *self.model.outputs}
        for op in self._ops:
            used.update((*op.inputs, *op.results))
        self.places = {key: place for key, place in self.places.items() if key in used}
        return Graph(
            name=name,
            tensors={key: tensor for key, tensor in self._tensors.items() if key in used},
            ops=list(self._ops),
            inputs=list(self.model.inputs),
            outputs=list(self.model.outputs),
            host_only=self._host_only,
        )

    # Tensors ----------------------------------------------------------------------------------

    def add(self, name: str, shape: tuple[int, ...], dtype: DType, **fields: Any) -> str:
        """Add a tensor; return the name that it got."""
        name = fresh_name(self._tensors, name)
        tensor = Tensor(name=name, shape=shape, dtype=dtype, index=len(self._tensors), **fields)
        self._tensors[name] = tensor
        return name

    def constant(self, wanted: str, value: Array, **fields: Any) -> str:
        """Add a constant."""
        array = np.ascontiguousarray(value)
        array.flags.writeable = False
        return self.add(wanted, tuple(array.shape), DType(array.dtype.name), data=array, **fields)

    def shape(self, file: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the file."""
        if file in self.model.constants:
            return tuple(self.model.constants[file].shape)
        if file not in self.model.shapes:
            raise UnsupportedError(
                f"cannot compile model {self.model.file}",
                f"the shape of tensor {file!r} is not known before it runs",
                "export it with constant shapes; onnxruntime.quantization.preprocess infers them",
                file=self.model.file,
                tensor=file,
            )
        return self.model.shapes[file]

    def codes(
        self, file: str, quantised: Quantised, permutation: tuple[int, ...] | None = None
    ) -> str:
        """Add the tensor that holds one of the file; return its name."""
        shape = self.shape(file)
        permutation = permutation or self.wanted(file)
        place = Place(file, shape, permutation, quantised.offset)
        bare = not quantised.offset and permutation == identity(len(shape))
        wanted = file if bare or file not in self._ends else f"{file}/codes"
        name = self.add(wanted, place.own_shape, DType.INT8, **quantised.fields)
        self.places[name] = place
        self._stored.setdefault(file, []).append(name)
        return name

    def hold(self, file: str, name: str, permutation: tuple[int, ...]) -> None:
        """Say that a tensor of the graph also holds another one of the file."""
        self._aliases[file] = (name, permutation)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the graph."""
        return self._tensors[name]

    def first(self, file: str) -> tuple[str, tuple[int, ...]]:
        """Return the tensor that holds one of the file, and the order of its axes."""
        if file in self._aliases:
            return self._aliases[file]
        if file in self._pending:
            self._settle(file)
        name = self._stored[file][0]
        return name, self.places[name].permutation

    def permutation(self, file: str) -> tuple[int, ...]:
        """Return the order in which a tensor of the file is held."""
        if file in self._pending:
            return identity(len(self.shape(file)))
        return self.first(file)[1]

    def get(self, file: str, permutation: tuple[int, ...], node: Node) -> str:
        """Return a tensor that holds one of the file in some order; move elements if need be."""
        first, held = self.first(file)
        if held == permutation:
            return first
        for name in self._stored.get(file, []):
            if self.places[name].permutation == permutation:
                return name
        axes = tuple(held.index(axis) for axis in permutation)
        result = self.turned(node, first, axes, f"{file}/turned")
        offset = self._units.quantised[file].offset
        self.places[result] = Place(file, self.shape(file), permutation, offset)
        self._stored.setdefault(file, []).append(result)
        return result

    def turned(self, node: Node, name: str, axes: tuple[int, ...], wanted: str) -> str:
        """Add a tensor with another one's axes in some order, and what makes it."""
        source = self._tensors[name]
        own = permuted(source.shape, axes)
        result = self.add(wanted, own, DType.INT8, scale=source.scale, zero_point=source.zero_point)
        long = [axis for axis in axes if source.shape[axis] > 1]
        if long == sorted(long):
            self.emit(node, "RESHAPE", [name], [result], kind="Transpose")
        else:
            operand = self.constant(f"{result}/axes", np.array(axes, np.int32))
            self.emit(node, "TRANSPOSE", [name, operand], [result], kind="Transpose")
        return result

    def view(self, name: str, shape: tuple[int, ...], what: str) -> str:
        """Add a tensor of the same elements in another shape."""
        tensor = self._tensors[name]
        made = self.add(
            f"{name}/{what}", shape, DType.INT8, scale=tensor.scale, zero_point=tensor.zero_point
        )
        if name in self.places:
            self.places[made] = replace(self.places[name], view=shape)
        return made

    def numbers(self, file: str) -> tuple[str, npt.NDArray[np.int64]]:
        """Return a tensor that holds one of the file, and where in it each element is."""
        name, permutation = self.first(file)
        return name, numbers_in(Place(file, self.shape(file), permutation))

    def later(self, file: str, source: str, node: Node) -> None:
        """Say that a tensor of the file is another one in a new shape, to be made when needed."""
        self._pending[file] = (source, node)

    def pending(self, file: str) -> str | None:
        """Return what a tensor is a new shape of, if it has not been made yet."""
        entry = self._pending.get(file)
        return None if entry is None else entry[0]

    def _settle(self, file: str) -> None:
        source, node = self._pending.pop(file)
        name = self.get(source, identity(len(self.shape(source))), node)
        result = self.codes(file, self._units.quantised[source], identity(len(self.shape(file))))
        self.emit(node, "RESHAPE", [name], [result])

    # Operators --------------------------------------------------------------------------------

    def emit(
        self,
        node: Node,
        name: str,
        operands: Sequence[str | None],
        results: Sequence[str],
        options: Mapping[str, Any] | None = None,
        kind: str = "",
    ) -> None:
        """Add an operator."""
        self._ops.append(
            SourceOp(
                origin=Origin("onnx", len(self._ops), kind or node.kind),
                name=name,
                operands=tuple(operands),
                results=tuple(results),
                arithmetic=self._arithmetic,
                options=MappingProxyType(dict(options or {})),
            )
        )

    def wanted(self, file: str, depth: int = 8) -> tuple[int, ...]:
        """Return the order of axes that most of a tensor's readers take."""
        rank = len(self.shape(file))
        if rank < 3 or depth == 0:
            return identity(rank)
        for unit in self._readers.get(file, []):
            if unit.kind in IMAGES:
                return channels_last(rank)
            if unit.kind == "Transpose":
                turn = self.turn_of(unit.node, rank)
                wanted = self.wanted(unit.results[0].name, depth - 1)
                return tuple(turn[axis] for axis in wanted)
            if unit.kind in _AS_THEY_COME:
                for result in unit.results:
                    if result.name in self.model.shapes and len(self.shape(result.name)) == rank:
                        found = self.wanted(result.name, depth - 1)
                        if found != identity(rank):
                            return found
        return identity(rank)

    @staticmethod
    def turn_of(node: Node, rank: int) -> tuple[int, ...]:
        """Return the axes of a Transpose."""
        turn = node.options.get("perm") or range(rank)[::-1]
        return tuple(int(axis) for axis in turn)

    def _unit(self, unit: Unit) -> None:
        emitter = self._emitters.get(unit.kind)
        try:
            if emitter is None:
                raise NotOnNpuError
            emitter(self, unit)
        except NotOnNpuError:
            self._left_to_host(unit)

    def _left_to_host(self, unit: Unit) -> None:
        operands = [
            self.first(one.name)[0]
            for one in unit.operands
            if isinstance(one, Operand) and one.value is None
        ]
        results = [self.codes(one.name, one.quantised) for one in unit.results]
        options = _reason(unit.kind)
        if unit.kind in self._emitters:
            options = {WHY: "the NPU does not have it in this form"}
        self.emit(unit.node, f"{LOOSE}{unit.node.kind}", operands, results, options)

    def _loose(self, node: Node) -> None:
        operands = [self._any(name) for name in node.inputs if name]
        results = [
            self.codes(name, self._units.quantised[name])
            if name in self._units.quantised
            else self._plain(name)
            for name in node.outputs
            if name
        ]
        options = _reason(node.kind)
        if node.kind in ("DequantizeLinear", "QuantizeLinear"):
            options = {WHY: "it leads to or from what the host computes in floating point"}
        elif node.kind in self._emitters:
            options = {WHY: "it is in floating point: its operands or its result have no codes"}
        self.emit(node, f"{LOOSE}{node.kind}", operands, results, options)

    def _any(self, file: str) -> str:
        """Return what holds a tensor of the file, of any type."""
        if file in self.model.constants:
            name = f"{file}/constant"
            return (
                name if name in self._tensors else self.constant(name, self.model.constants[file])
            )
        if file in self._units.quantised and (
            file in self._stored or file in self._aliases or file in self._pending
        ):
            return self.first(file)[0]
        return file if file in self._tensors else self._plain(file)

    def _plain(self, file: str) -> str:
        """Add a tensor of the file as it is."""
        known = self.model.types.get(file)
        dtype = DType.FLOAT32 if known is None else _dtype(known)
        shape = self.model.shapes.get(file)
        if shape is None or 0 in shape or dtype is None:
            self._host_only[file] = f"the shape or type of tensor {file!r} is not known"
        return self.add(
            file,
            tuple(max(size, 1) for size in shape or (1,)),
            dtype or DType.FLOAT32,
        )

    # Ends -------------------------------------------------------------------------------------

    def _input(self, file: str) -> None:
        quantised = self._units.quantised.get(file)
        if quantised is None:
            self._plain(file)
            return
        permutation = self.wanted(file)
        if quantised.dtype == np.int8 and permutation == identity(len(permutation)):
            self.codes(file, quantised, permutation)
            return
        outer = self._outer(file, quantised)
        inner = self.codes(file, quantised, permutation)
        self.emit(_end("Input"), "QUANTIZE", [outer], [inner], {LAYOUT: permutation})

    def _outer(self, file: str, quantised: Quantised) -> str:
        """Add a tensor of codes as the file has it."""
        return self.add(
            file,
            self.shape(file),
            DType(quantised.dtype.name),
            scale=float(quantised.scale[0]),
            zero_point=int(quantised.zero_point[0]),
        )

    def _output(self, file: str) -> None:
        if file in self._tensors:
            return
        quantised = self._units.quantised.get(file)
        if quantised is None:
            raise ModelError(
                f"cannot compile model {self.model.file}",
                f"no operator writes output {file!r}",
                "export the model again",
                file=self.model.file,
                tensor=file,
            )
        inner, permutation = self.first(file)
        outer, back = self._outer(file, quantised), inverse(permutation)
        self.emit(_end("Output"), "QUANTIZE", [inner], [outer], {LAYOUT: back})

    def quantise(self, unit: Unit) -> None:
        """Add the conversion of an input in floating point."""
        (source,), (result,) = unit.operands, unit.results
        assert isinstance(source, Operand)
        inner = self.codes(result.name, result.quantised)
        layout = self.places[inner].permutation
        self.emit(unit.node, "QUANTIZE", [source.name], [inner], {LAYOUT: layout})

    def dequantise(self, unit: Unit) -> None:
        """Add the conversion to an output in floating point."""
        (source,), (result,) = unit.operands, unit.results
        assert isinstance(source, Operand)
        inner, permutation = self.first(source.name)
        outer, back = self._plain(result.name), inverse(permutation)
        self.emit(unit.node, "DEQUANTIZE", [inner], [outer], {LAYOUT: back})


def _reason(kind: str) -> dict[str, Any]:
    """Return the option that says why an operator that no record knows is the host's."""
    return {WHY: _REASONS[kind]} if kind in _REASONS else {}


def _turn(unit: Unit) -> int:
    """Return when a unit is made, as the number of a node.

    What reads one of several results may stand before the others are quantised.
    """
    return unit.node.index if len(unit.results) > 1 else max(unit.nodes)


def _end(kind: str) -> Node:
    """Return what stands for an end of the model, where the file has no node."""
    return Node(-1, kind, "", (), (), {})


_AS_THEY_COME = frozenset(
    {
        "Add",
        "Clip",
        "Concat",
        "Identity",
        "Max",
        "Min",
        "Mul",
        "Pad",
        "Relu",
        "Requantise",
        "Slice",
        "Split",
        "Sub",
        "LeakyRelu",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "PRelu",
    }
)
"""Operators that take their operands in any order of axes."""


def _dtype(known: np.dtype[Any]) -> DType | None:
    try:
        return DType(known.name)
    except ValueError:
        return None
