"""Cuts a part out of an ``.onnx`` file for the host, with the graph's tensors at its ends.

The nodes are the file's own. At the ends stand nodes that bring codes from the NPU's order of axes
into the file's, and back, and add the 128 that uint8 codes are more than int8 ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from celosia.errors import UnsupportedError
from celosia.sw.compiler.frontends.onnx.convert import Converted
from celosia.sw.compiler.frontends.onnx.kernels import MICROSOFT
from celosia.sw.compiler.frontends.onnx.layout import Place, inverse
from celosia.sw.compiler.ir import Graph, SourceOp, Tensor
from celosia.sw.compiler.partition.nodes import SourceModel
from celosia.sw.program.segments import ONNXRUNTIME

__all__ = ["OnnxFile"]


@dataclass(frozen=True)
class OnnxFile:
    """An ``.onnx`` file, as the partition asks for it."""

    converted: Converted

    @property
    def joined(self) -> frozenset[str]:
        """Tensors that are none of the file."""
        graph, places = self.converted.graph, self.converted.places
        made = {name for op in graph.ops for name in op.outputs}
        known = {*self.converted.model.shapes, *self.converted.model.types}
        return frozenset(name for name in made if name not in places and name not in known)

    def kernels(self, op: SourceOp, graph: Graph) -> tuple[str, str]:
        """Return what computes an operator on the host."""
        return ONNXRUNTIME, ""

    def cut(
        self,
        model: SourceModel,
        numbers: Sequence[int],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> bytes:
        """Return an ``.onnx`` file of what leads from some tensors to others."""
        return _Cutter(self.converted).cut(inputs, outputs)

    def is_unset(self, tensor: Tensor) -> bool:
        """Whether the file has no value for a tensor; models have no variables."""
        return not tensor.is_constant


class _Cutter:
    def __init__(self, converted: Converted) -> None:
        self._converted = converted
        self._model = converted.model
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def cut(self, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        from onnx import helper, numpy_helper

        graph = self._model.proto.graph
        tensors = self._converted.graph.tensors
        known = {self._file(name) for name in inputs}
        own = self._between([self._file(name) for name in outputs], known)
        begin, done = list[Any](), set[str]()
        self._nodes = begin
        for number, name in enumerate(inputs):
            file = self._file(name)
            if file not in done:
                self._enter(f"celosia_in{number}", file, self._converted.places.get(name))
            done.add(file)
        middle = [graph.node[index] for index in own]
        end = list[Any]()
        self._nodes = end
        for number, name in enumerate(outputs):
            place = self._converted.places.get(name)
            self._leave(self._file(name), f"celosia_out{number}", place)
        nodes = [*begin, *middle, *end]
        read = {name for node in nodes for name in node.input}
        written = {name for node in nodes for name in node.output}
        for name in read & self._model.constants.keys() - written:
            self._constants.setdefault(name, self._model.constants[name])

        def info(prefix: str, number: int, name: str) -> Any:
            tensor = tensors[name]
            dtype = tensor.dtype.numpy
            if dtype is None:
                raise UnsupportedError(
                    f"cannot compile model {self._model.file}",
                    f"tensor {name!r}, between NPU and host, is {tensor.dtype}",
                    file=self._model.file,
                    tensor=name,
                )
            kind = helper.np_dtype_to_tensor_dtype(dtype.newbyteorder("="))
            return helper.make_tensor_value_info(f"{prefix}{number}", kind, tensor.shape)

        built = helper.make_graph(
            nodes,
            "host",
            [info("celosia_in", number, name) for number, name in enumerate(inputs)],
            [info("celosia_out", number, name) for number, name in enumerate(outputs)],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in sorted(self._constants.items())],
        )
        proto = self._model.proto
        opsets = list(proto.opset_import)
        if not any(entry.domain == MICROSOFT for entry in opsets):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(built, opset_imports=opsets, ir_version=proto.ir_version)
        model.functions.extend(proto.functions)
        return bytes(model.SerializeToString(deterministic=True))

    def _file(self, name: str) -> str:
        place = self._converted.places.get(name)
        return name if place is None else place.file

    def _between(self, wanted: Sequence[str], known: set[str]) -> list[int]:
        """Return the nodes that lead to some tensors, in the file's order."""
        writer = {n: node for node in self._model.nodes for n in node.outputs if n}
        found: set[int] = set()
        left, seen = list(wanted), set(known)
        while left:
            name = left.pop()
            if name in seen or name in self._model.constants:
                continue
            seen.add(name)
            node = writer.get(name)
            if node is not None:
                found.add(node.index)
                left += [n for n in node.inputs if n]
        return sorted(found)

    def _enter(self, source: str, file: str, place: Place | None) -> None:
        """Bring a tensor of the graph into the file's form."""
        if place is None:
            self._add("Identity", [source], file)
            return
        shape = self._constant(f"{source}_shape", np.array(place.own_shape, np.int64))
        self._add("Reshape", [source, shape], f"{source}_whole")
        last = f"{source}_turned" if place.offset else file
        self._turned(f"{source}_whole", last, inverse(place.permutation))
        if place.offset:
            self._shifted(last, file, place.offset, "UINT8")

    def _leave(self, file: str, result: str, place: Place | None) -> None:
        """Bring a tensor of the file into the graph's form."""
        if place is None:
            self._add("Identity", [file], result)
            return
        source = file
        if place.offset:
            source = f"{result}_signed"
            self._shifted(file, source, -place.offset, "INT8")
        self._turned(source, f"{result}_turned", place.permutation)
        shape = self._constant(f"{result}_shape", np.array(place.given_shape, np.int64))
        self._add("Reshape", [f"{result}_turned", shape], result)

    def _turned(self, source: str, result: str, permutation: tuple[int, ...]) -> None:
        # A scalar has no axes, and an empty list would be no attribute.
        options = {"perm": list(permutation)} if permutation else {}
        self._add("Transpose", [source], result, **options)

    def _shifted(self, source: str, result: str, offset: int, kind: str) -> None:
        from onnx import TensorProto

        wide = self._constant(f"{result}_offset", np.array(offset, np.int32))
        self._add("Cast", [source], f"{result}_wide", to=TensorProto.INT32)
        self._add("Add", [f"{result}_wide", wide], f"{result}_sum")
        self._add("Cast", [f"{result}_sum"], result, to=getattr(TensorProto, kind))

    def _constant(self, name: str, value: Any) -> str:
        self._constants[name] = value
        return name

    def _add(self, kind: str, inputs: list[str], result: str, **options: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [result], **options))
