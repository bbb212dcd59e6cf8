"""Make the ONNX example: a network that tells four shapes apart, built and trained in numpy.

Needs ``celosia[onnx]``. The network is written as PyTorch exports one, channels second, and
quantised by onnxruntime's own tool; nothing is downloaded, and it takes a few seconds::

    1x16x16 -> conv 3x3 /2, relu -> 16x8x8
            -> depthwise 3x3, relu, pointwise --+
            ------------------------------------+ add -> max pool 2x2 -> 16x4x4
            -> flatten -> fully connected -> 4

The filters are random; only the last layer is fitted, by least squares.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (  # type: ignore[import-untyped,unused-ignore]
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

SHAPES = ("circle", "square", "cross", "triangle")
SIDE, CHANNELS = 16, 16
SEED = 5
TRAINING, HELD_OUT, SAMPLES = 1200, 400, 20

F32 = npt.NDArray[np.float32]


def drawn(rng: np.random.Generator, shape: str) -> F32:
    """Return an image [1, 16, 16] of a shape, somewhere, of some size, with noise."""
    size = rng.uniform(3.5, 6)
    y, x = np.mgrid[:SIDE, :SIDE] - rng.uniform(size + 0.5, SIDE - size - 0.5, 2)[:, None, None]
    inside = {
        "circle": np.abs(np.hypot(y, x) - size) < 1,
        "square": np.abs(np.maximum(abs(y), abs(x)) - size) < 1,
        "cross": (np.minimum(abs(y), abs(x)) < 1) & (np.maximum(abs(y), abs(x)) < size),
        "triangle": (y < size)
        & (y > 2 * abs(x) - size)
        & ~((y < size - 1.5) & (y > 2 * abs(x) - size + 3)),
    }[shape]
    image = inside + rng.normal(0, 0.15, inside.shape)
    return image[None].astype(np.float32)


def images(rng: np.random.Generator, count: int) -> tuple[F32, npt.NDArray[np.int64]]:
    """Return images [n, 1, 16, 16] and the numbers of their shapes."""
    labels = rng.integers(len(SHAPES), size=count)
    return np.stack([drawn(rng, SHAPES[label]) for label in labels]), labels


def network(rng: np.random.Generator, last: F32, bias: F32) -> onnx.ModelProto:
    """Return the network in floating point, with `last` [256, 4] and `bias` [4] behind."""
    initial: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, value: npt.ArrayLike) -> str:
        initial.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(kind: str, *inputs: str, **options: Any) -> str:
        name = f"{kind.lower()}{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], name=f"/{name}/{kind}", **options))
        return name

    def conv(source: str, name: str, cin: int, kernel: int, **options: Any) -> str:
        shape = (CHANNELS, cin, kernel, kernel)
        weights = constant(f"{name}.weight", rng.normal(0, 1 / np.sqrt(cin * kernel**2), shape))
        pads = [kernel // 2] * 4
        more = constant(f"{name}.bias", rng.normal(0, 0.1, CHANNELS))
        return node("Conv", source, weights, more, kernel_shape=[kernel] * 2, pads=pads, **options)

    first = node("Relu", conv("image", "first", 1, 3, strides=[2, 2]))
    deep = node("Relu", conv(first, "depthwise", 1, 3, group=CHANNELS))
    both = node("Add", first, conv(deep, "pointwise", CHANNELS, 1))
    pooled = node("MaxPool", both, kernel_shape=[2, 2], strides=[2, 2])
    flat = node("Flatten", pooled)
    node("Gemm", flat, constant("last.weight", last), constant("last.bias", bias))
    nodes[-1].output[0] = "scores"
    batch = "batch"
    graph = helper.make_graph(
        nodes,
        "shapes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, len(SHAPES)])],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: onnx.ModelProto, inputs: F32, output: str) -> F32:
    """Return a tensor of a model for all inputs."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        whole.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: F32 = session.run([output], {"image": inputs})[0]
    return found


def trained(rng: np.random.Generator) -> onnx.ModelProto:
    """Return the network with its last layer fitted."""
    seed = int(rng.integers(1 << 31))
    size = CHANNELS * (SIDE // 4) ** 2
    empty = np.zeros((size, len(SHAPES)), np.float32), np.zeros(len(SHAPES), np.float32)
    features = network(np.random.default_rng(seed), *empty)
    flat = next(node.output[0] for node in features.graph.node if node.op_type == "Flatten")
    inputs, labels = images(rng, TRAINING)
    known = np.hstack([run(features, inputs, flat), np.ones((TRAINING, 1), np.float32)])
    wanted = np.eye(len(SHAPES))[labels]
    ridge = 3.0 * np.eye(size + 1)
    fitted = np.linalg.solve(known.T @ known + ridge, known.T @ wanted).astype(np.float32)
    return network(np.random.default_rng(seed), fitted[:-1], fitted[-1])


class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
    """Hands typical inputs to the tool that quantises."""

    def __init__(self, inputs: F32) -> None:
        self._left = [{"image": one[None]} for one in inputs]

    def get_next(self) -> dict[str, F32] | None:
        """Return the next input, or None."""
        return self._left.pop() if self._left else None


def main() -> None:
    """Write the model and the samples beside this script, and print how good both models are."""
    rng = np.random.default_rng(SEED)
    model = trained(rng)
    folder = Path(__file__).resolve().parent
    target = folder / "shapes_int8.onnx"
    with TemporaryDirectory() as scratch:
        source = Path(scratch) / "shapes.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(images(rng, 200)[0]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    inputs, labels = images(rng, HELD_OUT)
    for name, one in (("float32", model), ("int8", onnx.load(target))):
        session = onnxruntime.InferenceSession(
            one.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        scores = session.run(None, {"image": inputs})[0]
        print(f"{name}: {np.mean(scores.argmax(axis=1) == labels):.1%} of {HELD_OUT} held out")
    np.savez_compressed(folder / "samples.npz", inputs=inputs[:SAMPLES], labels=labels[:SAMPLES])


if __name__ == "__main__":
    main()
