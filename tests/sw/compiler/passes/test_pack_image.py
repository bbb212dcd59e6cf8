"""A dense layer over an image of few channels reads it packed, where that is faster."""

from __future__ import annotations

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite import convert
from celosia.sw.compiler.ir import ConvOp, Graph, ReshapeOp
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.passes.pack_image import pack_image
from celosia.sw.compiler.verify import verify
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run
from tests.kit.machines import MACHINES
from tests.kit.stateful_models import joined


def model(rng: np.random.Generator, size: tuple[int, int, int], outputs: int) -> bytes:
    """Return a pooled image and a dense layer that reads all of it."""
    b = ModelBuilder()
    x = b.input((1, 2 * size[0], 2 * size[1], size[2]), scale=0.1, zero_point=-3)
    y = b.max_pool2d(x, size=(2, 2), strides=(2, 2))
    flat = b.reshape(y, (1, int(np.prod(y.shape))))
    w = rng.integers(-127, 128, (outputs, flat.shape[1]), dtype=np.int8)
    bias = rng.integers(-2000, 2000, outputs, dtype=np.int32)
    return b.finish([b.fully_connected(flat, w, bias=bias, w_scales=0.01, scale=2.0, zero_point=3)])


def lowered(content: bytes) -> Graph:
    return lower(convert.load(content))


def test_a_packed_image_takes_fewer_cycles() -> None:
    config = preset("large")
    content = model(np.random.default_rng(1), (12, 12, 4), 40)
    graph = pack_image(lowered(content), config)
    verify(graph)
    dense = graph.ops[-1]
    assert isinstance(graph.ops[-2], ReshapeOp)
    assert isinstance(dense, ConvOp)
    assert dense.weights.shape == (1, 1, 576, 40)
    program = compile_model(content, config)
    # As an image: 144 passes of 16 cycles for each of three tiles. The whole program is faster.
    assert program.predicted_cycles < 3 * 144 * 16


@pytest.mark.parametrize("size", [(1, 1, 4), (6, 6, 16)], ids=["a pixel", "whole lines"])
def test_else_the_graph_stays(size: tuple[int, int, int]) -> None:
    graph = lowered(model(np.random.default_rng(2), size, 10))
    assert pack_image(graph, preset("large")) is graph


def test_what_reads_nothing_stays() -> None:
    """Constants that are put together are a movement without an input."""
    b = ModelBuilder()
    x = b.input((1, 2, 2, 4), scale=0.1, zero_point=-3)
    value = np.arange(16, dtype=np.int8).reshape(1, 2, 2, 4)
    constant = b.constant(value, scales=0.1, zero_point=-3)
    both = joined(b, [constant, constant])
    graph = lowered(b.finish([b.relu(x), both]))
    assert not all(op.inputs for op in graph.npu_ops)
    assert pack_image(graph, preset("large")) is graph


@pytest.mark.parametrize("name", ["small8", "base", "large"])
@pytest.mark.parametrize("seed", range(4))
def test_results_are_the_same(name: str, seed: int) -> None:
    rng = np.random.default_rng((seed, 7))
    height, width, channels = (int(n) for n in rng.integers((1, 2, 1), (6, 9, 12)))
    content = model(rng, (height, width, channels), int(rng.integers(1, 40)))
    program = compile_model(content, MACHINES[name], host="refuse")
    inputs = [rng.integers(-128, 128, (1, 2 * height, 2 * width, channels), dtype=np.int8)]
    want = GoldenModel(content).run(inputs)
    for tensor, values in run(program, inputs, "random", seed).items():
        np.testing.assert_array_equal(values.ravel(), want[tensor].ravel())
