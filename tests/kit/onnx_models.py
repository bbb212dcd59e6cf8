"""Small quantised ONNX models: one operator, or a few, of random shapes and quantisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.sw.reference.onnx import saturates

__all__ = ["NodeBuilder", "OnnxBuilder", "needs_whole_sums", "onnxruntime_results"]

Array = npt.NDArray[Any]

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

needs_whole_sums = pytest.mark.skipif(
    saturates(), reason="onnxruntime loses sums beyond 16 bits on this processor"
)
"""Of tests that hold something to onnxruntime."""


@dataclass
class NodeBuilder:
    """Nodes and constants of a graph under construction.

    Parameters
    ----------
    rng : numpy Generator
        Whatever is random is drawn from it.
    """

    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list, kw_only=True)
    initial: list[Any] = field(default_factory=list, kw_only=True)

    def constant(self, value: Any, name: str = "") -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        name = name or f"c{len(self.initial)}"
        self.initial.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(
        self, kind: str, inputs: Sequence[str], count: int = 1, domain: str = "", **options: Any
    ) -> str | list[str]:
        """Add a node; return what it writes."""
        from onnx import helper

        names = [f"t{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(
            helper.make_node(
                kind, list(inputs), names, name=f"n{len(self.nodes)}", domain=domain, **options
            )
        )
        return names[0] if count == 1 else names

    @staticmethod
    def _one(found: str | list[str]) -> str:
        assert isinstance(found, str)
        return found


@dataclass
class OnnxBuilder(NodeBuilder):
    """Builds a model node by node.

    Parameters
    ----------
    rng : numpy Generator
        Scales, zero points and weights are drawn from it.
    dtype : type
        Of activations: int8 or uint8.
    qdq : bool
        Operators in floating point between DequantizeLinear and QuantizeLinear, and not QLinear
        ones.
    per_channel : bool
        Weights have a scale a channel.
    """

    dtype: type = np.int8
    qdq: bool = True
    per_channel: bool = True
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    known: dict[str, tuple[np.float32, int]] = field(default_factory=dict)

    def quantisation(self, low: float = 0.01, high: float = 0.1) -> tuple[np.float32, int]:
        """Draw a scale and a zero point."""
        limits = np.iinfo(self.dtype)
        scale = np.float32(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        return scale, int(self.rng.integers(limits.min // 2, limits.max // 2 + 1))

    def input(self, shape: Sequence[int], name: str = "") -> str:
        """Add an input of codes."""
        from onnx import helper

        name = name or f"x{len(self.inputs)}"
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        self.known[name] = self.quantisation()
        return name

    def output(self, name: str) -> None:
        """Make a tensor of codes an output."""
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def parameters(self, name: str) -> tuple[str, str]:
        """Add the scale and the zero point of a tensor."""
        scale, zero = self.known[name]
        return self.constant(scale), self.constant(np.array(zero, self.dtype))

    def dequantised(self, name: str) -> str:
        """Add a DequantizeLinear of codes."""
        return self._one(self.node("DequantizeLinear", [name, *self.parameters(name)]))

    def quantised(self, name: str, quantisation: tuple[np.float32, int] | None = None) -> str:
        """Add a QuantizeLinear; return the codes."""
        scale, zero = quantisation or self.quantisation()
        operands = [name, self.constant(scale), self.constant(np.array(zero, self.dtype))]
        codes = self._one(self.node("QuantizeLinear", operands))
        self.known[codes] = scale, zero
        return codes

    def weights(self, shape: Sequence[int], axis: int) -> tuple[str, str, str, Array]:
        """Add int8 weights: names of codes, scales and zero points, and the scales."""
        count = shape[axis] if self.per_channel else 1
        scales = np.exp(self.rng.uniform(np.log(0.002), np.log(0.02), count)).astype(np.float32)
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        zeros = np.zeros(count, np.int8)
        shape_ = (count,) if self.per_channel else ()
        names = [self.constant(one.reshape(shape_)) for one in (scales, zeros)]
        return self.constant(codes), names[0], names[1], scales.reshape(shape_)

    def weighted(
        self,
        kind: str,
        source: str,
        shape: Sequence[int],
        axis: int,
        channels: int,
        depth: int,
        clamp: Sequence[float] | None = None,
        float_bias: bool = False,
        **options: Any,
    ) -> str:
        """Add Conv, Gemm or MatMul with constant weights, and a bias unless it is a MatMul.

        With `float_bias` it is in floating point, in a QDQ graph.
        """
        codes, scales, zeros, values = self.weights(shape, axis)
        scale, zero = self.known[source]
        bias = ""
        if kind != "MatMul":
            steps = self.rng.integers(-(1 << 11), 1 << 11, channels).astype(np.int32)
            bias = self.constant(steps)
        # Most sums are within the result's range.
        spread = 74.0 * 74.0 * np.sqrt(depth) * float(scale) * float(np.mean(values))
        out = np.float32(spread / self.rng.uniform(40, 120)), self.quantisation()[1]
        if self.qdq:
            w = self._one(self.node("DequantizeLinear", [codes, scales, zeros], axis=axis))
            operands = [self.dequantised(source), w]
            if float_bias:
                drawn = self.rng.normal(0, 0.05 * spread, channels).astype(np.float32)
                operands.append(self.constant(drawn))
            elif bias:
                both = (np.float32(scale) * values).astype(np.float32)
                zero_bias = self.constant(np.zeros(np.shape(both), np.int32))
                parameters = [bias, self.constant(both), zero_bias]
                operands.append(self._one(self.node("DequantizeLinear", parameters, axis=0)))
            real = self._one(self.node(kind, operands, **options))
            if clamp is not None:
                ends = [self.constant(np.float32(end)) for end in clamp]
                real = self._one(self.node("Clip", [real, *ends]))
            return self.quantised(real, out)
        out_names = [self.constant(out[0]), self.constant(np.array(out[1], self.dtype))]
        head = [source, *self.parameters(source), codes, scales, zeros]
        if kind == "Gemm":
            name = self.node("QGemm", [*head, bias, *out_names], domain="com.microsoft", **options)
        else:
            tail = [bias] if bias else []
            name = self.node(f"QLinear{kind}", [*head, *out_names, *tail], **options)
        codes_name = self._one(name)
        self.known[codes_name] = out
        return codes_name

    def unary(
        self,
        kind: str,
        source: str,
        extra: Sequence[str] = (),
        out: tuple[np.float32, int] | None = None,
        named: bool = False,
        **options: Any,
    ) -> str:
        """Add an operator of one tensor; `named`: there is a QLinear one of it."""
        if self.qdq or not named:
            real = self._one(self.node(kind, [self.dequantised(source), *extra], **options))
            return self.quantised(real, out)
        quantisation = out or self.quantisation()
        scale, zero = quantisation
        tail = [self.constant(scale), self.constant(np.array(zero, self.dtype))]
        operands = [source, *self.parameters(source), *tail]
        name = self._one(self.node(f"QLinear{kind}", operands, domain="com.microsoft", **options))
        self.known[name] = quantisation
        return name

    def binary(
        self, kind: str, a: str, b: str, out: tuple[np.float32, int], named: bool = True
    ) -> str:
        """Add an operator of two tensors."""
        if self.qdq or not named:
            real = self._one(self.node(kind, [self.dequantised(a), self.dequantised(b)]))
            return self.quantised(real, out)
        tail = [self.constant(out[0]), self.constant(np.array(out[1], self.dtype))]
        operands = [a, *self.parameters(a), b, *self.parameters(b), *tail]
        name = self._one(self.node(f"QLinear{kind}", operands, domain="com.microsoft"))
        self.known[name] = out
        return name

    def moved(self, kind: str, source: str, extra: Sequence[str] = (), **options: Any) -> str:
        """Add an operator that moves codes."""
        name = self._one(self.node(kind, [source, *extra], **options))
        self.known[name] = self.known[source]
        return name

    def model(self, opset: int = 17) -> bytes:
        """Return the model's file."""
        from onnx import helper

        graph = helper.make_graph(self.nodes, "random", self.inputs, self.outputs, self.initial)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        content: bytes = model.SerializeToString()
        return content


def onnxruntime_results(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return a model's outputs as onnxruntime computes them, int8 layers by integer kernels."""
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))
