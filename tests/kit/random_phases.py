"""Random models around an operator that is several convolutions into one tensor, with inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.random_models import RandomModel

__all__ = ["GROWING", "grown", "random_growing"]

Rng = np.random.Generator
_ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
_SCALES = (0.05, 0.0625, 0.11)


def _scale(rng: Rng) -> float:
    return float(rng.choice(_SCALES))


def _transpose_conv(b: ModelBuilder, x: TensorHandle, rng: Rng) -> TensorHandle:
    _, height, width, channels = x.shape
    strides = [int(s) for s in rng.choice([1, 2, 2, 3, 4, 8], 2)]
    kernel = [int(k) for k in rng.integers(1, 6, 2)]
    cout = int(rng.integers(1, 20))
    same = bool(rng.random() < 0.5)
    size = []
    for n, k, s in zip((height, width), kernel, strides, strict=True):
        # With SAME any size that has as many strides; with VALID the least, and some more.
        least = (n - 1) * s + (1 if same else k)
        size.append(least + int(rng.integers(0, s)))
    weights = rng.integers(-127, 128, (cout, *kernel, channels)).astype(np.int8)
    scales = rng.uniform(0.002, 0.02, cout if rng.random() < 0.7 else 1).astype(np.float32)
    operands = [
        b.constant(np.array([1, *size, cout], np.int32)),
        b.constant(weights, scales=scales),
        x,
    ]
    if rng.random() < 0.6:
        bias = rng.integers(-3000, 3000, cout).astype(np.int32)
        operands.append(b.constant(bias, scales=scales * np.float32(x.scale)))
    activation = str(rng.choice(list(_ACTIVATIONS)))
    options = {
        "Padding": 0 if same else 1,
        "StrideH": strides[0],
        "StrideW": strides[1],
        "FusedActivationFunction": _ACTIVATIONS[activation],
    }
    return b.operator(
        "TRANSPOSE_CONV",
        operands,
        (1, *size, cout),
        scale=_scale(rng),
        zero_point=int(rng.integers(-128, 128)),
        options=("TransposeConvOptions", options),
    )


def _resize_bilinear(b: ModelBuilder, x: TensorHandle, rng: Rng) -> TensorHandle:
    _, height, width, channels = x.shape
    mode = int(rng.integers(0, 3))
    size = []
    for n in (height, width):
        factor = int(rng.choice([1, 2, 2, 4, 8]))
        if mode == 1 and n > 1:
            size.append((n - 1) * factor + 1)
        elif rng.random() < 0.2 and n % 2 == 0:
            size.append(n // 2)
        else:
            size.append(n * factor)
    return b.operator(
        "RESIZE_BILINEAR",
        [x, b.constant(np.array(size, np.int32))],
        (1, *size, channels),
        scale=x.scale,
        zero_point=x.zero_point,
        options=(
            "ResizeBilinearOptions",
            {"AlignCorners": mode == 1, "HalfPixelCenters": mode == 2},
        ),
    )


_MAKERS: dict[str, Callable[[ModelBuilder, TensorHandle, Rng], TensorHandle]] = {
    "RESIZE_BILINEAR": _resize_bilinear,
    "TRANSPOSE_CONV": _transpose_conv,
}
GROWING = tuple(_MAKERS)
"""The schema's names of the operators that :func:`random_growing` can make."""


def grown(code: str, b: ModelBuilder, x: TensorHandle, rng: Rng) -> TensorHandle:
    """Add an operator of :data:`GROWING` that takes an image; return its result."""
    return _MAKERS[code](b, x, rng)


def random_growing(code: str, rng: Rng, *, most: int = 9) -> RandomModel:
    """Make a model around one operator.

    Parameters
    ----------
    code
        One of :data:`GROWING`.
    rng
        Where every choice comes from.
    most
        Rows and columns of its input.
    """
    b = ModelBuilder()
    shape = (1, *(int(n) for n in rng.integers(1, most + 1, 2)), int(rng.integers(1, 20)))
    x = b.input(shape, scale=_scale(rng), zero_point=int(rng.integers(-128, 128)))
    source = b.relu(x, scale=x.scale, zero_point=x.zero_point) if rng.random() < 0.4 else x
    y = grown(code, b, source, rng)
    if rng.random() < 0.4:
        y = b.relu(y, scale=y.scale, zero_point=y.zero_point)
    elif rng.random() < 0.4:
        weights = rng.integers(-127, 128, (5, 3, 3, y.shape[3])).astype(np.int8)
        y = b.conv2d(y, weights, w_scales=0.01, scale=0.3)
    return RandomModel(b.finish([y]), [rng.integers(-128, 128, shape).astype(np.int8)])
