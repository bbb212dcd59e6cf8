"""A model of which a part runs on the host."""

from __future__ import annotations

import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder

__all__ = ["divided_model"]


def divided_model(channels: int = 8) -> bytes:
    """Return a model of three operators: the one in the middle is nothing that the NPU computes."""
    b = ModelBuilder()
    y = b.input((1, 8, 8, channels), scale=0.1, zero_point=-3)
    rng = np.random.default_rng(0)
    for host in (True, False):
        weights = rng.integers(-127, 128, (channels, 3, 3, channels), np.int8)
        y = b.conv2d(y, weights, None, w_scales=0.002, scale=0.25, padding="SAME")
        if host:
            y = b.operator("LOG_SOFTMAX", [y], y.shape, scale=16 / 256, zero_point=127)
    return b.finish([y])
