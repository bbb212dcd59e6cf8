"""Ten small networks of different kinds, and how onnxruntime's own tool quantises them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.kit.onnx_models import NodeBuilder

__all__ = ["NETWORKS", "VARIANTS", "FloatModel", "Variant", "float_model", "quantise"]

Array = npt.NDArray[Any]
F = np.float32
OPSET = 20


@dataclass
class FloatModel(NodeBuilder):
    """A network in floating point, with random weights, built node by node."""

    inputs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def input(self, *shape: int) -> str:
        """Add an input; return its name."""
        self.inputs.append((f"x{len(self.inputs)}", shape))
        return self.inputs[-1][0]

    def op(self, kind: str, *inputs: str, **options: Any) -> str:
        """Add a node; return the name of its result."""
        return self._one(self.node(kind, inputs, **options))

    def drawn(self, *shape: int, depth: int = 1) -> str:
        """Add random weights that keep the size of what they are multiplied with."""
        return self.constant((self.rng.standard_normal(shape) / np.sqrt(depth)).astype(F))

    def conv(
        self,
        x: str,
        cin: int,
        cout: int,
        *kernel: int,
        group: int = 1,
        stride: int = 1,
        dilation: int = 1,
    ) -> str:
        """Add a convolution that keeps the size of the image, but for its stride."""
        depth = cin // group * int(np.prod(kernel))
        w, b = self.drawn(cout, cin // group, *kernel, depth=depth), self.drawn(cout, depth=25)
        pads = [dilation * (size // 2) for size in kernel]
        rank = len(kernel)
        return self.op(
            "Conv",
            x,
            w,
            b,
            kernel_shape=list(kernel),
            pads=pads * 2,
            group=group,
            strides=[stride] * rank,
            dilations=[dilation] * rank,
        )

    def relu(self, x: str) -> str:
        """Add a Relu."""
        return self.op("Relu", x)

    def relu6(self, x: str) -> str:
        """Add a Clip to 0 to 6."""
        return self.op("Clip", x, self.constant(F(0)), self.constant(F(6)))

    def dense(self, x: str, depth: int, count: int) -> str:
        """Add a Gemm with a bias."""
        return self.op(
            "Gemm", x, self.drawn(count, depth, depth=depth), self.drawn(count, depth=25), transB=1
        )

    def matmul(self, x: str, depth: int, count: int) -> str:
        """Add a MatMul by constant weights, and a bias behind it."""
        y = self.op("MatMul", x, self.drawn(depth, count, depth=depth))
        return self.op("Add", y, self.drawn(count, depth=25))

    def sample(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw an input."""
        return {name: rng.standard_normal(shape).astype(F) for name, shape in self.inputs}

    def proto(self) -> Any:
        """Return the model."""
        from onnx import TensorProto, helper, shape_inference

        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.inputs],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in self.outputs],
            self.initial,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return shape_inference.infer_shapes(model, strict_mode=True)


def ds_cnn(m: FloatModel) -> None:
    """Depthwise separable convolutions, as keyword spotting has them."""
    x = m.relu(m.conv(m.input(1, 1, 20, 10), 1, 16, 5, 3, stride=2))
    for _ in range(2):
        x = m.relu(m.conv(x, 16, 16, 3, 3, group=16))
        x = m.relu(m.conv(x, 16, 16, 1, 1))
    x = m.op("Flatten", m.op("GlobalAveragePool", x))
    m.outputs.append(m.op("Softmax", m.dense(x, 16, 12)))


def resnet(m: FloatModel) -> None:
    """Residual blocks with batch normalisation, one with a convolution on its shortcut."""

    def normalised(x: str, count: int) -> str:
        shift, mean = m.drawn(count, depth=9), m.drawn(count, depth=9)
        scale, variance = (m.constant(m.rng.uniform(0.5, 1.5, count).astype(F)) for _ in range(2))
        return m.op("BatchNormalization", x, scale, shift, mean, variance)

    x = m.relu(normalised(m.conv(m.input(1, 3, 12, 12), 3, 8, 3, 3), 8))
    y = m.relu(normalised(m.conv(x, 8, 8, 3, 3), 8))
    x = m.relu(m.op("Add", normalised(m.conv(y, 8, 8, 3, 3), 8), x))
    y = m.relu(normalised(m.conv(x, 8, 16, 3, 3, stride=2), 16))
    y = normalised(m.conv(y, 16, 16, 3, 3), 16)
    x = m.relu(m.op("Add", y, m.conv(x, 8, 16, 1, 1, stride=2)))
    x = m.op("AveragePool", x, kernel_shape=[6, 6])
    shape = m.constant(np.array([1, 16]))
    m.outputs.append(m.dense(m.op("Reshape", x, shape), 16, 10))


def mobilenet(m: FloatModel) -> None:
    """Inverted residuals, as MobileNetV2 has them."""
    x = m.relu6(m.conv(m.input(1, 3, 16, 16), 3, 8, 3, 3, stride=2))
    for stride in (1, 2):
        y = m.relu6(m.conv(x, 8, 24, 1, 1))
        y = m.relu6(m.conv(y, 24, 24, 3, 3, group=24, stride=stride))
        y = m.conv(y, 24, 8, 1, 1)
        x = m.op("Add", x, y) if stride == 1 else y
    x = m.relu6(m.conv(x, 8, 32, 1, 1))
    x = m.op("ReduceMean", x, m.constant(np.array([2, 3])), keepdims=0)
    m.outputs.append(m.dense(x, 32, 10))


def unet(m: FloatModel) -> None:
    """Encoder and decoder with a skip: half of the way up by ConvTranspose, half by Resize."""
    top = m.relu(m.conv(m.input(1, 3, 16, 16), 3, 8, 3, 3))
    middle = m.op("MaxPool", top, kernel_shape=[2, 2], strides=[2, 2])
    middle = m.relu(m.conv(middle, 8, 12, 3, 3))
    x = m.op("MaxPool", middle, kernel_shape=[2, 2], strides=[2, 2])
    x = m.relu(m.conv(x, 12, 16, 3, 3))
    x = m.op("ConvTranspose", x, m.drawn(16, 12, 2, 2, depth=16), strides=[2, 2])
    x = m.relu(m.conv(m.op("Concat", x, middle, axis=1), 24, 12, 3, 3))
    scales = m.constant(np.array([1, 1, 2, 2], F))
    x = m.op("Resize", x, "", scales, mode="nearest", nearest_mode="floor")
    x = m.relu(m.conv(m.op("Concat", x, top, axis=1), 20, 8, 3, 3))
    m.outputs.append(m.op("Sigmoid", m.conv(x, 8, 1, 1, 1)))


def conv_1d(m: FloatModel) -> None:
    """Convolutions over time, with growing dilation."""
    x = m.relu(m.conv(m.input(1, 6, 48), 6, 12, 5, stride=2))
    for dilation in (1, 2, 4):
        x = m.op("Add", x, m.relu(m.conv(x, 12, 12, 3, dilation=dilation)))
    x = m.op("MaxPool", x, kernel_shape=[2], strides=[2])
    x = m.op("Flatten", m.conv(x, 12, 4, 1))
    m.outputs.append(m.dense(x, 48, 6))


def mlp(m: FloatModel) -> None:
    """Dense layers of different activations; a batch normalised between."""
    x = m.relu(m.dense(m.input(1, 40), 40, 32))
    x = m.op("Tanh", m.dense(x, 32, 24))
    x = m.op("LeakyRelu", m.matmul(x, 24, 16), alpha=0.1)
    m.outputs.append(m.dense(x, 16, 4))


def squeeze_excite(m: FloatModel) -> None:
    """Channels weighted by what the whole image says, in both usual forms."""
    x = m.op("HardSwish", m.conv(m.input(1, 3, 10, 10), 3, 16, 3, 3))
    for gate in ("HardSigmoid", "Sigmoid"):
        y = m.relu(m.conv(m.op("GlobalAveragePool", x), 16, 4, 1, 1))
        x = m.op("Mul", x, m.op(gate, m.conv(y, 4, 16, 1, 1)))
        x = m.relu(m.conv(x, 16, 16, 3, 3, group=4))
    m.outputs.append(m.conv(x, 16, 5, 1, 1))


def transformer(m: FloatModel) -> None:
    """A block with attention of two heads, normalisation of layers and Gelu."""
    steps, width, heads = 8, 16, 2
    x = m.input(1, steps, width)

    def normalised(x: str) -> str:
        scale = m.constant(m.rng.uniform(0.5, 1.5, width).astype(F))
        return m.op("LayerNormalization", x, scale, m.drawn(width, depth=25), axis=-1)

    def in_heads(y: str, *perm: int) -> str:
        shape = m.constant(np.array([1, steps, heads, width // heads]))
        return m.op("Transpose", m.op("Reshape", y, shape), perm=list(perm))

    y = normalised(x)
    query, key, value = (m.matmul(y, width, width) for _ in range(3))
    score = m.op("MatMul", in_heads(query, 0, 2, 1, 3), in_heads(key, 0, 2, 3, 1))
    score = m.op("Softmax", m.op("Mul", score, m.constant(F(0.35))), axis=-1)
    y = m.op("MatMul", score, in_heads(value, 0, 2, 1, 3))
    y = m.op("Transpose", y, perm=[0, 2, 1, 3])
    y = m.op("Reshape", y, m.constant(np.array([1, steps, width])))
    x = m.op("Add", x, m.matmul(y, width, width))
    y = m.op("Gelu", m.matmul(normalised(x), width, 32))
    x = m.op("Add", x, m.matmul(y, 32, width))
    m.outputs.append(m.op("ReduceMean", x, m.constant(np.array([1])), keepdims=0))


def detector(m: FloatModel) -> None:
    """Two scales that are joined, each with its boxes and classes."""
    fine = m.op("LeakyRelu", m.conv(m.input(1, 3, 16, 16), 3, 8, 3, 3, stride=2), alpha=0.1)
    coarse = m.op("LeakyRelu", m.conv(fine, 8, 16, 3, 3, stride=2), alpha=0.1)
    sizes = m.constant(np.array([1, 1, 2, 2], F))
    up = m.op("Resize", m.conv(coarse, 16, 8, 1, 1), "", sizes, mode="nearest")
    joined = m.op("Concat", up, fine, axis=1)
    heads = [m.conv(coarse, 16, 14, 1, 1), m.conv(joined, 16, 14, 3, 3)]
    flat = []
    for head, size in zip(heads, (16, 64), strict=True):
        shape = m.constant(np.array([1, 7, 2 * size]))
        flat.append(m.op("Reshape", head, shape))
    both = m.op("Transpose", m.op("Concat", *flat, axis=2), perm=[0, 2, 1])
    sizes = m.constant(np.array([4, 3]))
    boxes, classes = list(m.node("Split", [both, sizes], 2, axis=2))
    m.outputs += [boxes, m.op("Sigmoid", classes)]


def recurrent(m: FloatModel) -> None:
    """Four steps of a gated recurrent unit, written out."""
    steps, width, size = 4, 10, 12
    x = m.input(1, steps, width)
    drive = [m.drawn(width, size, depth=width) for _ in range(3)]
    feed = [m.drawn(size, size, depth=size) for _ in range(3)]
    h = m.input(1, size)
    parts = m.node("Split", [x], steps, axis=1, num_outputs=steps)
    one = m.constant(np.array([1, width]))
    for part in parts:
        now = m.op("Reshape", part, one)
        sums = [m.op("MatMul", now, w) for w in drive]
        z, r = (
            m.op("Sigmoid", m.op("Add", s, m.op("MatMul", h, w)))
            for s, w in zip(sums[:2], feed[:2], strict=True)
        )
        new = m.op("Tanh", m.op("Add", sums[2], m.op("Mul", r, m.op("MatMul", h, feed[2]))))
        h = m.op("Add", new, m.op("Mul", z, m.op("Sub", h, new)))
    m.outputs.append(m.dense(h, size, 3))


NETWORKS: dict[str, Callable[[FloatModel], None]] = {
    "ds_cnn": ds_cnn,
    "resnet": resnet,
    "mobilenet": mobilenet,
    "unet": unet,
    "conv_1d": conv_1d,
    "mlp": mlp,
    "squeeze_excite": squeeze_excite,
    "transformer": transformer,
    "detector": detector,
    "recurrent": recurrent,
}
"""The networks by name."""


@dataclass(frozen=True)
class Variant:
    """How a network is quantised."""

    form: str
    activations: str
    per_channel: bool

    def __str__(self) -> str:
        return f"{self.form} {self.activations} {'channel' if self.per_channel else 'tensor'}"


VARIANTS = tuple(
    Variant(form, activations, per_channel)
    for form, activations, per_channel in product(
        ("QDQ", "QOperator"), ("uint8", "int8"), (False, True)
    )
)
"""Both formats, both types of activations, weights by tensor and by channel."""


def float_model(name: str, seed: int = 0) -> FloatModel:
    """Return one of the networks with weights of a seed."""
    m = FloatModel(np.random.default_rng(seed))
    NETWORKS[name](m)
    return m


def quantise(model: FloatModel, variant: Variant, path: Path, *, samples: int = 8) -> Path:
    """Quantise a network as onnxruntime's users do; return the file."""
    import onnx
    from onnxruntime.quantization import (  # type: ignore[import-untyped,unused-ignore]
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(1)
            self._left: Iterator[dict[str, Array]] = (model.sample(rng) for _ in range(samples))

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    source = path.with_suffix(".float.onnx")
    onnx.save(model.proto(), source)
    kinds = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the tool advises to preprocess, which is left out here
    try:
        quantize_static(
            source,
            path,
            Samples(),
            quant_format=getattr(QuantFormat, variant.form),
            per_channel=variant.per_channel,
            activation_type=kinds[variant.activations],
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(level)
        source.unlink()
    return path
