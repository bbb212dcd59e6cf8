"""The ONNX project's own tests of single operators: as they are, and in quantised form."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "FLOAT_KINDS",
    "NodeTest",
    "quantised_form",
    "quantised_tests",
    "float_tests",
    "with_constants",
]

Array = npt.NDArray[Any]

FLOAT_KINDS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Resize"),
    *("Clip", "Relu", "LeakyRelu", "PRelu", "Elu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh"),
    *("Gelu", "BatchNormalization", "LayerNormalization", "Softmax"),
    *("Pad", "Concat", "Slice", "Split", "Transpose", "Reshape", "Flatten", "DepthToSpace"),
    *("Add", "Sub", "Mul", "Max", "Min"),
)
"""Operators in floating point that have a quantised form."""
_OF_TENSORS = frozenset({"Add", "Concat", "Max", "MatMul", "Min", "Mul", "Sub"})
"""All of whose operands are computed."""
_OF_CODES = frozenset(
    {
        *("Concat", "DepthToSpace", "GlobalMaxPool", "MaxPool", "Pad", "Slice", "Split"),
    }
)
"""Operators whose result has the scale of what they move."""
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_TYPES = frozenset({1, 2, 3, 6, 7})
"""float32, uint8, int8, int32, and int64 for shapes."""
LEAST_OPSET = 13


@dataclass(frozen=True)
class NodeTest:
    """A test: its model, what it is given and what must come out."""

    name: str
    model: Any
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]

    @property
    def kind(self) -> str:
        """The operator."""
        return str(self.model.graph.node[0].op_type)


@cache
def _all() -> tuple[NodeTest, ...]:
    import onnx
    from onnx.backend.test.loader import load_model_tests

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their arrays have overflows and divisions by zero
        tests = load_model_tests(kind="node")
    for test in tests:
        model = test.model
        if model is None:
            model = onnx.load(f"{test.model_dir}/model.onnx")
        values = [*model.graph.input, *model.graph.output]
        if (
            not {value.type.tensor_type.elem_type for value in values} <= _TYPES
            or not test.data_sets
        ):
            continue
        inputs, outputs = (tuple(np.asarray(v) for v in part) for part in test.data_sets[0])
        found.append(NodeTest(test.name, model, inputs, outputs))
    return tuple(found)


def quantised_tests() -> list[NodeTest]:
    """Return the tests of quantised operators with types of 8 bits, 32 bits and float32."""
    kinds = r"test_(qlinear|convinteger|matmulinteger|quantizelinear|dequantizelinear|dynamicquant)"
    return [test for test in _all() if re.match(kinds, test.name)]


def float_tests(kind: str) -> Iterator[NodeTest]:
    """Return the tests of an operator in floating point that is alone in its model."""
    for test in _all():
        (first, *others), outputs = test.model.graph.node, test.outputs
        if others or first.op_type != kind or not test.inputs:
            continue
        floats = all(value.dtype == np.float32 and value.size for value in outputs)
        if floats and test.inputs[0].dtype == np.float32 and test.inputs[0].ndim:
            yield test


def with_constants(test: NodeTest) -> NodeTest:
    """Return a quantised test whose scales, zero points and weights are constants.

    In the tests themselves they are inputs.
    """
    from onnx import numpy_helper

    model = type(test.model)()
    model.CopyFrom(test.model)
    names = [value.name for value in model.graph.input]
    for name, value in list(zip(names, test.inputs, strict=True))[1:]:
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    del model.graph.input[1:]
    return NodeTest(test.name, model, test.inputs[:1], test.outputs)


def _scale_of(values: Sequence[Array]) -> tuple[np.float32, np.integer[Any]]:
    """Return scale and zero point of uint8 codes that reach all values."""
    low = min(0.0, *(float(np.nanmin(value)) for value in values))
    high = max(0.0, *(float(np.nanmax(value)) for value in values))
    low, high = max(low, -1e4), min(high, 1e4)
    scale = np.float32((high - low) / 255 or 1.0)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def quantised_form(test: NodeTest) -> tuple[bytes, dict[str, Array]]:
    """Return a QDQ model around the operator of a test, and its inputs as codes of uint8."""
    from onnx import TensorProto, helper, numpy_helper

    (node,) = test.model.graph.node
    nodes: list[Any] = []
    constants: dict[str, Array] = {}
    given: dict[str, Array] = {}
    moves = node.op_type in _OF_CODES
    tensors = [v for v in test.inputs if v.dtype == np.float32]
    common = _scale_of(tensors if node.op_type == "Concat" else tensors[:1])
    operands: list[str] = []
    left = list(test.inputs)
    for place, name in enumerate(node.input):
        if not name:
            operands.append("")
            continue
        value = left.pop(0)
        computed = place == 0 or (node.op_type in _OF_TENSORS and value.dtype == np.float32)
        if not computed and not (node.op_type in _WEIGHTED and place == 1):
            constants[f"c{place}"] = value
            operands.append(f"c{place}")
            continue
        scale, zero = common if moves else _scale_of([value])
        codes = np.clip(np.rint(value / scale) + zero, 0, 255).astype(np.uint8)
        if computed:
            given[f"x{place}"] = codes
        else:
            scale, zero = np.float32(np.max(np.abs(value)) / 127 or 1), np.int8(0)
            constants[f"x{place}"] = np.rint(value / scale).astype(np.int8)
        constants |= {f"scale{place}": np.asarray(scale), f"zero{place}": np.asarray(zero)}
        names = [f"x{place}", f"scale{place}", f"zero{place}"]
        nodes.append(helper.make_node("DequantizeLinear", names, [f"real{place}"]))
        operands.append(f"real{place}")
    results = [f"real_y{place}" for place in range(len(node.output))]
    made = helper.make_node(node.op_type, operands, results, name=test.name, domain=node.domain)
    made.attribute.extend(node.attribute)
    nodes.append(made)
    outputs = []
    for place, value in enumerate(test.outputs):
        scale, zero = common if moves else _scale_of([value])
        constants |= {f"scale_y{place}": np.asarray(scale), f"zero_y{place}": np.asarray(zero)}
        names = [f"real_y{place}", f"scale_y{place}", f"zero_y{place}"]
        nodes.append(helper.make_node("QuantizeLinear", names, [f"y{place}"]))
        outputs.append(helper.make_tensor_value_info(f"y{place}", TensorProto.UINT8, None))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info(n, TensorProto.UINT8, v.shape) for n, v in given.items()],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = max(test.model.opset_import[0].version, LEAST_OPSET)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model.SerializeToString(), given
