"""Opens an ``.onnx`` file: nodes, constants and shapes, with everything constant worked out.

The file is anybody's. It is parsed by the `onnx` package, its sizes are looked at before anything
is computed, and what is wrong with it is a `ModelError`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError, ModelError, UnsupportedError, printable
from celosia.install import install_advice
from celosia.sw.compiler.frontends.onnx.kernels import MICROSOFT
from celosia.sw.compiler.frontends.onnx.opsets import computable, opset_of

if TYPE_CHECKING:
    import onnx

__all__ = ["Node", "OnnxModel", "first_line", "open_model", "require_onnx"]

Array = npt.NDArray[Any]

DOMAINS = frozenset({"", "ai.onnx", MICROSOFT})
MAX_BYTES = 1 << 30
MAX_NODES = 1 << 14
MAX_RANK = 8
MAX_ELEMENTS = 1 << 25
"""Of a computed tensor: more than any network of a microcontroller has."""
MAX_ACTIVATIONS = 1 << 26
"""Elements of all computed tensors together; a QDQ graph has each several times."""
MAX_FOLDED = 1 << 22
"""Elements of a constant that is worked out here; larger ones are the model's weights."""
MAX_TURNS = 8
"""Rounds of folding: each makes shapes known that the next one needs."""


@dataclass(frozen=True)
class Node:
    """A node of the file.

    Attributes
    ----------
    index : int
        Its place in the file.
    kind : str
        Its operator; those of onnxruntime's own domain have names of their own.
    name : str
        The file's; may be empty.
    inputs, outputs : tuple of str
        Tensor names; an input that is left out is empty.
    options : mapping
        Its attributes.
    """

    index: int
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any]

    def input(self, place: int) -> str:
        """Return the name of an input; empty if there is none."""
        return self.inputs[place] if place < len(self.inputs) else ""


@dataclass(frozen=True)
class OnnxModel:
    """An opened model.

    Attributes
    ----------
    file : str
        What messages call it.
    name : str
        The file's stem.
    proto : ModelProto
        The file, with a batch of one, and external data taken in.
    opset : int
        Version of the standard operators.
    nodes : list of Node
        In the file's order, without those that are constant.
    constants : dict of str to ndarray
        Initialisers, and what follows from them alone.
    shapes : dict of str to tuple of int
        Of the tensors whose shape is known.
    inputs, outputs : list of str
        The model's, without initialisers.
    types : dict of str to numpy.dtype
        Element types, as far as they are known.
    """

    file: str
    name: str
    proto: onnx.ModelProto
    opset: int
    nodes: list[Node]
    constants: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    inputs: list[str]
    outputs: list[str]
    types: dict[str, np.dtype[Any]] = field(default_factory=dict)


def require_onnx() -> None:
    """Refuse to read a model where the packages for that are missing.

    Raises
    ------
    UnsupportedError
        Saying what to install.
    """
    lacking = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if lacking:
        raise UnsupportedError(
            "cannot read .onnx models",
            f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed",
            install_advice("onnx"),
        )


def open_model(source: str | os.PathLike[str] | bytes) -> OnnxModel:
    """Open a model.

    Raises
    ------
    ModelError
        If the file cannot be read, is no ONNX model, or contradicts itself.
    UnsupportedError
        If it is of a kind that is not read: dynamic shapes, an old opset, control flow, too large.
    """
    require_onnx()
    proto, file, name = _parsed(source)
    if len(proto.graph.node) > MAX_NODES:
        raise _refused(file, f"it has {len(proto.graph.node)} nodes, at most {MAX_NODES} are read")
    _fix_shapes(proto, file)
    return _Folding(proto, file, name).model()


def _parsed(source: str | os.PathLike[str] | bytes) -> tuple[onnx.ModelProto, str, str]:
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    if isinstance(source, bytes):
        content, file, name, folder = source, "<bytes>", "model", None
    else:
        path = Path(source)
        file, name, folder = printable(str(path)), printable(path.stem), path.parent
        try:
            if not path.is_file():
                cause = "it is not a regular file" if path.exists() else "there is no such file"
                raise ModelError(
                    f"cannot read model {file}",
                    cause,
                    "check the path and its permissions",
                    file=str(path),
                )
            if path.stat().st_size > MAX_BYTES:
                raise _refused(file, f"it has {path.stat().st_size} bytes")
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot read model {file}",
                printable(str(error)),
                "check the path and its permissions",
                file=str(path),
            ) from error
    try:
        proto = onnx.load_model_from_string(content)
        outside = [
            tensor
            for tensor in proto.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        ]
        if outside and folder is None:
            raise ModelError(
                f"cannot read model {file}",
                "its weights are in another file",
                "give the path of the model, with that file beside it",
                file=file,
            )
        if outside:
            _check_outside(outside, folder or Path(), file)
            load_external_data_for_model(proto, str(folder))
        for value in proto.graph.output:
            # The checker wants a shape, onnxruntime does not; what it says is inferred anew.
            value.type.tensor_type.shape.SetInParent()
        _check_names(proto)
        proto = computable(proto, file)
        onnx.checker.check_model(proto, check_custom_domain=False)
    except CelosiaError:
        raise
    except Exception as error:  # whatever the package raises, the file is why
        raise _damaged(file, first_line(error)) from error
    return proto, file, name


def _check_names(proto: onnx.ModelProto) -> None:
    """Refuse names that are no text: they are bytes then."""
    graph = proto.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name is no text")


def _check_outside(tensors: Sequence[Any], folder: Path, file: str) -> None:
    """Refuse data outside the model's folder, or that is not there, before it is read."""
    sizes: dict[Path, int] = {}
    root = folder.resolve()
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = (root / entries.get("location", "")).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise ModelError(
                f"cannot read model {file}",
                f"the data of {printable(tensor.name)!r} should be in"
                f" {printable(entries.get('location', ''))!r}, which is not beside it",
                "put the file with the weights into the model's folder",
                file=file,
                tensor=tensor.name,
            )
        sizes[path] = path.stat().st_size
    if sum(sizes.values()) > MAX_BYTES:
        raise _refused(file, f"its external data have {sum(sizes.values())} bytes")


def _fix_shapes(proto: onnx.ModelProto, file: str) -> None:
    """Give inputs a batch of one where it is free; refuse other free sizes."""
    initial = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in initial:
            continue
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise _refused(file, f"input {printable(value.name)!r} has no shape", _FIXED)
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.WhichOneof("value") == "dim_value" and size.dim_value > 0:
                continue
            if axis:
                what = size.dim_param or "?"
                raise _refused(
                    file,
                    f"input {printable(value.name)!r} has the free size {printable(what)!r} along"
                    f" axis {axis}",
                    _FIXED,
                )
            size.Clear()
            size.dim_value = 1
    # What the file says of other tensors may have the free sizes still.
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


_FIXED = (
    "fix it: python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name NAME"
    " --input_shape 1,3,96,96 MODEL.onnx FIXED.onnx"
)


class _Folding:
    """Works out what is constant, and the shapes of the rest."""

    def __init__(self, proto: onnx.ModelProto, file: str, name: str) -> None:
        from onnx import numpy_helper

        self._proto, self._file, self._name = proto, file, name
        graph = proto.graph
        self._constants: dict[str, Array] = {}
        try:
            for tensor in graph.initializer:
                array = numpy_helper.to_array(tensor)
                array.flags.writeable = False
                self._constants[tensor.name] = array
        except Exception as error:
            raise _damaged(file, f"initialiser: {first_line(error)}") from error
        if graph.sparse_initializer:
            raise _refused(file, "it has sparse initialisers", "store them dense")
        self._nodes = [self._node(index, node) for index, node in enumerate(graph.node)]
        self._protos = {index: node for index, node in enumerate(graph.node)}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, np.dtype[Any]] = {}

    def _node(self, index: int, node: Any) -> Node:
        from onnx import helper

        if node.domain not in DOMAINS:
            domain = printable(node.domain)
            raise _refused(
                self._file,
                f"node {index} ({printable(node.op_type)}) is of the domain {domain!r}",
                "export it with standard operators",
            )
        options: dict[str, Any] = {}
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise _refused(
                    self._file,
                    f"node {index} ({printable(node.op_type)}) is control flow",
                    "export one inference function without If, Loop or Scan",
                )
            value = helper.get_attribute_value(attribute)
            options[attribute.name] = (
                value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            )
        return Node(
            index=index,
            kind=node.op_type,
            name=printable(node.name),
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            options=options,
        )

    def model(self) -> OnnxModel:
        """Fold until nothing more becomes constant."""
        for _ in range(MAX_TURNS):
            self._infer()
            before = len(self._constants)
            self._fold()
            if len(self._constants) == before:
                break
        total = sum(
            prod(self._shapes.get(name, ()))
            for node in self._nodes
            for name in node.outputs
            if name not in self._constants
        )
        if total > MAX_ACTIVATIONS:
            raise _refused(
                self._file,
                f"it has {total} elements in its activations; at most {MAX_ACTIVATIONS} are"
                " supported",
                "give a network of a size that a microcontroller runs",
            )
        graph = self._proto.graph
        nodes = [
            node
            for node in self._nodes
            if not all(name in self._constants for name in node.outputs if name)
        ]
        return OnnxModel(
            file=self._file,
            name=self._name,
            proto=self._proto,
            opset=opset_of(self._proto),
            nodes=nodes,
            constants=self._constants,
            shapes=self._shapes,
            inputs=[v.name for v in graph.input if v.name not in self._constants],
            outputs=list(dict.fromkeys(v.name for v in graph.output)),
            types=self._types,
        )

    def _infer(self) -> None:
        import onnx
        from onnx import helper, numpy_helper, shape_inference

        shadow = onnx.ModelProto()
        shadow.ir_version = self._proto.ir_version
        shadow.opset_import.extend(
            entry for entry in self._proto.opset_import if entry.domain in ("", "ai.onnx")
        )
        graph = shadow.graph
        graph.name = "shapes"
        graph.input.extend(v for v in self._proto.graph.input if v.name not in self._constants)
        for name, array in self._constants.items():
            if array.size <= 1 << 10:
                graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        for node in self._nodes:
            if not all(name in self._constants for name in node.outputs if name):
                graph.node.append(_standard(node, self._protos[node.index]))
        try:
            found = shape_inference.infer_shapes(
                shadow, check_type=False, strict_mode=False, data_prop=True
            )
        except Exception as error:
            raise _damaged(self._file, first_line(error)) from error
        for value in (*found.graph.input, *found.graph.value_info):
            self._learn(value)

    def _learn(self, value: Any) -> None:
        from onnx import helper

        tensor = value.type.tensor_type
        if tensor.elem_type:
            try:
                self._types[value.name] = np.dtype(
                    helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                )
            except (KeyError, TypeError):
                return
        if not tensor.HasField("shape"):
            return
        sizes = [size.dim_value for size in tensor.shape.dim if size.HasField("dim_value")]
        if len(sizes) != len(tensor.shape.dim):
            return
        if len(sizes) > MAX_RANK or prod(max(size, 1) for size in sizes) > MAX_ELEMENTS:
            raise _refused(
                self._file,
                f"tensor {printable(value.name)!r} has the shape {sizes[:12]}",
                "give a network of a size that a microcontroller runs",
            )
        self._shapes[value.name] = tuple(int(size) for size in sizes)

    def _fold(self) -> None:
        for node in self._nodes:
            if not node.outputs or all(name in self._constants for name in node.outputs if name):
                continue
            if node.kind == "Shape" and node.inputs[0] in self._shapes:
                sizes = self._shapes[node.inputs[0]]
                first, last = node.options.get("start", 0), node.options.get("end")
                self._constants[node.outputs[0]] = np.array(sizes[first:last], np.int64)
                continue
            if node.kind in _NEVER_FOLDED or not all(
                name in self._constants for name in node.inputs if name
            ):
                continue
            shapes = [self._shapes.get(name) for name in node.outputs if name]
            if node.kind != "Constant" and any(
                shape is None or prod(shape) > MAX_FOLDED for shape in shapes
            ):
                continue
            self._evaluate(node)

    def _evaluate(self, node: Node) -> None:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        given = [name for name in node.inputs if name]
        graph = helper.make_graph(
            [self._protos[node.index]],
            "constant",
            [
                helper.make_tensor_value_info(
                    name,
                    helper.np_dtype_to_tensor_dtype(self._constants[name].dtype),
                    self._constants[name].shape,
                )
                for name in dict.fromkeys(given)
            ],
            [helper.make_empty_tensor_value_info(name) for name in node.outputs if name],
        )
        model = helper.make_model(graph, opset_imports=self._proto.opset_import)
        try:
            values = ReferenceEvaluator(model).run(
                None, {name: self._constants[name] for name in given}
            )
        except Exception:  # then it is left as it is, for whoever runs it
            return
        for name, value in zip((n for n in node.outputs if n), values, strict=True):
            array = np.asarray(value)
            array.flags.writeable = False
            self._constants[name] = array


_NEVER_FOLDED = frozenset(
    {"DequantizeLinear", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"}
)
"""Weights stay what they are; what is random is no constant."""

_FLOAT_TWINS = {
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Sigmoid", (0,)),
    "QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "QLinearSoftmax": ("Softmax", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QGemm": ("Gemm", (0, 3)),
    "Gelu": ("Identity", (0,)),
    "BiasGelu": ("Identity", (0,)),
    "FastGelu": ("Identity", (0,)),
    "QuickGelu": ("Identity", (0,)),
    "QuantizeLinear": ("QuantizeLinear", (0, 1, 2)),
    "DequantizeLinear": ("DequantizeLinear", (0, 1, 2)),
}
"""Standard operators whose results have the shape of onnxruntime's own, and which inputs count."""
_NOT_OF_TWINS = frozenset({"channels_last", "opset"})


def _standard(node: Node, proto: Any) -> Any:
    """Return a node that `onnx` knows the result's shape of."""
    import onnx

    if proto.domain != MICROSOFT:
        return proto
    twin = onnx.NodeProto()
    twin.CopyFrom(proto)
    twin.domain = ""
    if node.kind == "QLinearConcat":
        twin.op_type, places = "Concat", tuple(range(2, len(node.inputs), 3))
    elif node.kind in _FLOAT_TWINS:
        twin.op_type, places = _FLOAT_TWINS[node.kind]
    else:
        return proto
    del twin.input[:]
    twin.input.extend(node.inputs[place] for place in places if place < len(node.inputs))
    kept = [entry for entry in twin.attribute if entry.name not in _NOT_OF_TWINS]
    del twin.attribute[:]
    if twin.op_type not in ("Identity",):
        twin.attribute.extend(kept)
    return twin


def first_line(error: Exception) -> str:
    """Return what a package says of a file, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0] if lines else type(error).__name__)


def _damaged(file: str, cause: str) -> ModelError:
    return ModelError(
        f"cannot read model {file}",
        f"it is no sound ONNX model: {cause}",
        "export the model again",
        file=file,
    )


def _refused(file: str, cause: str, remedy: str = "") -> UnsupportedError:
    return UnsupportedError(f"cannot compile model {file}", cause, remedy, file=file)
