"""Operators of two tensors whose result is streamed in groups of channels."""

from __future__ import annotations

import numpy as np
import pytest
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run
from tests.kit.machines import MACHINES


@pytest.mark.parametrize(
    ("config", "width", "channels", "groups"),
    [("small4", 8, 64, 2), ("small4", 8, 96, 4), ("small8", 16, 64, 2)],
)
@pytest.mark.parametrize("loaded", [False, True])
def test_one_channel_is_for_all_groups(
    config: str, width: int, channels: int, groups: int, loaded: bool
) -> None:
    """The first operand stays on chip, for a second reader; the second is made there, or loaded."""
    rng = np.random.default_rng(1)
    b = ModelBuilder()
    x = b.input((1, 1, width, channels), scale=0.05)
    one = b.input((1, 1, width, 1), scale=0.05, zero_point=3)
    first = b.relu(x, scale=0.05)
    second = one if loaded else b.relu(one, scale=0.05, zero_point=3)
    results = [b.mul(first, second, scale=0.1), b.add(first, second, scale=0.1)]
    model = b.finish(results)
    inputs = [rng.integers(-128, 128, tensor.shape).astype(np.int8) for tensor in (x, one)]
    program = compile_model(model, MACHINES[config], host="refuse")
    assert any(f"{groups} channel groups" in layer.reason for layer in program.npu.layers)
    want = GoldenModel(model).run(inputs)
    got = run(program, inputs, "random", 1)
    for result in results:
        np.testing.assert_array_equal(got[result.name], want[result.name])
