"""Random models of SPACE_TO_BATCH_ND, a convolution and BATCH_TO_SPACE_ND, with inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.random_models import RandomModel

__all__ = ["random_dilation"]

Rng = np.random.Generator


def random_dilation(rng: Rng) -> RandomModel:
    """Make a model of a dilated convolution as older converters write it: of an image or a row."""
    b = ModelBuilder()
    row = bool(rng.random() < 0.35)
    axes = 1 if row else 2
    sizes = [int(n) for n in rng.integers(4, 14, axes)]
    block = [int(n) for n in rng.integers(1, 4, axes)]
    channels = int(rng.integers(1, 18))
    taps = [int(n) for n in rng.integers(1, 4, axes)]
    same = bool(rng.random() < 0.3)
    pads = []
    for n, d, k in zip(sizes, block, taps, strict=True):
        reach = 0 if same else (k - 1) * d
        before = int(rng.integers(0, reach + 1)) if rng.random() < 0.7 else reach
        least = max(0, (0 if same else reach + 1) - n - before)
        after = max(least, reach - before) if rng.random() < 0.7 else least
        pads.append([before, after + -(n + before + after) % d])
    quantised: dict[str, Any] = {"scale": 0.05, "zero_point": int(rng.integers(-128, 128))}
    x = b.input((1, *sizes, channels), **quantised)
    source = b.relu(x, **quantised) if rng.random() < 0.3 else x
    inner = [(n + sum(p)) // d for n, p, d in zip(sizes, pads, block, strict=True)]
    batch = int(np.prod(block))
    numbers = [b.constant(np.array(values, np.int32)) for values in (block, pads)]
    y = b.operator("SPACE_TO_BATCH_ND", [source, *numbers], (batch, *inner, channels), **quantised)
    kernel = list(taps)
    if row:
        place = int(rng.integers(0, 2))
        kernel.insert(place, 1)
        inner.insert(place, 1)
        y = b.reshape(y, (batch, *inner, channels))
    y = _convolved(b, y, kernel, rng, padding="SAME" if same else "VALID")
    inner = list(y.shape[1:3])
    if row:
        inner = [y.shape[1] * y.shape[2]]
        y = b.reshape(y, (batch, *inner, y.shape[3]))
    whole = [n * d for n, d in zip(inner, block, strict=True)]
    crops = [[0, int(rng.integers(0, min(d, n)))] for n, d in zip(whole, block, strict=True)]
    shape = (1, *(n - sum(c) for n, c in zip(whole, crops, strict=True)), y.shape[-1])
    numbers = [b.constant(np.array(values, np.int32)) for values in (block, crops)]
    y = b.operator(
        "BATCH_TO_SPACE_ND", [y, *numbers], shape, scale=y.scale, zero_point=y.zero_point
    )
    values = rng.integers(-128, 128, x.shape).astype(np.int8)
    return RandomModel(b.finish([y]), [values])


def _convolved(
    b: ModelBuilder, x: TensorHandle, kernel: list[int], rng: Rng, *, padding: str
) -> TensorHandle:
    channels = x.shape[3]
    quantised: dict[str, Any] = {
        "scale": 0.2,
        "zero_point": int(rng.integers(-128, 128)),
        "padding": padding,
    }
    if rng.random() < 0.4:
        weights = rng.integers(-127, 128, (1, *kernel, channels)).astype(np.int8)
        scales = rng.uniform(0.005, 0.02, channels)
        return b.depthwise_conv2d(x, weights, w_scales=scales, **quantised)
    cout = int(rng.integers(1, 12))
    weights = rng.integers(-127, 128, (cout, *kernel, channels)).astype(np.int8)
    bias = rng.integers(-3000, 3000, cout).astype(np.int32)
    return b.conv2d(x, weights, bias, w_scales=rng.uniform(0.005, 0.02, cout), **quantised)
