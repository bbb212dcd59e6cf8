"""Random models of one reduction over any axes of a tensor of any rank, with inputs."""

from __future__ import annotations

import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder

from tests.kit.random_models import RandomModel

__all__ = ["REDUCTIONS", "random_reduction"]

Rng = np.random.Generator
REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
_RESCALES = ("MEAN", "SUM")


def random_reduction(code: str, rng: Rng) -> RandomModel:
    """Make a model of one of :data:`REDUCTIONS`; ranks are 1 to 5, the batch is 1."""
    b = ModelBuilder()
    rank = int(rng.integers(1, 6))
    inner = tuple(int(n) for n in rng.integers(1, 8, rank - 1))
    shape = (1, *inner) if rank > 1 else (int(rng.integers(1, 20)),)
    scale = float(np.float32(rng.choice([0.05, 0.0625, rng.uniform(0.001, 0.2)])))
    zero_point = int(rng.integers(-128, 128))
    x = b.input(shape, scale=scale, zero_point=zero_point)
    axes = [int(axis) for axis in rng.permutation(rank)[: int(rng.integers(1, rank + 1))]]
    told = [axis - rank if rng.random() < 0.3 else axis for axis in axes]
    keep = bool(rng.random() < 0.5)
    held = [1 if axis in axes else n for axis, n in enumerate(shape)]
    result = held if keep else [n for axis, n in enumerate(shape) if axis not in axes]
    if code in _RESCALES and rng.random() < 0.8:
        count = float(np.prod([shape[axis] for axis in axes]))
        grows = count**0.5 if code == "SUM" else count**-0.5
        factor = rng.choice([1.0, 2.0, 0.5, rng.uniform(0.3, 3)])
        scale = float(np.float32(scale * factor * (grows if rng.random() < 0.6 else 1)))
        zero_point = int(rng.integers(-128, 128))
    y = b.operator(
        code,
        [x, b.constant(np.array(told, np.int32))],
        result,
        scale=scale,
        zero_point=zero_point,
        options=("ReducerOptions", {"KeepDims": keep}),
    )
    return RandomModel(b.finish([y]), [rng.integers(-128, 128, shape).astype(np.int8)])
