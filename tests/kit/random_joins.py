"""Random networks whose branches part and join, for tests: splits, slices, concatenations, copies.

All tensors have one quantisation, so that any of them may be joined. Channels are mostly multiples
of a few lines' lengths, since only such parts can share the place of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.random_models import RandomModel
from tests.kit.random_moves import MoveDraw, move_is_possible, random_outputs

__all__ = ["random_joined_network"]

Rng = np.random.Generator

SCALE = 0.05
CHANNELS = (4, 8, 8, 16, 16, 16, 24, 32, 5)
MOST_ELEMENTS = 6000
MOVES = (
    "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE", "TILE", "PAD", "MIRROR_PAD", "TRANSPOSE",
    "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "REVERSE_V2", "UNPACK", "GATHER",
)  # fmt: skip


def _convolved(d: MoveDraw) -> TensorHandle:
    size, channels = int(d.rng.choice([1, 1, 3])), int(d.rng.choice(CHANNELS))
    weights = d.rng.integers(-127, 128, (channels, size, size, d.x.shape[3])).astype(np.int8)
    strides = (2, 2) if d.rng.random() < 0.15 else (1, 1)
    return d.builder.conv2d(
        d.x,
        weights,
        w_scales=0.05 / size / d.x.shape[3] ** 0.5,
        scale=SCALE,
        zero_point=d.x.zero_point,
        strides=strides,
    )


def _filtered(d: MoveDraw) -> TensorHandle:
    weights = d.rng.integers(-127, 128, (1, 3, 3, d.x.shape[3])).astype(np.int8)
    return d.builder.depthwise_conv2d(
        d.x, weights, w_scales=0.02, scale=SCALE, zero_point=d.x.zero_point
    )


def _changed(d: MoveDraw) -> TensorHandle:
    """A layer that is no movement."""
    image = len(d.x.shape) == 4
    what = d.whole(0, 5) if image else 5
    if what <= 2:
        return _convolved(d)
    if what == 3:
        return _filtered(d)
    if what == 4 and min(d.x.shape[1:3]) > 1:
        strides = (2, 2) if d.rng.random() < 0.3 else (1, 1)
        return d.builder.max_pool2d(d.x, size=(2, 2), strides=strides, padding="SAME")
    return d.builder.relu(d.x, scale=SCALE, zero_point=d.x.zero_point)


def _joined(d: MoveDraw, pool: Sequence[TensorHandle]) -> TensorHandle | None:
    """A concatenation of the tensor and others that differ along one axis."""
    axis = d.whole(1, len(d.x.shape) - 1)

    def like(t: TensorHandle) -> bool:
        return len(t.shape) == len(d.x.shape) and all(
            a == b for i, (a, b) in enumerate(zip(t.shape, d.x.shape, strict=True)) if i != axis
        )

    others = [t for t in pool if like(t)]
    picked = [others[int(i)] for i in d.rng.integers(0, len(others), d.whole(1, 3))]
    parts = [d.x, *picked]
    parts = [parts[int(i)] for i in d.rng.permutation(len(parts))]
    shape = list(d.x.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    options = ("ConcatenationOptions", {"Axis": axis})
    return d.result("CONCATENATION", parts, [shape], options)[0]


def _added(d: MoveDraw, pool: Sequence[TensorHandle]) -> TensorHandle:
    others = [t for t in pool if t.shape == d.x.shape]
    other = others[int(d.rng.integers(len(others)))]
    return d.builder.add(d.x, other, scale=SCALE, zero_point=d.x.zero_point)


def _reshaped(d: MoveDraw) -> TensorHandle:
    n = int(np.prod(d.x.shape))
    shapes = [(1, n // d.x.shape[-1], d.x.shape[-1]), (1, 1, n // d.x.shape[-1], d.x.shape[-1])]
    shapes += [(1, n // c, c) for c in (8, 16) if n % c == 0]
    return d.builder.reshape(d.x, shapes[int(d.rng.integers(len(shapes)))])


def random_joined_network(rng: Rng, *, depth: int = 9) -> RandomModel:
    """Make a network.

    Parameters
    ----------
    rng
        Where every choice comes from.
    depth
        Operators, at most; some of them make several tensors.
    """
    builder = ModelBuilder()
    shape = (1, int(rng.integers(1, 9)), int(rng.integers(1, 9)), int(rng.choice(CHANNELS)))
    zero_point = int(rng.integers(-20, 21))
    inputs = [builder.input(shape, scale=SCALE, zero_point=zero_point)]
    pool = [inputs[0]]
    read: set[int] = set()
    for _ in range(depth):
        # The latest tensors are most likely, so that networks become deep.
        place = len(pool) - 1 - min(int(rng.geometric(0.45)) - 1, len(pool) - 1)
        x = pool[place]
        d = MoveDraw(rng, builder, inputs, x)
        made: list[TensorHandle] = []
        what = rng.random()
        if what < 0.4:
            made = [_changed(d)]
        elif what < 0.68:
            joined = _joined(d, pool)
            made = [joined] if joined is not None else []
        elif what < 0.74:
            made = [_added(d, pool)]
        elif what < 0.8:
            made = [_reshaped(d)]
        else:
            code = MOVES[int(rng.integers(len(MOVES)))]
            if move_is_possible(code, len(x.shape)):
                made = random_outputs(code, d)
        read.add(place)
        pool += [t for t in made if int(np.prod(t.shape)) <= MOST_ELEMENTS]
    outputs = [t for i, t in enumerate(pool[1:], 1) if i not in read or rng.random() < 0.15]
    outputs = outputs or [builder.relu(pool[-1], scale=SCALE, zero_point=zero_point)]
    values = [rng.integers(-128, 128, handle.shape).astype(np.int8) for handle in inputs]
    return RandomModel(builder.finish(outputs), values)
