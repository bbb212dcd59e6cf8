"""Neighbouring pixels of few channels, computed side by side for a dense layer."""

from __future__ import annotations

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite import convert
from celosia.sw.compiler.ir import ConvOp, Graph
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.passes.fold_output import fold_output
from celosia.sw.compiler.verify import verify
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run
from tests.kit.machines import MACHINES

LARGE = preset("large")


def model(
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    pool: bool = False,
) -> bytes:
    """Return a convolution and a dense layer that reads all of it."""
    b = ModelBuilder()
    x = b.input((1, *size, channels[0]), scale=0.1, zero_point=int(rng.integers(-128, 128)))
    w = rng.integers(-127, 128, (channels[1], *kernel, channels[0]), dtype=np.int8)
    bias = rng.integers(-2000, 2000, channels[1], dtype=np.int32)
    scales = rng.uniform(0.002, 0.02, channels[1]).astype(np.float32)
    y = b.conv2d(
        x, w, bias, w_scales=scales, scale=0.3, zero_point=-7, strides=strides, padding=padding
    )
    if pool:
        y = b.max_pool2d(y, size=(2, 2), strides=(2, 2))
    flat = b.reshape(y, (1, int(np.prod(y.shape))))
    w = rng.integers(-127, 128, (5, flat.shape[1]), dtype=np.int8)
    return b.finish([b.fully_connected(flat, w, w_scales=0.01, scale=2.0, zero_point=3)])


def lowered(content: bytes) -> Graph:
    return lower(convert.load(content))


def test_neighbours_fill_the_columns() -> None:
    rng = np.random.default_rng(1)
    content = model(rng, size=(25, 20), channels=(1, 8), kernel=(10, 8))
    graph = lowered(content)
    folded = fold_output(graph, LARGE)
    verify(folded)
    first, second = (op for op in folded.ops if isinstance(op, ConvOp))
    assert folded.hwc(first.output) == (25, 10, 16)
    assert (first.stride_w, first.kernel_w, first.cout) == (2, 9, 16)
    assert second.weights.shape == (25, 10, 16, 5)
    assert [op.macs for op in folded.npu_ops] == [op.macs for op in graph.npu_ops]
    program = compile_model(content, LARGE)
    assert "250 passes" in program.npu.layers[-1].reason
    kept = compile_model(content, LARGE, keep_tensors=True)
    assert first.output not in {tensor.name for tensor in kept.npu.intermediates}


@pytest.mark.parametrize(
    "changes",
    [{"pool": True}, {"channels": (1, 16)}, {"size": (25, 23), "channels": (3, 8)}],
    ids=["a pool reads it", "columns are full", "rows are not made up of pairs"],
)
def test_else_the_graph_stays(changes: dict[str, object]) -> None:
    given: dict[str, object] = {"size": (24, 20), "channels": (1, 8), "kernel": (3, 3)}
    graph = lowered(model(np.random.default_rng(2), **{**given, **changes}))  # type: ignore[arg-type]
    assert fold_output(graph, LARGE) is graph


@pytest.mark.parametrize("name", ["small8", "base", "large"])
@pytest.mark.parametrize("seed", range(12))
def test_results_are_the_same(name: str, seed: int) -> None:
    rng = np.random.default_rng((seed, 5))
    config = MACHINES[name]
    height, width, cin = (int(n) for n in rng.integers((1, 1, 1), (9, 13, 5)))
    content = model(
        rng,
        size=(height, width),
        channels=(cin, int(rng.integers(1, config.cols // 2 + 1))),
        kernel=tuple(int(k) for k in rng.integers(1, (min(height, 4) + 1, min(width, 5) + 1))),  # type: ignore[arg-type]
        strides=tuple(int(s) for s in rng.integers(1, 4, 2)),  # type: ignore[arg-type]
        padding=str(rng.choice(["SAME", "VALID"])),
    )
    program = compile_model(content, config, host="refuse")
    inputs = [rng.integers(-128, 128, (1, height, width, cin), dtype=np.int8)]
    want = GoldenModel(content).run(inputs)
    for tensor, values in run(program, inputs, "random", seed).items():
        np.testing.assert_array_equal(values.ravel(), want[tensor].ravel())
